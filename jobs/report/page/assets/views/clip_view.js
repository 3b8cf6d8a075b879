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
      nagfarm.icon("pick"), "Pick",
    );
    const stars = starButtons(page);
    const facts = make("div", { class: "facts" });
    const strips = make("div", { class: "strips" });
    const more = make("div", { class: "more-facts" });
    const head = make(
      "header", { class: "clip-head" },
      button("Back to the clips (Escape)", "close", () => page.go({ clip: "", beside: "" }, { isNew: true })),
      title,
      button("Previous clip (Page up)", "previous", () => step(-1)),
      button("Next clip (Page down)", "next", () => step(1)),
      pick, stars.element,
    );
    const main = make("div", { class: "clip-main" }, player.element, strips);
    const element = make(
      "section", { class: "clip-view", hidden: true, "aria-label": "Clip", tabindex: "-1" },
      head, make("div", { class: "clip-body" }, main, make("aside", {}, facts, more)),
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
      player.show(
        side(ordinal, beside), beside === undefined ? null : side(beside, ordinal),
      );
      clear(facts, factsOf(page, ordinal));
      neighboursOf = nagfarm.neighbours(clips, ordinal);
      clear(strips, neighboursOf.map((kind) => strip(kind)));
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
        poster: clips.url(clips.strings.poster[ordinal] ?? clips.strings.thumbnail[ordinal], ordinal),
        label: nagfarm.tile.label(page, ordinal),
        caption: differing.length
          ? differing.map((id) => nagfarm.fields.valueLabel(id, clips.text(id, ordinal))).join(" · ")
          : "",
        problem: `${clips.text("state", ordinal)}: ${clips.text("message", ordinal) ?? "no video"}`,
        hasSound: Boolean(clips.hasSound[ordinal]),
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
            "div", { class: "caption" }, text(words, { class: "prompt", title: words }, "div"),
            make("a", { class: "open", href: page.hrefOf({ clip: id, beside: "" }) }, "Open"),
          ),
        );
        return made;
      });
      const rest = kind.ordinals.length - tiles.length;
      return make(
        "section", {},
        make(
          "h2", {}, kind.label, " ",
          make("span", { class: "hint" }, rest > 0 ? `${tiles.length} of ${kind.ordinals.length}` : ""),
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
        if (page.state.clip === wanted) clear(more, detailsOf(page, ordinal, details));
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
          type: "button", "aria-label": nagfarm.format.count(number, "star"),
          on: { click: () => page.picks.setStars(page.state.clip, number) },
        },
        nagfarm.icon("star"),
      ),
    );
    return {
      element: make("div", { class: "star-buttons", role: "group", "aria-label": "Stars" }, buttons),
      show(stars) {
        buttons.forEach((one, index) => {
          one.classList.toggle("is-on", index < stars);
          one.setAttribute("aria-pressed", String(index + 1 === stars));
        });
      },
    };
  }

  function factsOf(page, ordinal) {
    const { clips } = page;
    const of = (id) => clips.text(id, ordinal);
    const number = (name) => clips.numbers[name][ordinal];
    const { seconds, bytes, moment, percent } = nagfarm.format;
    const busy = number("busy_s") / (number("busy_s") + number("idle_s"));
    const notes = Object.keys(clips.codes).filter((id) => id.startsWith("meta."));
    const rows = [
      ["Status", of("state")],
      ["Method", [of("method"), of("guidance")].filter(Boolean).join(", ")],
      ["Model", of("model")],
      ["Seed", of("seed")], ["Steps", of("steps")], ["LoRAs", of("loras")],
      ["Size", of("size") && `${of("size")}, ${of("fps")} a second`],
      ...notes.map((id) => [nagfarm.fields.dimension(id).label, of(id)]),
      ["Committed", clips.strings.committed_at[ordinal] && moment(clips.strings.committed_at[ordinal])],
      ["Run", of("run_id")], ["Worker", of("worker")], ["Device", of("device")],
      ["Attempts", Number.isNaN(number("attempts")) ? null : String(number("attempts"))],
      ["All stages", seconds(number("total"))], ["Device busy", percent(busy)],
      ["Peak memory", bytes(number("peak_memory_bytes"))], ["File", bytes(number("num_bytes"))],
      ["Id", clips.strings.id[ordinal]],
    ];
    return [
      make("h2", {}, "Prompt"),
      text(of("prompt") ?? "", { class: "whole-text" }, "p"),
      make("h2", {}, "Negative prompt"),
      text(
        nagfarm.fields.valueLabel("negative_prompt", of("negative_prompt")),
        { class: `whole-text${of("negative_prompt") ? "" : " no-value"}` }, "p",
      ),
      make(
        "dl", {},
        rows.filter(([, value]) => value).flatMap(([label, value]) => [
          make("dt", {}, label), text(value, {}, "dd"),
        ]),
      ),
      stageBar(clips, ordinal),
    ];
  }

  function stageBar(clips, ordinal) {
    const stages = nagfarm.fields.STAGES.map((stage) => [
      stage, clips.numbers[`stage:${stage}`][ordinal],
    ]).filter(([, value]) => value > 0);
    if (!stages.length) return null;
    const total = clips.numbers.total[ordinal];
    return make(
      "figure", { class: "stage-bar" },
      make(
        "div", { class: "bar", "aria-hidden": "true" },
        stages.map(([stage, value]) =>
          make("span", {
            class: `stage-${stage}`, style: { "flex-grow": String(value / total) },
            title: `${stage}: ${nagfarm.format.seconds(value)}`,
          }),
        ),
      ),
      make(
        "ul", {},
        stages.map(([stage, value]) =>
          make(
            "li", {}, make("span", { class: `dot stage-${stage}` }), `${stage} `,
            make("span", { class: "value" }, nagfarm.format.seconds(value)),
          ),
        ),
      ),
    );
  }

  function detailsOf(page, ordinal, details) {
    const failures = nagfarm.attempts(page, ordinal, details);
    const source = page.clips.source(ordinal);
    return [
      failures.length ? make("h2", {}, "Failed attempts") : null,
      ...failures,
      source && make("p", {}, make("a", { href: source, target: "_blank", rel: "noopener" }, "Open the MP4")),
      details?.row && folded("Manifest row", details.row),
      details?.record && folded("Record", details.record),
    ];
  }

  function folded(label, content) {
    const copy = make(
      "button",
      {
        type: "button", class: "text-button",
        on: {
          click: async () => {
            try {
              await navigator.clipboard.writeText(content);
              nagfarm.dom.say(`${label} copied`);
            } catch {
              nagfarm.dom.say("This browser lets no page from here copy: select the text");
            }
          },
        },
      },
      "Copy",
    );
    return make(
      "details", {}, make("summary", {}, label), copy,
      make("pre", { class: "code", tabindex: "0", dir: "ltr" }, content),
    );
  }

  nagfarm.clipView = clipView;
}
