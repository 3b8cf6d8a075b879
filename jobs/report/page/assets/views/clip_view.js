// The page of one clip: the video, another beside it, its neighbours, its facts and its record.
"use strict";

{
  const { make, text, button, clear } = nagfarm.dom;
  const MAX_NEIGHBOURS = 24; // of each kind

  function clipView(page) {
    const player = nagfarm.comparePlayer();
    const title = text("", { class: "clip-name" }, "h1");
    const pick = make(
      "button",
      { type: "button", class: "chip", on: { click: () => page.picks.toggle(page.state.clip) } },
      nagfarm.icon("pick"),
      "Pick",
    );
    const stars = starButtons(page);
    const facts = make("div", { class: "facts" });
    const strips = make("div", { class: "strips" });
    const more = make("div", { class: "more-facts" });
    const head = make(
      "header",
      { class: "clip-head" },
      button("Back to the clips (Escape)", "close", () =>
        page.go({ clip: "", beside: "" }, { isNew: true }),
      ),
      title,
      button("Previous clip (Page up)", "previous", () => step(-1)),
      button("Next clip (Page down)", "next", () => step(1)),
      pick,
      stars.element,
    );
    const main = make("div", { class: "clip-main" }, player.element, strips);
    const element = make(
      "section",
      { class: "clip-view", hidden: true, "aria-label": "Clip", tabindex: "-1" },
      head,
      make("div", { class: "clip-body" }, main, make("aside", {}, facts, more)),
    );
    let shown = "";
    let neighboursOf = [];

    function step(by) {
      const place = page.ordered.indexOf(page.clips.ordinals.get(page.state.clip));
      const next = page.ordered[place + by];
      if (next !== undefined) page.go({ clip: page.clips.strings.id[next], beside: "" });
    }

    // Compare with the next neighbour, or with none after the last.
    function stepBeside(by) {
      const all = neighboursOf.flatMap((kind) => kind.ordinals.slice(0, MAX_NEIGHBOURS));
      if (!all.length) return;
      const place = all.indexOf(page.clips.ordinals.get(page.state.beside));
      const next = all[place + by];
      page.go({ beside: next === undefined ? "" : page.clips.strings.id[next] });
    }

    function show() {
      const { clips, state } = page;
      const ordinal = clips.ordinals.get(state.clip);
      element.hidden = !state.clip;
      if (!state.clip || ordinal === undefined) {
        if (shown) player.stop();
        shown = "";
        clear(strips);
        clear(more);
        title.textContent = state.clip ? "This clip is not in the output" : "";
        clear(facts);
        return;
      }
      marks();
      const key = `${clips.version} ${state.clip} ${state.beside}`;
      if (key === shown) return;
      const wasClip = shown.split(" ")[1];
      shown = key;
      const beside = clips.ordinals.get(state.beside);
      title.textContent = clips.strings.name[ordinal] ?? state.clip;
      player.show(side(ordinal, beside), beside === undefined ? null : side(beside, ordinal));
      clear(facts, nagfarm.facts.facts(page, ordinal));
      neighboursOf = nagfarm.neighbours(clips, ordinal);
      clear(
        strips,
        neighboursOf.map((kind) => strip(kind)),
      );
      if (wasClip !== state.clip) {
        element.scrollTop = 0;
        showDetails(ordinal);
      }
    }

    function side(ordinal, other) {
      const { clips } = page;
      const { width, height, fps } = clips.numbers;
      const differing = other === undefined ? [] : differences(clips, ordinal, other);
      return {
        source: clips.source(ordinal),
        poster: clips.url(
          clips.strings.poster[ordinal] ?? clips.strings.thumbnail[ordinal],
          ordinal,
        ),
        label: nagfarm.tile.label(page, ordinal),
        caption: differing.length
          ? differing
              .map((id) => nagfarm.fields.valueLabel(id, clips.text(id, ordinal)))
              .join(" · ")
          : "",
        problem: `${clips.text("state", ordinal)}: ${clips.text("message", ordinal) ?? "no video"}`,
        hasSound: Boolean(clips.text("sound", ordinal)),
        fps: fps[ordinal],
        aspect: width[ordinal] / height[ordinal] || page.aspect(),
      };
    }

    function strip(kind) {
      const { clips, state } = page;
      const tiles = kind.ordinals.slice(0, MAX_NEIGHBOURS).map((row) => {
        const id = clips.strings.id[row];
        const made = nagfarm.tile.make(page, row, {
          href: page.hrefOf({ beside: id === state.beside ? "" : id }),
        });
        const value = nagfarm.fields.valueLabel(kind.id, clips.text(kind.id, row));
        const words = kind.id === "method" ? clips.text("guidance", row) || value : value;
        made.classList.toggle("is-beside", id === state.beside);
        made.append(
          make(
            "div",
            { class: "caption" },
            text(words, { class: "prompt", title: words }, "div"),
            make("a", { class: "open", href: page.hrefOf({ clip: id, beside: "" }) }, "Open"),
          ),
        );
        return made;
      });
      const rest = kind.ordinals.length - tiles.length;
      return make(
        "section",
        {},
        make(
          "h2",
          {},
          kind.label,
          " ",
          make(
            "span",
            { class: "hint" },
            rest > 0 ? `${tiles.length} of ${kind.ordinals.length}` : "",
          ),
        ),
        make("div", { class: "strip" }, tiles),
      );
    }

    async function showDetails(ordinal) {
      const { id } = page.clips.strings;
      const wanted = id[ordinal];
      clear(more, make("p", { class: "hint" }, "Loading the record"));
      try {
        const details = await page.source.detailsFor(ordinal);
        if (page.state.clip === wanted) clear(more, nagfarm.facts.details(page, ordinal, details));
      } catch (error) {
        if (page.state.clip === wanted) clear(more, make("p", { class: "problem" }, error.message));
      }
    }

    function marks() {
      const { picks, state } = page;
      const isPicked = picks.isPicked(state.clip);
      pick.classList.toggle("is-active", isPicked);
      pick.setAttribute("aria-pressed", String(isPicked));
      stars.show(picks.stars(state.clip));
    }

    return { element, player, show, step, stepBeside, marks, stop: () => player.stop() };
  }

  function differences(clips, one, other) {
    return nagfarm.fields.DIMENSIONS.map(({ id }) => id).filter(
      (id) =>
        !["state", "run_id", "device", "host", "failure_class", "error_type"].includes(id) &&
        clips.codes[id][one] !== clips.codes[id][other],
    );
  }

  function starButtons(page) {
    const buttons = [1, 2, 3, 4, 5].map((number) =>
      make(
        "button",
        {
          type: "button",
          "aria-label": nagfarm.format.count(number, "star"),
          on: { click: () => page.picks.setStars(page.state.clip, number) },
        },
        nagfarm.icon("star"),
      ),
    );
    return {
      element: make(
        "div",
        { class: "star-buttons", role: "group", "aria-label": "Stars" },
        buttons,
      ),
      show(stars) {
        buttons.forEach((one, index) => {
          one.classList.toggle("is-on", index < stars);
          one.setAttribute("aria-pressed", String(index + 1 === stars));
        });
      },
    };
  }

  nagfarm.clipView = clipView;
}
