// The grid of two axes for one value of a third. Only the cells in sight are elements.
"use strict";

{
  const { make, text, clear } = nagfarm.dom;
  const GAP = 8;
  const HEAD_HEIGHT = 46;
  const MARGIN = 200; // pixels beyond the edge that are drawn ahead
  const WIDTHS = [96, 128, 176, 232, 320, 448]; // of a cell
  const MAX_IN_CELL = 4;
  const TELLING = ["method", "model", "seed", "steps", "guidance", "loras", "size", "run_id"];

  function gridView(page) {
    const axes = nagfarm.axisControls(page);
    const canvas = make("div", { class: "canvas", role: "presentation" });
    const head = make("div", { class: "column-heads", role: "row", "aria-rowindex": "1" });
    const scroller = make(
      "div",
      { class: "scroller", role: "grid", "aria-label": "Grid of clips", tabindex: "-1" },
      head,
      canvas,
    );
    const empty = make("p", { class: "empty", hidden: true });
    const element = make("div", { class: "view grid-view" }, axes.element, scroller, empty);
    const rows = new Map(); // by index: {element, cells}
    let size = nagfarm.preferences.number("grid size", innerWidth < 700 ? 1 : 2, WIDTHS.length);
    let shown = null; // {matrix, layout}
    let shownKey = "";
    let frame = 0;

    scroller.addEventListener("scroll", () => draw(), { passive: true });
    new ResizeObserver(() => shown && lay(shown.matrix)).observe(scroller);

    function draw() {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => {
        drawNow();
        page.playback.update();
      });
    }

    function lay(matrix) {
      if (!scroller.clientWidth) return; // hidden
      const isNarrow = innerWidth < 700;
      const cell = WIDTHS[size];
      const height = Math.round(cell / page.aspect());
      const layout = {
        isNarrow,
        cell,
        height,
        side: isNarrow ? 0 : 232,
        strip: isNarrow ? 40 : 0,
        row: height + GAP + (isNarrow ? 40 : 0),
      };
      shown = { matrix, layout };
      const width = layout.side + matrix.columns.length * (cell + GAP) + GAP;
      canvas.style.width = head.style.width = `${width}px`;
      canvas.style.height = `${matrix.rows.length * layout.row + GAP}px`;
      head.style.height = `${HEAD_HEIGHT}px`;
      scroller.style.setProperty("--cell-height", `${height}px`);
      scroller.setAttribute("aria-rowcount", matrix.rows.length + 1);
      scroller.setAttribute("aria-colcount", matrix.columns.length + 1);
      keepSame(JSON.stringify([layout, matrix.columns, axes.current().rows, page.state.sort]));
      drawNow();
    }

    // New clips leave the cells of all others as they are, playing or not.
    function keepSame(key) {
      const isSame = key === shownKey;
      shownKey = key;
      for (const [index, row] of rows) {
        if (isSame && row.code === shown.matrix.rows[index]) {
          for (const [column, cell] of row.cells) {
            if (cell.dataset.ids === idsOf(index, column)) continue;
            cell.remove();
            row.cells.delete(column);
          }
        } else {
          row.element.remove();
          rows.delete(index);
        }
      }
    }

    function idsOf(index, column) {
      const { id } = page.clips.strings;
      const states = page.clips.codes.state;
      return shown.matrix
        .at(index, column)
        .map((row) => `${id[row]} ${states[row]}`)
        .join();
    }

    function inSight() {
      const { matrix, layout } = shown;
      const { scrollTop, scrollLeft, clientHeight, clientWidth } = scroller;
      const step = layout.cell + GAP;
      const clamp = (value, most) => Math.max(0, Math.min(value, most));
      return {
        top: clamp(Math.floor((scrollTop - MARGIN) / layout.row), matrix.rows.length),
        bottom: clamp(
          Math.ceil((scrollTop + clientHeight + MARGIN) / layout.row),
          matrix.rows.length,
        ),
        left: clamp(Math.floor((scrollLeft - layout.side - MARGIN) / step), matrix.columns.length),
        right: clamp(
          Math.ceil((scrollLeft + clientWidth + MARGIN - layout.side) / step),
          matrix.columns.length,
        ),
      };
    }

    function drawNow() {
      if (!shown) return;
      const sight = inSight();
      drawHeads(sight);
      for (const [index, row] of rows) {
        if (index < sight.top || index >= sight.bottom) {
          row.element.remove();
          rows.delete(index);
        }
      }
      for (let index = sight.top; index < sight.bottom; index++) {
        if (!rows.has(index)) rows.set(index, makeRow(index));
        drawCells(rows.get(index), index, sight);
      }
    }

    function drawHeads({ left, right }) {
      const { matrix, layout } = shown;
      const { columns: axis, rows: side } = axes.current();
      const corner = make(
        "div",
        { class: "corner", style: { width: `${layout.side}px` }, role: "columnheader" },
        layout.side ? nagfarm.fields.dimension(side).label : "",
      );
      const heads = [];
      for (let column = left; column < right; column++) {
        const value = page.clips.textOf(matrix.columns[column]);
        const shownValue = nagfarm.fields.valueLabel(axis, value);
        heads.push(
          text(
            shownValue,
            {
              class: `column-head${value ? "" : " no-value"}`,
              role: "columnheader",
              title: shownValue,
              "aria-colindex": column + 2,
              style: placeOf(column),
            },
            "div",
          ),
        );
      }
      clear(head, corner, heads);
    }

    function placeOf(column) {
      const { layout } = shown;
      return {
        left: `${layout.side + column * (layout.cell + GAP) + (layout.isNarrow ? GAP : 0)}px`,
        width: `${layout.cell}px`,
      };
    }

    function makeRow(index) {
      const { matrix, layout } = shown;
      const axis = axes.current().rows;
      const value = page.clips.textOf(matrix.rows[index]);
      const shownValue = nagfarm.fields.valueLabel(axis, value);
      const header = text(
        shownValue,
        { class: `row-head${value ? "" : " no-value"}`, role: "rowheader", title: shownValue },
        "div",
      );
      const row = make(
        "div",
        {
          class: "grid-row",
          role: "row",
          "aria-rowindex": index + 2,
          style: { top: `${index * layout.row}px`, height: `${layout.row}px` },
        },
        header,
      );
      canvas.append(row);
      return { element: row, code: matrix.rows[index], cells: new Map() };
    }

    function drawCells(row, index, { left, right }) {
      for (const [column, cell] of row.cells) {
        if (column >= left && column < right) continue;
        cell.remove();
        row.cells.delete(column);
      }
      for (let column = left; column < right; column++) {
        if (row.cells.has(column)) continue;
        const cell = makeCell(index, column);
        row.cells.set(column, cell);
        row.element.append(cell);
      }
    }

    function makeCell(index, column) {
      const ordinals = shown.matrix.at(index, column);
      const cell = make("div", {
        class: `cell has-${Math.min(ordinals.length, MAX_IN_CELL)}`,
        role: "gridcell",
        "aria-colindex": column + 2,
        data: { row: index, column, ids: idsOf(index, column) },
        style: placeOf(column),
      });
      const first = ordinals.slice(0, MAX_IN_CELL);
      const differing = first.length > 1 ? differs(first) : null;
      cell.append(
        ...first.map((row) => {
          const tag = differing ? (page.clips.text(differing, row) ?? "") : "";
          return nagfarm.tile.make(page, row, { caption: "short", tag });
        }),
      );
      if (ordinals.length > MAX_IN_CELL) {
        cell.append(
          make(
            "button",
            { type: "button", class: "more-clips", on: { click: () => showAll(index, column) } },
            `${ordinals.length} clips`,
          ),
        );
      }
      return cell;
    }

    // The field by which the clips of one cell can be told apart.
    function differs(ordinals) {
      return TELLING.find((id) => {
        const codes = page.clips.codes[id];
        return ordinals.some((row) => codes[row] !== codes[ordinals[0]]);
      });
    }

    // All clips of a cell, in the view of clips.
    function showAll(index, column) {
      const { clips, state } = page;
      const { rows: side, columns, slice } = axes.current();
      const chosen = {
        ...state.chosen,
        [side]: [clips.textOf(shown.matrix.rows[index])],
        [columns]: [clips.textOf(shown.matrix.columns[column])],
      };
      if (slice) chosen[slice.id] = [clips.textOf(slice.code)];
      page.go({ view: "clips", chosen }, { isNew: true });
    }

    // Move the focus by cells, and bring the cell into sight.
    function move(down, right) {
      if (!shown) return;
      const { matrix, layout } = shown;
      const from = document.activeElement.closest?.(".cell")?.dataset;
      const row = from ? clampTo(Number(from.row) + down, matrix.rows.length) : 0;
      const column = from ? clampTo(Number(from.column) + right, matrix.columns.length) : 0;
      const step = layout.cell + GAP;
      const [top, left] = [row * layout.row, column * step];
      const [height, width] = [
        scroller.clientHeight - HEAD_HEIGHT,
        scroller.clientWidth - layout.side,
      ];
      if (top < scroller.scrollTop) scroller.scrollTop = top;
      else if (top + layout.row > scroller.scrollTop + height) {
        scroller.scrollTop = top + layout.row - height;
      }
      if (left < scroller.scrollLeft) scroller.scrollLeft = left;
      else if (left + step > scroller.scrollLeft + width) scroller.scrollLeft = left + step - width;
      drawNow();
      const cell = rows.get(row)?.cells.get(column);
      cell?.tabIndex !== undefined && (cell.querySelector(".picture") ?? emptyCell(cell)).focus();
    }

    return {
      element,
      scroller,
      move,
      slice: (by) => axes.slice(by),
      resize(by) {
        size = clampTo(size + by, WIDTHS.length);
        nagfarm.preferences.set("grid size", String(size));
        if (shown) lay(shown.matrix);
      },
      show() {
        const current = axes.show();
        const matrix = nagfarm.matrix.matrix(page.clips, page.ordered, current);
        empty.hidden = matrix.rows.length > 0;
        empty.textContent = page.emptyText();
        lay(matrix);
      },
    };
  }

  function emptyCell(cell) {
    cell.tabIndex = -1;
    return cell;
  }

  function clampTo(value, length) {
    return Math.max(0, Math.min(value, length - 1));
  }

  nagfarm.gridView = gridView;
}
