// Draw one chart over time by uPlot, in the colours of the page, with the same numbers as a table.
"use strict";

{
  const { make } = nagfarm.dom;
  const HEIGHT = 190;

  // Return the colour that a property of the page has in this theme, as a canvas needs it.
  function colorOf(place, name, share) {
    place.style.color = `color-mix(in srgb, var(${name}) ${share}%, transparent)`;
    const { color } = getComputedStyle(place);
    place.style.color = "";
    return color;
  }

  // `lines`: [{label, values, color, isBar, isArea}]; `format` writes a value. Charts share their
  // cursor. Returns {element, draw(), destroy()}.
  function chart({ title, times_s, lines, format, max = null, isStacked = false }) {
    const place = make("div", { class: "plot", "aria-hidden": "true" });
    const element = make(
      "figure",
      { class: "chart" },
      make("figcaption", {}, title),
      place,
      table(times_s, lines, format),
    );
    let plot = null;

    function draw() {
      destroy();
      const color = (name, share = 100) => colorOf(place, name, share);
      const axis = {
        stroke: color("--faint"),
        grid: { stroke: color("--line"), width: 1 },
        ticks: { stroke: color("--line"), width: 1 },
        font: "11px system-ui, sans-serif",
      };
      const half_s = times_s.length > 1 ? (times_s[1] - times_s[0]) / 2 : 30; // of a bar
      // for a single time, uPlot names a range of its own, of years
      const span = (first, last) =>
        times_s.length > 1
          ? [first - half_s, last + half_s]
          : [times_s[0] - half_s, times_s[0] + half_s];
      const drawn = isStacked ? stacked(lines) : lines.map((line) => line.values);
      plot = new uPlot(
        {
          width: Math.max(place.clientWidth, 200),
          height: HEIGHT,
          cursor: { sync: { key: "nagfarm" }, points: { size: 6 } },
          legend: { live: true },
          scales: {
            x: { time: true, range: (_, first, last) => span(first, last) },
            y: { range: (_, __, top) => [0, max ?? (top || 1) * 1.08] },
          },
          axes: [
            { ...axis, values: (_, ticks, __, ___, step_s) => ticks.map(timeOf(step_s)) },
            { ...axis, size: 62, values: (_, ticks) => ticks.map((one) => format(one)) },
          ],
          series: [
            { label: "Time" },
            ...lines.map((line, index) => ({
              label: line.label,
              stroke: color(line.color),
              fill:
                line.isArea || line.isBar
                  ? color(line.color, isStacked ? 100 : 33)
                  : undefined,
              width: line.isArea && isStacked ? 0 : 1.75,
              paths: line.isBar ? uPlot.paths.bars({ size: [0.8, 40] }) : undefined,
              points: { show: times_s.length < 40 && !line.isBar && !line.isArea },
              value: (_, __, ___, at) =>
                at === null || line.values[at] === null ? "" : format(lines[index].values[at]),
            })),
          ],
        },
        [times_s, ...drawn],
        place,
      );
    }

    function destroy() {
      plot?.destroy();
      plot = null;
    }

    return {
      element,
      draw,
      destroy,
      resize: () =>
        plot?.setSize({
          width: Math.max(place.clientWidth, 200),
          height: HEIGHT,
        }),
    };
  }

  // Times of the day where the reader is; the first tick of a day has its date below.
  function timeOf(step_s) {
    let day = "";
    return (tick_s) => {
      const date = new Date(tick_s * 1000);
      const time = date.toLocaleTimeString("en-GB", {
        hour: "2-digit",
        minute: "2-digit",
        second: step_s < 60 ? "2-digit" : undefined,
      });
      const before = day;
      day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
      return before === day ? time : `${time}\n${day}`;
    };
  }

  // Each line on top of those after it, so that the first is drawn first and highest.
  function stacked(lines) {
    const sums = lines.map(() => []);
    for (let at = 0; at < lines[0].values.length; at++) {
      let sum = 0;
      for (let line = lines.length - 1; line >= 0; line--) {
        sum += lines[line].values[at] ?? 0;
        sums[line].push(sum);
      }
    }
    return sums;
  }

  function table(times_s, lines, format) {
    const details = make("details", {}, make("summary", {}, "As a table"));
    details.addEventListener("toggle", () => {
      if (!details.open || details.childElementCount > 1) return;
      const head = ["Time", ...lines.map((line) => line.label)];
      details.append(
        make(
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
                head.map((one) => make("th", { scope: "col" }, one)),
              ),
            ),
            make(
              "tbody",
              {},
              times_s.map((time_s, at) =>
                make(
                  "tr",
                  {},
                  make(
                    "th",
                    { scope: "row" },
                    nagfarm.format.moment(new Date(time_s * 1000).toISOString()),
                  ),
                  lines.map((line) =>
                    make("td", {}, line.values[at] === null ? "" : format(line.values[at])),
                  ),
                ),
              ),
            ),
          ),
        ),
      );
    });
    return details;
  }

  nagfarm.chart = chart;
}
