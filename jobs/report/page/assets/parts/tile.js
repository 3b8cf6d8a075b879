// Show one clip in a grid: picture, marks, caption.
"use strict";

{
  const { make, text } = nagfarm.dom;
  const STATES = {
    damaged: "damaged: the MP4 is gone",
    quarantined: "quarantined",
    failed: "failed",
  };

  // `caption`: "none", "short" (the value sorted by) or "full" (name and texts).
  function tile(page, ordinal, { caption = "none", role = null, href = null, tag = "" } = {}) {
    const { clips } = page;
    const id = clips.strings.id[ordinal];
    const source = clips.source(ordinal);
    const link = make(
      "a",
      { class: "picture", href: href ?? page.hrefOf({ clip: id, beside: "" }), draggable: "false" },
      picture(clips, ordinal),
    );
    const pick = make(
      "button",
      { type: "button", class: "pick", data: { action: "pick" }, tabindex: "-1" },
      nagfarm.icon("pick"),
    );
    const element = make(
      "div",
      { class: `tile is-${clips.text("state", ordinal)}`, role, data: { id } },
      link,
      pick,
      make("span", { class: "stars", "aria-hidden": "true" }),
      tag && text(tag, { class: "clip-tag", "aria-hidden": "true" }),
      captionOf(page, ordinal, caption),
    );
    if (source) element.dataset.source = source;
    refresh(page, element);
    return element;
  }

  function picture(clips, ordinal) {
    const thumbnail = clips.url(
      clips.strings.thumbnail[ordinal] ?? clips.strings.poster[ordinal],
      ordinal,
    );
    if (thumbnail && clips.text("state", ordinal) === "committed") {
      return make("img", { src: thumbnail, alt: "", decoding: "async", draggable: "false" });
    }
    const source = clips.source(ordinal);
    if (source) {
      return make("video", {
        class: "still",
        src: `${source}#t=0.001`, // its first frame
        preload: "metadata",
        muted: true,
        playsinline: true,
        tabindex: -1,
        "aria-hidden": "true",
      });
    }
    const state = clips.text("state", ordinal);
    const error = clips.text("error_type", ordinal);
    return make(
      "span",
      { class: "placeholder" },
      make("strong", {}, STATES[state] ?? "no picture"),
      state === "committed" ? null : text(error ?? ""),
      state === "committed" ? null : text(clips.text("message", ordinal) ?? "", { class: "why" }),
    );
  }

  function captionOf(page, ordinal, caption) {
    if (caption === "none") return null;
    const { clips, state } = page;
    const measure = nagfarm.fields.measure(state.sort);
    const value = measure.show && clips.numbers[measure.column]?.[ordinal];
    const shown = measure.show ? nagfarm.format[measure.show](value) : null;
    if (caption === "short") return shown && make("span", { class: "caption value" }, shown);
    const negative = clips.text("negative_prompt", ordinal);
    return make(
      "div",
      { class: "caption" },
      make(
        "div",
        { class: "line" },
        text(clips.strings.name[ordinal] ?? "", { class: "name" }),
        make("span", { class: "value" }, shown ?? clips.text("method", ordinal) ?? ""),
      ),
      text(clips.text("prompt", ordinal) ?? "", { class: "prompt" }, "div"),
      negative ? text(negative, { class: "negative" }, "div") : make("div", { class: "negative" }),
    );
  }

  function label(page, ordinal) {
    const { clips, picks } = page;
    const id = clips.strings.id[ordinal];
    const of = (name) => clips.text(name, ordinal);
    const stars = picks.stars(id);
    return [
      clips.strings.name[ordinal] ?? id,
      of("prompt"),
      of("negative_prompt") && `without ${of("negative_prompt")}`,
      of("method"),
      of("seed") && `seed ${of("seed")}`,
      of("state") === "committed" ? null : STATES[of("state")],
      picks.isPicked(id) && "picked",
      stars && nagfarm.format.count(stars, "star"),
    ]
      .filter(Boolean)
      .join(", ");
  }

  // Show the marks of a tile as they are now.
  function refresh(page, element) {
    const ordinal = page.clips.ordinals.get(element.dataset.id);
    if (ordinal === undefined) return;
    const { id } = element.dataset;
    const isPicked = page.picks.isPicked(id);
    element.classList.toggle("is-picked", isPicked);
    const pick = element.querySelector(".pick");
    pick.setAttribute("aria-pressed", String(isPicked));
    pick.setAttribute("aria-label", `Pick ${page.clips.strings.name[ordinal] ?? id}`);
    element.querySelector(".stars").textContent = "★".repeat(page.picks.stars(id));
    element.querySelector(".picture").setAttribute("aria-label", label(page, ordinal));
  }

  nagfarm.tile = { make: tile, refresh, label };
}
