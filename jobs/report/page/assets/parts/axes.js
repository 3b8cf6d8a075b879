// The choice of the axes of the grid, and of the value for which it is shown.
"use strict";

{
  const { make, button, clear } = nagfarm.dom;

  function axisControls(page) {
    let current = { rows: "prompt", columns: "negative_prompt", slice: null };
    const select = (label, onChoose) =>
      make("select", {
        "aria-label": label,
        on: { change: (event) => onChoose(event.target.value) },
      });
    const rows = select("Rows", (id) =>
      page.go(id === current.columns ? { rows: id, columns: current.rows } : { rows: id }),
    );
    const columns = select("Columns", (id) =>
      page.go(id === current.rows ? { columns: id, rows: current.columns } : { columns: id }),
    );
    const slice = select("Only", (id) => page.go({ slice: id, at: "" }));
    const at = select("Value", (value) => page.go({ slice: current.slice.id, at: value }));
    const before = button("Previous value", "previous", () => step(-1));
    const after = button("Next value", "next", () => step(1));
    const element = make(
      "div",
      { class: "axes", role: "group", "aria-label": "Axes" },
      make("label", {}, make("span", {}, "Rows"), rows),
      make("label", {}, make("span", {}, "Columns"), columns),
      make("label", {}, make("span", {}, "For"), slice),
      make("span", { class: "at" }, before, at, after),
      make(
        "span",
        { class: "sizes" },
        button("Smaller cells", "smaller", () => page.views.grid.resize(-1)),
        button("Larger cells", "larger", () => page.views.grid.resize(1)),
      ),
    );

    function step(by) {
      if (!current.slice) return;
      const values = page.clips.values(current.slice.id);
      const index = values.indexOf(current.slice.code) + by;
      if (index < 0 || index >= values.length) return;
      page.go({ slice: current.slice.id, at: page.clips.textOf(values[index]) ?? "" });
    }

    const option = (value, words, isChosen) =>
      make("option", { value, selected: isChosen }, nagfarm.format.shortened(words, 60));

    return {
      element,
      slice: step,
      current: () => current,
      show() {
        const { clips, state } = page;
        current = nagfarm.matrix.axes(clips, state);
        const ids = [...new Set(["prompt", "negative_prompt", "seed", ...clips.varying()])];
        const options = (chosen) =>
          ids.map((id) => option(id, nagfarm.fields.dimension(id).label, id === chosen));
        clear(rows, options(current.rows));
        clear(columns, options(current.columns));
        const others = ids.filter((id) => id !== current.rows && id !== current.columns);
        clear(
          slice,
          others.map((id) =>
            option(id, nagfarm.fields.dimension(id).label, id === current.slice?.id),
          ),
          option("all", "all clips", !current.slice),
        );
        const values = current.slice ? clips.values(current.slice.id) : [];
        at.closest(".at").hidden = values.length < 2;
        clear(
          at,
          values.map((code) => {
            const value = clips.textOf(code);
            const words = nagfarm.fields.valueLabel(current.slice.id, value);
            return option(value ?? "", words, code === current.slice.code);
          }),
        );
        return current;
      },
    };
  }

  nagfarm.axisControls = axisControls;
}
