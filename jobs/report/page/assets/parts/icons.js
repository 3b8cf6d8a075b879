// Draw the page's icons.
"use strict";

{
  const SVG = "http://www.w3.org/2000/svg";
  // Paths on a field of 24 by 24; those in FILLED are areas, the others lines.
  const PATHS = {
    play: "M8 5.5v13l10.5-6.5z",
    pause: "M8 5.5h3v13H8zM14 5.5h3v13h-3z",
    previous: "M15 6l-6 6 6 6",
    next: "M9 6l6 6-6 6",
    stepBack: "M7 6v12M18 6l-7 6 7 6z",
    stepOn: "M17 6v12M6 6l7 6-7 6z",
    close: "M6 6l12 12M18 6L6 18",
    pick: "M5 12.5l4.5 4.5L19 7.5",
    star: "M12 4l2.4 5.2 5.6.6-4.2 3.8 1.2 5.6-5-2.9-5 2.9 1.2-5.6L4 9.8l5.6-.6z",
    search: "M10.5 5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM14.5 14.5L19 19",
    down: "M7 10l5 5 5-5",
    theme: "M12 4.5a7.5 7.5 0 1 0 0 15zM12 4.5a7.5 7.5 0 0 1 0 15",
    help: "M9.2 9.3a2.9 2.9 0 1 1 4.2 2.6c-.9.5-1.4 1-1.4 2.1M12 17.2v.1",
    filter: "M5 7h14M8 12h8M10.5 17h3",
    sound: "M5 10v4h3l4 3.5v-11L8 10zM15 9.5a3.5 3.5 0 0 1 0 5M17.3 7.5a6.5 6.5 0 0 1 0 9",
    silent: "M5 10v4h3l4 3.5v-11L8 10zM15.5 10l4 4M19.5 10l-4 4",
    larger: "M12 6v12M6 12h12",
    smaller: "M6 12h12",
    ascending: "M12 18V6M7.5 10.5L12 6l4.5 4.5",
    descending: "M12 6v12M7.5 13.5L12 18l4.5-4.5",
    together: "M4.5 6h6v12h-6zM13.5 6h6v12h-6z",
    slider: "M4.5 6h15v12h-15zM12 4v16",
  };
  const FILLED = new Set(["play", "pause"]);

  nagfarm.icon = (name) => {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    svg.classList.add("icon", `icon-${name}`);
    if (FILLED.has(name)) svg.classList.add("is-filled");
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", PATHS[name]);
    svg.append(path);
    return svg;
  };
}
