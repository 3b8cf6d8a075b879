// The bar of filters and the order, for all views.
"use strict";

{
  const { make, clear } = nagfarm.dom;
  const FIRST = ["prompt", "negative_prompt", "method", "model", "state", "seed"];
  const MAX_CHIPS = 14;

  function filterBar(page) {
    const search = make("input", {
      type: "search",
      id: "search",
      placeholder: "Search prompts, names, errors",
      "aria-label": "Search clips",
      autocomplete: "off",
      spellcheck: "false",
      on: { input: () => page.go({ query: search.value }) },
    });
    const chips = make("div", { class: "chips", role: "group", "aria-label": "Filters" });
    const picked = make(
      "button",
      {
        type: "button",
        class: "chip",
        on: { click: () => page.go({ isPicked: !page.state.isPicked }) },
      },
      nagfarm.icon("pick"),
      "Picked",
    );
    const stars = make(
      "select",
      {
        class: "chip",
        "aria-label": "Stars",
        on: { change: () => page.go({ minStars: Number(stars.value) }) },
      },
      ["Any stars", "★ and up", "★★ and up", "★★★ and up", "★★★★ and up", "★★★★★"].map(
        (words, index) => make("option", { value: index }, words),
      ),
    );
    const sort = make(
      "select",
      { "aria-label": "Sort by", on: { change: () => page.go({ sort: sort.value }) } },
      nagfarm.fields.MEASURES.map((one) => make("option", { value: one.id }, one.label)),
    );
    const numFixed = sort.options.length;
    const direction = make("button", {
      type: "button",
      class: "button",
      on: { click: () => page.go({ isDescending: !page.state.isDescending }) },
    });
    const found = make("output", { class: "found", "aria-live": "polite" });
    const reset = make(
      "button",
      { type: "button", class: "text-button", on: { click: () => page.resetFilters() } },
      "Clear filters",
    );
    const toggle = make(
      "button",
      {
        type: "button",
        class: "button only-narrow",
        "aria-label": "Filters",
        "aria-expanded": "false",
        on: { click: () => open(!element.classList.contains("is-open")) },
      },
      nagfarm.icon("filter"),
    );
    const element = make(
      "section",
      { class: "filter-bar", "aria-label": "Filters and order" },
      make("label", { class: "search" }, nagfarm.icon("search"), search),
      toggle,
      make("div", { class: "filters" }, chips),
      make(
        "div",
        { class: "ordering" },
        found,
        reset,
        make("label", { class: "sort" }, make("span", {}, "Sort"), sort),
        direction,
      ),
    );
    const choosers = new Map();

    function open(isOpen) {
      element.classList.toggle("is-open", isOpen);
      toggle.setAttribute("aria-expanded", String(isOpen));
    }

    function showChips() {
      const { clips, state } = page;
      const varying = clips.varying();
      const ids = [
        ...FIRST.filter((id) => varying.includes(id)),
        ...varying.filter((id) => !FIRST.includes(id)),
      ].slice(0, MAX_CHIPS);
      for (const id of Object.keys(state.chosen)) if (!ids.includes(id)) ids.push(id);
      const isOther = ids.join("\n") !== [...choosers.keys()].join("\n");
      if (isOther) {
        const kept = new Map(choosers);
        choosers.clear();
        for (const id of ids) {
          const one = kept.get(id) ?? nagfarm.chooser(id, (texts) => page.choose(id, texts));
          choosers.set(id, one);
        }
        clear(
          chips,
          [...choosers.values()].map((one) => one.element),
          picked,
          stars,
        );
      }
      for (const one of choosers.values()) one.show(page);
    }

    // Offer the figures that the clips have behind the values that every clip has.
    function showScores() {
      const wanted = page.clips.scores.map(nagfarm.fields.scoreMeasure);
      const shown = [...sort.options].slice(numFixed);
      if (String(shown.map((one) => one.value)) === String(wanted.map((one) => one.id))) return;
      for (const one of shown) one.remove();
      sort.append(...wanted.map((one) => make("option", { value: one.id }, one.label)));
    }

    return {
      element,
      search,
      show() {
        const { state, clips, matching } = page;
        showChips();
        if (document.activeElement !== search) search.value = state.query;
        picked.classList.toggle("is-active", state.isPicked);
        picked.setAttribute("aria-pressed", String(state.isPicked));
        stars.value = String(state.minStars);
        stars.classList.toggle("is-active", state.minStars > 0);
        showScores();
        sort.value = nagfarm.fields.measure(state.sort).id;
        const word = state.isDescending ? "descending" : "ascending";
        direction.replaceChildren(nagfarm.icon(word));
        direction.setAttribute("aria-label", `Order: ${word}`);
        direction.title = `Order: ${word}`;
        found.textContent =
          matching.length === clips.count
            ? nagfarm.format.count(clips.count, "clip")
            : `${matching.length.toLocaleString("en")} of ${nagfarm.format.count(clips.count, "clip")}`;
        reset.hidden = !page.isFiltered();
      },
    };
  }

  nagfarm.filterBar = filterBar;
}
