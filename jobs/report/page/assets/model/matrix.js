// Decide the rows, the columns and the cells of the grid. Pure.
"use strict";

{
  // Choose two axes and a slice: those asked for, or prompts, negative prompts and seeds.
  function axes(clips, asked) {
    const varying = clips.varying();
    const preferred = ["prompt", "negative_prompt", "method", "model", "seed", "guidance", "steps"];
    const order = [...preferred.filter((id) => varying.includes(id)), ...varying, ...preferred];
    const first = (taken) => order.find((id) => !taken.includes(id));
    const isKnown = (id) => id && clips.codes[id];
    const rows = isKnown(asked.rows)
      ? asked.rows
      : first([isKnown(asked.columns) && asked.columns]);
    const columns =
      isKnown(asked.columns) && asked.columns !== rows ? asked.columns : first([rows]);
    return { rows, columns, slice: slice(clips, asked, [rows, columns]) };
  }

  function slice(clips, asked, taken) {
    if (asked.slice === "all") return null;
    const id = asked.slice && clips.codes[asked.slice] ? asked.slice : "seed";
    if (taken.includes(id) || clips.values(id).length === 0) return null;
    const codes = clips.values(id);
    const wanted = codes.find((code) => clips.textOf(code) === asked.at);
    return { id, code: wanted ?? codes.find((code) => code >= 0) ?? codes[0] };
  }

  // Return {rows, columns, cells}: codes of the axes, and the ordinals of each cell.
  function matrix(clips, ordinals, { rows, columns, slice }) {
    const [rowCodes, columnCodes] = [clips.codes[rows], clips.codes[columns]];
    const inSlice = slice
      ? ordinals.filter((row) => clips.codes[slice.id][row] === slice.code)
      : ordinals;
    const used = (codes) => new Set(inSlice.map((row) => codes[row]));
    const [usedRows, usedColumns] = [used(rowCodes), used(columnCodes)];
    const shownRows = clips.values(rows).filter((code) => usedRows.has(code));
    const shownColumns = clips.values(columns).filter((code) => usedColumns.has(code));
    const rowAt = new Map(shownRows.map((code, index) => [code, index]));
    const columnAt = new Map(shownColumns.map((code, index) => [code, index]));
    const cells = new Map();
    for (const row of inSlice) {
      const place = rowAt.get(rowCodes[row]) * shownColumns.length + columnAt.get(columnCodes[row]);
      const cell = cells.get(place);
      if (cell) cell.push(row);
      else cells.set(place, [row]);
    }
    return {
      rows: shownRows,
      columns: shownColumns,
      at: (row, column) => cells.get(row * shownColumns.length + column) ?? [],
    };
  }

  nagfarm.matrix = { axes, matrix };
}
