// Keep what is shown in the address, so that a link and the back button lead to it.
"use strict";

{
  const VIEWS = ["grid", "clips", "failures", "numbers", "picks"];
  const NULL = "\u0000"; // the value of a clip that has none; no text of a manifest holds it

  const DEFAULT = {
    view: "grid",
    rows: "",
    columns: "",
    slice: "",
    at: "",
    query: "",
    chosen: {},
    isPicked: false,
    minStars: 0,
    sort: "name",
    isDescending: false,
    clip: "",
    beside: "",
  };

  const TEXTS = ["rows", "columns", "slice", "at", "query", "sort", "clip", "beside"];

  function toHash(state) {
    const query = new URLSearchParams();
    if (state.view !== DEFAULT.view) query.set("view", state.view);
    for (const name of TEXTS) if (state[name] !== DEFAULT[name]) query.set(name, state[name]);
    for (const [id, texts] of Object.entries(state.chosen)) {
      for (const text of texts) query.append(`is.${id}`, text === null ? NULL : text);
    }
    if (state.isPicked) query.set("picked", "1");
    if (state.minStars) query.set("stars", String(state.minStars));
    if (state.isDescending) query.set("down", "1");
    return `#${query}`;
  }

  function fromHash(hash) {
    const query = new URLSearchParams(hash.replace(/^#/, ""));
    const state = { ...DEFAULT, chosen: Object.create(null) }; // ids of any origin
    if (VIEWS.includes(query.get("view"))) state.view = query.get("view");
    for (const name of TEXTS) state[name] = query.get(name) ?? DEFAULT[name];
    for (const [name, text] of query) {
      if (!name.startsWith("is.")) continue;
      const id = name.slice(3);
      state.chosen[id] = [...(state.chosen[id] ?? []), text === NULL ? null : text];
    }
    state.isPicked = query.get("picked") === "1";
    state.minStars = Math.min(Math.max(Number(query.get("stars")) || 0, 0), 5);
    state.isDescending = query.get("down") === "1";
    return state;
  }

  nagfarm.route = { VIEWS, DEFAULT, toHash, fromHash };
}
