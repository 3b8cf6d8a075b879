// The clips with failed attempts, grouped by class and error; each opens to its attempts.
"use strict";

{
  const { make, text, clear } = nagfarm.dom;
  const MAX_SHOWN = 100; // clips of a group, until more are asked for
  const EXPLAINED = {
    request: "the request itself is wrong: another attempt cannot pass",
    clip: "the frames did not pass the checks",
    memory: "the device or the host had too little memory",
    worker: "the worker died",
    stall: "no heartbeat, or no step, within the deadline",
    store: "the store refused or did not answer",
    code: "an exception that no code expected",
  };

  function failuresView(page) {
    const content = make("div", { class: "scroller failures" });
    const element = make("div", { class: "view failures-view" }, content);

    function groups() {
      const found = new Map();
      for (const row of page.ordered) {
        const kind = page.clips.text("failure_class", row);
        if (kind === null) continue;
        const key = `${kind}\n${page.clips.text("error_type", row)}`;
        if (!found.has(key)) found.set(key, []);
        found.get(key).push(row);
      }
      return [...found].sort(([, a], [, b]) => b.length - a.length);
    }

    function group([key, rows]) {
      const [kind, error] = key.split("\n");
      const items = make("ul", { class: "failed-clips" });
      const more = make("button", {
        type: "button",
        class: "text-button",
        on: { click: () => add() },
      });
      let num = 0;
      function add() {
        items.append(...rows.slice(num, num + MAX_SHOWN).map(item));
        num = Math.min(num + MAX_SHOWN, rows.length);
        more.hidden = num === rows.length;
        more.textContent = `Show more of ${rows.length - num}`;
      }
      add();
      return make(
        "section",
        { class: "failure-group" },
        make(
          "h2",
          {},
          make("span", { class: "tag is-failure" }, kind),
          " ",
          text(error),
          " ",
          make("span", { class: "hint" }, nagfarm.format.count(rows.length, "clip")),
        ),
        make("p", { class: "hint" }, EXPLAINED[kind] ?? ""),
        items,
        more,
      );
    }

    function item(row) {
      const { clips } = page;
      const state = clips.text("state", row);
      const id = clips.strings.id[row];
      const body = make("div", { class: "attempts" });
      const opened = make(
        "details",
        { data: { id } },
        make(
          "summary",
          {},
          make(
            "span",
            { class: `tag is-${state}` },
            state === "committed" ? "passed later" : state,
          ),
          text(clips.strings.name[row] ?? id, { class: "name" }),
          text(clips.text("message", row) ?? "", { class: "why" }),
        ),
        body,
      );
      opened.addEventListener("toggle", async () => {
        if (!opened.open || body.childElementCount) return;
        body.append(make("p", { class: "hint" }, "Loading"));
        try {
          const details = await page.source.detailsFor(row);
          clear(
            body,
            make("a", { href: page.hrefOf({ clip: id, beside: "" }) }, "Open the clip"),
            text(clips.text("prompt", row) ?? "", { class: "prompt" }, "p"),
            nagfarm.attempts(page, row, details),
          );
        } catch (error) {
          clear(body, make("p", { class: "problem" }, error.message));
        }
      });
      return make("li", {}, opened);
    }

    return {
      element,
      scroller: content,
      move: () => {},
      resize: () => {},
      show() {
        const found = groups();
        clear(
          content,
          found.length
            ? found.map(group)
            : make("p", { class: "empty" }, "No failed attempts among these clips."),
          troubleOf(page.source.index),
        );
      },
    };
  }

  // Objects of the output that could not be read.
  function troubleOf(index) {
    if (!index?.trouble?.length) return null;
    const rest = index.num_trouble - index.trouble.length;
    return make(
      "section",
      { class: "failure-group" },
      make("h2", {}, "Objects that cannot be read"),
      make(
        "ul",
        { class: "failed-clips" },
        index.trouble.map(({ key, message }) =>
          make("li", { class: "trouble" }, text(key, { class: "name" }), " ", text(message)),
        ),
      ),
      rest > 0 ? make("p", { class: "hint" }, `and ${rest} more: nagfarm verify lists all`) : null,
    );
  }

  nagfarm.failuresView = failuresView;
}
