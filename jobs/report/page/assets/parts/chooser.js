// A button that opens a list of the values of one field, to choose some of them.
"use strict";

{
  const { make, text, clear } = nagfarm.dom;
  const MAX_SHOWN = 200; // values in the list; a search narrows it

  // `onChoose(texts)` gets the chosen texts. Returns {element, show(page)}.
  function chooser(dimension, onChoose) {
    const { id, label } = nagfarm.fields.dimension(dimension);
    const name = `choose-${id}`;
    const badge = make("span", { class: "badge" });
    const opener = make(
      "button",
      { type: "button", class: "chip", popovertarget: name, "aria-haspopup": "dialog" },
      `${label} `,
      badge,
      nagfarm.icon("down"),
    );
    const search = make("input", {
      type: "search",
      placeholder: `Find in ${label.toLowerCase()}`,
      "aria-label": `Find ${label}`,
      on: { input: () => fill() },
    });
    const list = make("div", { class: "options", role: "group", "aria-label": label });
    const note = make("p", { class: "hint" });
    const none = make(
      "button",
      { type: "button", class: "text-button", on: { click: () => onChoose([]) } },
      "All",
    );
    const popover = make(
      "div",
      { id: name, popover: "auto", class: "popover", role: "dialog", "aria-label": label },
      make("div", { class: "popover-head" }, search, none),
      list,
      note,
    );
    let shown = { texts: [], counts: new Map(), chosen: new Set() };
    let page = null;

    popover.addEventListener("toggle", (event) => {
      if (event.newState !== "open") return;
      shown = countsOf(page, id);
      search.value = "";
      search.hidden = shown.texts.length < 9;
      place(popover, opener);
      fill();
    });

    function fill() {
      const wanted = search.value.trim().toLowerCase();
      const found = shown.texts.filter(
        (value) => !wanted || nagfarm.fields.valueLabel(id, value).toLowerCase().includes(wanted),
      );
      clear(list, found.slice(0, MAX_SHOWN).map(option));
      note.textContent =
        found.length > MAX_SHOWN ? `${found.length - MAX_SHOWN} more: type to find them` : "";
    }

    function option(value) {
      const box = make("input", {
        type: "checkbox",
        checked: shown.chosen.has(value),
        on: {
          change: () => {
            if (box.checked) shown.chosen.add(value);
            else shown.chosen.delete(value);
            onChoose([...shown.chosen]);
          },
        },
      });
      return make(
        "label",
        { class: "option" },
        box,
        text(nagfarm.fields.valueLabel(id, value), value ? {} : { class: "no-value" }),
        make("span", { class: "count" }, String(shown.counts.get(value))),
      );
    }

    return {
      element: make("span", { class: "chooser" }, opener, popover),
      show(now) {
        page = now;
        const chosen = page.state.chosen[id] ?? [];
        badge.textContent = chosen.length
          ? nagfarm.format.shortened(
              chosen.length === 1 ? nagfarm.fields.valueLabel(id, chosen[0]) : `${chosen.length}`,
              24,
            )
          : "";
        opener.classList.toggle("is-active", chosen.length > 0);
        if (chosen.length === 0 && shown.chosen.size > 0) {
          shown.chosen = new Set();
          if (popover.matches(":popover-open")) fill();
        }
      },
    };
  }

  function countsOf({ clips, state }, id) {
    const counts = new Map();
    for (const code of clips.values(id)) counts.set(clips.textOf(code), 0);
    for (const code of clips.codes[id] ?? []) {
      const value = clips.textOf(code);
      counts.set(value, counts.get(value) + 1);
    }
    return { texts: [...counts.keys()], counts, chosen: new Set(state.chosen[id] ?? []) };
  }

  // Below its button, and within the window.
  function place(popover, opener) {
    const box = opener.getBoundingClientRect();
    const left = Math.max(8, Math.min(box.left, innerWidth - popover.offsetWidth - 8));
    popover.style.left = `${left}px`;
    popover.style.top = `${box.bottom + 6}px`;
    popover.style.maxHeight = `${Math.max(innerHeight - box.bottom - 24, 200)}px`;
  }

  nagfarm.chooser = chooser;
}
