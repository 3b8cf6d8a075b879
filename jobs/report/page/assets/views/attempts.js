// The failed attempts of a clip: class, message, traceback, and the clip that was refused.
"use strict";

{
  const { make, text } = nagfarm.dom;

  function attempts(page, ordinal, details) {
    const items = (details?.failures ?? []).map((failure) => attempt(page, ordinal, failure));
    const quarantine = details?.quarantine;
    if (quarantine) {
      items.unshift(
        make(
          "p",
          { class: "quarantine" },
          `Quarantined after ${nagfarm.format.count(quarantine.num_attempts, "attempt")}: `,
          text(quarantine.reason),
        ),
      );
    }
    return items;
  }

  function attempt(page, ordinal, failure) {
    const refused = page.clips.url(failure.clip, ordinal);
    return make(
      "article",
      { class: "attempt" },
      make(
        "header",
        {},
        make("span", { class: "tag is-failure" }, failure.failure_class),
        text(failure.error_type, { class: "error-type" }),
        make(
          "span",
          { class: "hint" },
          `attempt ${failure.attempt}, ${nagfarm.format.moment(failure.failed_at)}, `,
          text(failure.worker),
        ),
      ),
      text(failure.message, { class: "error-message" }, "p"),
      refused &&
        make(
          "figure",
          { class: "refused" },
          make("video", {
            src: refused,
            controls: true,
            muted: true,
            loop: true,
            playsinline: true,
            preload: "metadata",
            "aria-label": "The refused clip",
          }),
          make("figcaption", {}, "The clip that was refused"),
        ),
      failure.traceback &&
        make(
          "details",
          {},
          make("summary", {}, "Traceback"),
          text(failure.traceback, { class: "code", tabindex: "0" }, "pre"),
        ),
    );
  }

  nagfarm.attempts = attempts;
}
