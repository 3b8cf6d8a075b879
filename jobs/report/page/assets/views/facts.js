// The facts of one clip: its texts, its values, its stages, and the documents behind them.
"use strict";

{
  const { make, text } = nagfarm.dom;

  function facts(page, ordinal) {
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
      ["Seed", of("seed")],
      ["Steps", of("steps")],
      ["LoRAs", of("loras")],
      ["Size", of("size") && `${of("size")}, ${of("fps")} a second`],
      ["Images and videos", of("inputs")],
      ["Sound", of("sound")],
      ["Names", clips.strings.names[ordinal]?.join(", ")],
      ...notes.map((id) => [nagfarm.fields.dimension(id).label, of(id)]),
      [
        "Committed",
        clips.strings.committed_at[ordinal] && moment(clips.strings.committed_at[ordinal]),
      ],
      ["Run", of("run_id")],
      ["Worker", of("worker")],
      ["Device", of("device")],
      ["Attempts", Number.isNaN(number("attempts")) ? null : String(number("attempts"))],
      ["All stages", seconds(number("total"))],
      ["Device busy", percent(busy)],
      ["Peak memory", bytes(number("peak_memory_bytes"))],
      ["File", bytes(number("num_bytes"))],
      ...clips.scores.map((name) => [
        nagfarm.fields.scoreMeasure(name).label,
        nagfarm.format.figure(number(nagfarm.fields.SCORE + name)),
      ]),
      ["Id", clips.strings.id[ordinal]],
    ];
    return [
      make("h2", {}, "Prompt"),
      text(of("prompt") ?? "", { class: "whole-text" }, "p"),
      make("h2", {}, "Negative prompt"),
      text(
        nagfarm.fields.valueLabel("negative_prompt", of("negative_prompt")),
        { class: `whole-text${of("negative_prompt") ? "" : " no-value"}` },
        "p",
      ),
      make(
        "dl",
        {},
        rows
          .filter(([, value]) => value)
          .flatMap(([label, value]) => [make("dt", {}, label), text(value, {}, "dd")]),
      ),
      stageBar(clips, ordinal),
    ];
  }

  function stageBar(clips, ordinal) {
    const stages = nagfarm.fields.STAGES.map((stage) => [
      stage,
      clips.numbers[`stage:${stage}`][ordinal],
    ]).filter(([, value]) => value > 0);
    if (!stages.length) return null;
    const total = clips.numbers.total[ordinal];
    return make(
      "figure",
      { class: "stage-bar" },
      make(
        "div",
        { class: "bar", "aria-hidden": "true" },
        stages.map(([stage, value]) =>
          make("span", {
            class: `stage-${stage}`,
            style: { "flex-grow": String(value / total) },
            title: `${stage}: ${nagfarm.format.seconds(value)}`,
          }),
        ),
      ),
      make(
        "ul",
        {},
        stages.map(([stage, value]) =>
          make(
            "li",
            {},
            make("span", { class: `dot stage-${stage}` }),
            `${stage} `,
            make("span", { class: "value" }, nagfarm.format.seconds(value)),
          ),
        ),
      ),
    );
  }

  function details(page, ordinal, found) {
    const failures = nagfarm.attempts(page, ordinal, found);
    const source = page.clips.source(ordinal);
    return [
      failures.length ? make("h2", {}, "Failed attempts") : null,
      ...failures,
      source &&
        make(
          "p",
          {},
          make("a", { href: source, target: "_blank", rel: "noopener" }, "Open the MP4"),
        ),
      found?.row && folded("Manifest row", found.row),
      found?.record && folded("Record", found.record),
    ];
  }

  function folded(label, content) {
    const copy = make(
      "button",
      {
        type: "button",
        class: "text-button",
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
      "details",
      {},
      make("summary", {}, label),
      copy,
      make("pre", { class: "code", tabindex: "0", dir: "ltr" }, content),
    );
  }

  nagfarm.facts = { facts, details };
}
