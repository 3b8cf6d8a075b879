// Sort clips by a measure; clips without the value come last in both directions.
"use strict";

{
  const collator = new Intl.Collator("en", { numeric: true });

  function ordered(clips, ordinals, { measure, isDescending }, picks) {
    const values = valuesOf(clips, nagfarm.fields.measure(measure), picks);
    if (values === null) return isDescending ? [...ordinals].reverse() : ordinals;
    const sign = isDescending ? -1 : 1;
    return [...ordinals].sort((a, b) => {
      const [left, right] = [values[a], values[b]];
      const isMissing = Number.isNaN(left) - Number.isNaN(right);
      return isMissing || sign * (left - right) || a - b;
    });
  }

  function valuesOf(clips, measure, picks) {
    if (measure.column) return clips.numbers[measure.column];
    if (measure.id === "stars") return clips.strings.id.map((id) => picks.stars(id));
    if (measure.id === "name") return namesByRank(clips);
    return null;
  }

  let ranks = { version: -1, values: [] };

  function namesByRank(clips) {
    if (ranks.version !== clips.version) {
      const names = clips.strings.name.map((name) => name ?? "");
      const rows = names.map((_, row) => row);
      rows.sort((a, b) => collator.compare(names[a], names[b]));
      const values = new Float64Array(clips.count);
      rows.forEach((row, rank) => (values[row] = rank));
      ranks = { version: clips.version, values };
    }
    return ranks.values;
  }

  // Whole numbers of any length, as texts; a text without a number comes first.
  function byNumber(left, right) {
    const [a, b] = [left ?? "", right ?? ""];
    return Number(a) - Number(b) || a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
  }

  nagfarm.ordering = { ordered, byNumber };
}
