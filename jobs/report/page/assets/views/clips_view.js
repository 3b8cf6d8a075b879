// All clips as tiles, in the chosen order. Only the rows in sight are elements.
"use strict";

{
  const { make } = nagfarm.dom;
  const GAP = 14;
  const CAPTION = 68; // pixels below the picture
  const MARGIN = 240;
  const WIDTHS = [128, 168, 216, 288, 384]; // least width of a tile

  function clipsView(page, { aside = null } = {}) {
    const canvas = make("div", { class: "canvas", role: "list", "aria-label": "Clips" });
    const scroller = make("div", { class: "scroller", tabindex: "-1" }, canvas);
    const empty = make("p", { class: "empty", hidden: true });
    const element = make("div", { class: "view clips-view" }, aside?.element, scroller, empty);
    const tiles = new Map(); // by place
    let size = nagfarm.preferences.number("tile size", innerWidth < 700 ? 1 : 2, WIDTHS.length);
    let layout = null;
    let frame = 0;

    scroller.addEventListener(
      "scroll",
      () => {
        cancelAnimationFrame(frame);
        frame = requestAnimationFrame(() => {
          draw();
          page.playback.update();
        });
      },
      { passive: true },
    );
    new ResizeObserver(() => layout && lay()).observe(scroller);

    function lay() {
      if (!scroller.clientWidth) return; // hidden
      const width = scroller.clientWidth - GAP;
      const num = Math.max(1, Math.floor(width / (WIDTHS[size] + GAP)));
      const tile = Math.floor(width / num) - GAP;
      const height = Math.round(tile / page.aspect());
      const before = JSON.stringify(layout);
      layout = { num, tile, row: height + CAPTION + GAP, sort: page.state.sort };
      const isSame = before === JSON.stringify(layout);
      const numRows = Math.ceil(page.ordered.length / num);
      canvas.style.height = `${numRows * layout.row + GAP}px`;
      scroller.style.setProperty("--cell-height", `${height}px`);
      keep((place, made) => isSame && isOf(place, made));
      draw();
    }

    // New clips leave the tiles of all others as they are, playing or not.
    function isOf(place, made) {
      const ordinal = page.ordered[place];
      if (ordinal === undefined || page.clips.strings.id[ordinal] !== made.dataset.id) return false;
      if (!made.classList.contains(`is-${page.clips.text("state", ordinal)}`)) return false;
      made.setAttribute("aria-setsize", page.ordered.length);
      return true;
    }

    function keep(isKept) {
      for (const [place, made] of tiles) {
        if (isKept(place, made)) continue;
        made.remove();
        tiles.delete(place);
      }
    }

    function draw() {
      if (!layout) return;
      const { num, tile, row } = layout;
      const { scrollTop, clientHeight } = scroller;
      const first = Math.max(0, Math.floor((scrollTop - MARGIN) / row)) * num;
      const last = Math.min(
        page.ordered.length,
        Math.ceil((scrollTop + clientHeight + MARGIN) / row) * num,
      );
      keep((place) => place >= first && place < last);
      for (let place = first; place < last; place++) {
        if (tiles.has(place)) continue;
        const made = nagfarm.tile.make(page, page.ordered[place], {
          caption: "full",
          role: "listitem",
        });
        made.dataset.place = place;
        made.setAttribute("aria-posinset", place + 1);
        made.setAttribute("aria-setsize", page.ordered.length);
        made.style.left = `${GAP + (place % num) * (tile + GAP)}px`;
        made.style.top = `${GAP + Math.floor(place / num) * row}px`;
        made.style.width = `${tile}px`;
        tiles.set(place, made);
        canvas.append(made);
      }
    }

    function move(down, right) {
      if (!layout || page.ordered.length === 0) return;
      const from = document.activeElement.closest?.(".tile")?.dataset.place;
      const wanted = from === undefined ? 0 : Number(from) + down * layout.num + right;
      const place = Math.max(0, Math.min(wanted, page.ordered.length - 1));
      const top = Math.floor(place / layout.num) * layout.row;
      if (top < scroller.scrollTop) scroller.scrollTop = top;
      else if (top + layout.row + GAP > scroller.scrollTop + scroller.clientHeight) {
        scroller.scrollTop = top + layout.row + GAP - scroller.clientHeight;
      }
      draw();
      tiles.get(place)?.querySelector(".picture").focus();
    }

    return {
      element,
      scroller,
      move,
      resize(by) {
        size = Math.max(0, Math.min(size + by, WIDTHS.length - 1));
        nagfarm.preferences.set("tile size", String(size));
        if (layout) lay();
      },
      show() {
        aside?.show();
        empty.hidden = page.ordered.length > 0;
        empty.textContent = page.emptyText();
        lay();
      },
    };
  }

  nagfarm.clipsView = clipsView;
}
