// Sort clips by a measure; clips without the value come last in both directions.
"use strict";

{
  function ordered(clips, ordinals, { measure, isDescending }, picks) {
    const values = valuesOf(clips, nagfarm.fields.measure(measure), picks);
    const sign = isDescending ? -1 : 1;
    return [...ordinals].sort((a, b) => {
      const [left, right] = [values[a], values[b]];
      const isMissing = Number.isNaN(left) - Number.isNaN(right);
      return isMissing || sign * (left - right) || a - b;
    });
  }

  function valuesOf(clips, measure, picks) {
    if (measure.column) return clips.numbers[measure.column] ?? clips.numbers.name;
    return clips.strings.id.map((id) => picks.stars(id));
  }

  // The place of each name among all, "clip-2" before "clip-10": the order of most manifests.
  function ranksOfNames(names) {
    const keys = names.map((name) =>
      (name ?? "").toLowerCase().replace(/\d+/g, (digits) => digits.padStart(16, "0")),
    );
    const rows = names.map((_, row) => row);
    rows.sort((a, b) => (keys[a] < keys[b] ? -1 : keys[a] > keys[b] ? 1 : a - b));
    const ranks = new Float64Array(names.length);
    rows.forEach((row, rank) => (ranks[row] = rank));
    return { rows, ranks };
  }

  // Whole numbers of any length, as texts; a text without a number comes first.
  function byNumber(left, right) {
    const [a, b] = [left ?? "", right ?? ""];
    return Number(a) - Number(b) || a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
  }

  nagfarm.ordering = { ordered, ranksOfNames, byNumber };
}
