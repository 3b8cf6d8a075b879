// The keys of the page: one table, from which the help is made too.
"use strict";

{
  // Each entry: keys, what they do, where ("clip": on a clip's page; "": elsewhere; null: both).
  function keysOf(page) {
    const clip = page.views.clip;
    return [
      { keys: ["?"], label: "Show or hide this help", run: () => page.help.toggle() },
      { keys: ["/"], label: "Search", run: () => page.filters.search.focus() },
      { keys: ["g"], label: "Grid of two axes", run: () => page.open("grid") },
      { keys: ["c"], label: "All clips", run: () => page.open("clips") },
      { keys: ["f"], label: "Failures", run: () => page.open("failures") },
      { keys: ["n"], label: "Numbers: runs, cost, charts", run: () => page.open("numbers") },
      { keys: ["k"], label: "Picks", run: () => page.open("picks") },
      {
        keys: ["ArrowLeft"],
        label: "Move between clips",
        where: "",
        run: () => page.view.move(0, -1),
      },
      { keys: ["ArrowRight"], where: "", run: () => page.view.move(0, 1) },
      { keys: ["ArrowUp"], where: "", run: () => page.view.move(-1, 0) },
      { keys: ["ArrowDown"], where: "", run: () => page.view.move(1, 0) },
      { keys: ["Enter"], label: "Open the clip" },
      {
        keys: [" "],
        label: "Play all clips in step, or pause",
        where: "",
        run: () => page.togglePlay(),
      },
      { keys: [" "], label: "Play or pause", where: "clip", run: () => clip.player.toggle() },
      { keys: [","], label: "One frame back", run: () => page.stepFrames(-1) },
      { keys: ["."], label: "One frame on", run: () => page.stepFrames(1) },
      {
        keys: ["["],
        label: "Previous value of the slice, such as a seed",
        where: "",
        run: () => page.views.grid.slice(-1),
      },
      {
        keys: ["]"],
        label: "Next value of the slice",
        where: "",
        run: () => page.views.grid.slice(1),
      },
      { keys: ["p"], label: "Pick, or take the pick back", run: () => page.pickCurrent() },
      ...[1, 2, 3, 4, 5].map((stars) => ({
        keys: [String(stars)],
        label: stars === 1 ? "Stars, 1 to 5" : undefined,
        run: () => page.starCurrent(stars),
      })),
      { keys: ["0"], label: "No stars", run: () => page.starCurrent(0) },
      { keys: ["+"], label: "Larger pictures", where: "", run: () => page.view.resize(1) },
      { keys: ["-"], label: "Smaller pictures", where: "", run: () => page.view.resize(-1) },
      { keys: ["PageUp"], label: "Previous clip", where: "clip", run: () => clip.step(-1) },
      { keys: ["PageDown"], label: "Next clip", where: "clip", run: () => clip.step(1) },
      {
        keys: ["ArrowDown"],
        label: "Compare with the next neighbour",
        where: "clip",
        run: () => clip.stepBeside(1),
      },
      {
        keys: ["ArrowUp"],
        label: "Compare with the neighbour before",
        where: "clip",
        run: () => clip.stepBeside(-1),
      },
      {
        keys: ["ArrowLeft"],
        label: "Move the border to the left",
        where: "clip",
        run: () => clip.player.nudge(-2),
      },
      {
        keys: ["ArrowRight"],
        label: "Move the border to the right",
        where: "clip",
        run: () => clip.player.nudge(2),
      },
      {
        keys: ["s"],
        label: "Slider, or side by side",
        where: "clip",
        run: () => clip.player.toggleMode(),
      },
      {
        keys: ["m"],
        label: "Sound on or off",
        where: "clip",
        run: () => clip.player.toggleSound(),
      },
      {
        keys: ["t"],
        label: "Colours: as the system, light, dark",
        run: () => nagfarm.theme.next(),
      },
      { keys: ["Escape"], label: "Back; out of the search", run: () => page.back() },
    ];
  }

  function listen(page) {
    const keys = keysOf(page);
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const isWriting = event.target.matches?.(
        "input:not([type=range], [type=checkbox]), select, textarea",
      );
      const isSlider = event.target.matches?.("input[type=range]");
      if (isSlider && /^(Arrow|Page|Home|End)/.test(event.key)) return;
      if (isWriting && event.key !== "Escape") return;
      // an open list or the help takes its own keys
      if (document.querySelector(":popover-open, dialog[open]") && event.key !== "?") return;
      if (event.key === " " && event.target.matches?.("button, summary")) return; // their own key
      const where = page.state.clip ? "clip" : "";
      const found = keys.find(
        (one) => one.run && one.keys.includes(event.key) && (one.where ?? where) === where,
      );
      if (!found) return;
      event.preventDefault();
      found.run();
    });
    return keys;
  }

  nagfarm.keyboard = { listen };
}
