// Runs, cost, and the charts of stage times, throughput, busy share and memory.
"use strict";

{
  const { make, text, clear } = nagfarm.dom;
  const { STAGES } = nagfarm.fields;
  const GIB = 2 ** 30;

  function numbersView(page) {
    const content = make("div", { class: "scroller numbers" });
    const element = make("div", { class: "view numbers-view" }, content);
    let charts = [];
    let isShown = false;

    document.addEventListener("themechange", () => isShown && charts.forEach((one) => one.draw()));
    new ResizeObserver(() => isShown && charts.forEach((one) => one.resize())).observe(content);

    return {
      element,
      scroller: content,
      move: () => {},
      resize: () => {},
      hide() {
        isShown = false;
        charts.forEach((one) => one.destroy());
        charts = [];
      },
      show() {
        this.hide();
        isShown = true;
        const index = page.source.index ?? {};
        charts = chartsOf(page);
        clear(
          content,
          tiles(page, index),
          costOf(index.cost),
          charts.length
            ? make(
                "div",
                { class: "charts" },
                charts.map((one) => one.element),
              )
            : make("p", { class: "empty" }, "No committed clips among these, so no times."),
          stageTable(page),
          runsOf(index.runs ?? []),
        );
        charts.forEach((one) => one.draw());
      },
    };
  }

  function tiles(page, index) {
    const { counts = {}, runs = [] } = index;
    const summary = runs.at(-1)?.summary ?? runs.at(-1)?.status;
    const cost = index.cost;
    const facts = [
      ["Committed", (counts.committed ?? 0).toLocaleString("en")],
      ["Failed", ((counts.failed ?? 0) + (counts.quarantined ?? 0)).toLocaleString("en")],
      counts.damaged ? ["Damaged", counts.damaged.toLocaleString("en")] : null,
      summary?.busy_share != null
        ? ["Devices busy, last run", nagfarm.format.percent(summary.busy_share)]
        : null,
      cost?.device_hours ? ["Device-hours", hours(cost.device_hours)] : null,
      cost?.wasted_share != null ? ["Wasted", nagfarm.format.percent(cost.wasted_share)] : null,
      cost?.price != null ? ["Price", price(cost.price, cost.currency)] : null,
    ].filter(Boolean);
    return make(
      "dl",
      { class: "tiles" },
      facts.map(([label, value]) => make("div", {}, make("dt", {}, label), make("dd", {}, value))),
    );
  }

  function hours(value) {
    return value >= 100 ? Math.round(value).toLocaleString("en") : value.toPrecision(3);
  }

  // As the command line writes it: `USD 31.00`, `$31.00`.
  function price(value, currency) {
    const blank = /^\p{L}+$/u.test(currency) ? " " : "";
    const number = value.toLocaleString("en", {
      minimumFractionDigits: 2,
      maximumFractionDigits: 2,
    });
    return `${currency}${blank}${number}`;
  }

  function costOf(cost) {
    if (!cost?.models?.length) return null;
    const names = (of) => [...new Set(cost.models.flatMap((one) => Object.keys(one[of] ?? {})))];
    const [stages, wastes] = [names("stage_hours"), names("wasted_hours")];
    const rows = cost.models.map((one) => [
      one.model,
      one.device,
      hours(one.device_hours),
      ...stages.map((name) => (one.stage_hours[name] ? hours(one.stage_hours[name]) : "")),
      ...wastes.map((name) => (one.wasted_hours[name] ? hours(one.wasted_hours[name]) : "")),
      one.price === null || one.price === undefined ? "" : price(one.price, cost.currency),
    ]);
    const unpriced =
      cost.unpriced_hours > 0 && cost.price !== null
        ? make("p", { class: "hint" }, `${hours(cost.unpriced_hours)} device-hours have no price.`)
        : null;
    return make(
      "section",
      {},
      make("h2", {}, "Cost in device-hours"),
      tableOf(
        ["Model", "Device", "All", ...stages, ...wastes.map((name) => `wasted: ${name}`), "Price"],
        rows,
        2,
      ),
      unpriced,
    );
  }

  function chartsOf(page) {
    const series = nagfarm.series.overTime(page.clips, page.matching);
    if (series === null) return [];
    const { buckets, length_s } = series;
    const times_s = buckets.map((one) => one.at_s);
    const span = spanOf(length_s);
    const stages = STAGES.filter((stage) => buckets.some((one) => one.stages_s[stage] > 0));
    const whole = (value) => (Number.isInteger(value) ? value.toLocaleString("en") : "");
    return [
      nagfarm.chart({
        title: `Clips committed every ${span}`,
        times_s,
        format: whole,
        lines: [
          { label: "Clips", values: buckets.map((one) => one.num), color: "--accent", isBar: true },
        ],
      }),
      stages.length &&
        nagfarm.chart({
          title: "Seconds of each stage, mean of a clip",
          times_s,
          isStacked: true,
          format: nagfarm.format.seconds,
          lines: stages.map((stage) => ({
            label: stage,
            color: `--stage-${stage}`,
            isBar: true,
            values: buckets.map((one) => (one.num ? one.stages_s[stage] / one.num : null)),
          })),
        }),
      nagfarm.chart({
        title: "Share of time in which devices were busy",
        times_s,
        max: 1,
        format: nagfarm.format.percent,
        lines: [
          {
            label: "Busy",
            color: "--good",
            isArea: true,
            values: buckets.map((one) =>
              one.busy_s + one.idle_s > 0 ? one.busy_s / (one.busy_s + one.idle_s) : null,
            ),
          },
        ],
      }),
      nagfarm.chart({
        title: "Peak memory",
        times_s,
        format: (value) => `${value.toFixed(2)} GiB`,
        lines: [
          {
            label: "Highest of these clips",
            color: "--stage-decode",
            values: buckets.map((one) =>
              one.memory_bytes === null ? null : one.memory_bytes / GIB,
            ),
          },
        ],
      }),
    ].filter(Boolean);
  }

  function spanOf(length_s) {
    if (length_s < 60) return length_s === 1 ? "second" : `${length_s} seconds`;
    if (length_s < 3600) return length_s === 60 ? "minute" : `${length_s / 60} minutes`;
    return length_s === 3600 ? "hour" : `${Math.round(length_s / 360) / 10} hours`;
  }

  function stageTable(page) {
    const models = nagfarm.series.byModel(page.clips, page.matching);
    if (!models.length) return null;
    const rows = models.flatMap(({ model, num, stages }) =>
      Object.entries(stages).map(([stage, one], index) => [
        index ? "" : model,
        index ? "" : num.toLocaleString("en"),
        stage,
        nagfarm.format.seconds(one.median),
        nagfarm.format.seconds(one.p95),
        nagfarm.format.percent(one.share),
      ]),
    );
    return make(
      "section",
      {},
      make("h2", {}, "Stages by model"),
      tableOf(["Model", "Clips", "Stage", "Median", "95% below", "Share"], rows, 1),
    );
  }

  function runsOf(runs) {
    if (!runs.length) return null;
    const rows = [...runs].reverse().map(({ run_id: id, status, summary }) => {
      const one = summary ?? status ?? {};
      const state = status?.state ?? (summary ? "finished" : "unknown");
      return [
        id,
        one.stop ? `${state}: ${one.stop.message}` : state,
        (one.num_committed ?? 0).toLocaleString("en"),
        (one.num_quarantined ?? 0).toLocaleString("en"),
        (one.num_failures ?? 0).toLocaleString("en"),
        nagfarm.format.percent(one.busy_share ?? null),
        nagfarm.format.seconds(summary?.wall_s ?? status?.elapsed_s ?? null),
      ];
    });
    return make(
      "section",
      {},
      make("h2", {}, "Runs"),
      tableOf(
        ["Run", "State", "Committed", "Quarantined", "Failed attempts", "Devices busy", "Time"],
        rows,
        2,
      ),
    );
  }

  // The first columns are texts, the others numbers.
  function tableOf(head, rows, numTexts) {
    return make(
      "div",
      { class: "table-scroll", tabindex: "0" },
      make(
        "table",
        {},
        make(
          "thead",
          {},
          make(
            "tr",
            {},
            head.map((one, index) =>
              make("th", { scope: "col", class: index < numTexts ? "" : "number" }, one),
            ),
          ),
        ),
        make(
          "tbody",
          {},
          rows.map((cells) =>
            make(
              "tr",
              {},
              cells.map((cell, index) =>
                text(cell ?? "", { class: index < numTexts ? "" : "number" }, "td"),
              ),
            ),
          ),
        ),
      ),
    );
  }

  nagfarm.numbersView = numbersView;
}
