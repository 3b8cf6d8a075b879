// Decide which clips a filter leaves. Pure: clips, filter and picks in, ordinals out.
//
// A filter is {query, chosen: {dimension: [text or null, ...]}, isPicked, minStars}. Each word of
// the query must stand in one of the texts of a clip.
"use strict";

{
  const SEARCHED = ["prompt", "negative_prompt", "message", "model", "method", "seed"];

  function matching(clips, filter, picks) {
    const tests = [
      ...Object.entries(filter.chosen ?? {}).map(([id, texts]) => chosenTest(clips, id, texts)),
      ...words(filter.query).map((word) => wordTest(clips, word)),
    ];
    const { id } = clips.strings;
    if (filter.isPicked) tests.push((row) => picks.isPicked(id[row]));
    if (filter.minStars) tests.push((row) => picks.stars(id[row]) >= filter.minStars);
    const found = [];
    for (let row = 0; row < clips.count; row++) {
      if (tests.every((test) => test(row))) found.push(row);
    }
    return found;
  }

  function words(query) {
    return (query ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  }

  function chosenTest(clips, dimension, texts) {
    const codes = clips.codes[dimension];
    if (!codes) return () => false;
    // a text that no clip has must match none, so it gets a code that no clip has
    const wanted = new Set(
      texts.map((text) => (text === null ? -1 : (clips.numberOf.get(text) ?? -2))),
    );
    return (row) => wanted.has(codes[row]);
  }

  function wordTest(clips, word) {
    const columns = Object.entries(clips.codes)
      .filter(([id]) => SEARCHED.includes(id) || id.startsWith("meta."))
      .map(([, codes]) => codes);
    const holds = clips.lower.map((text) => text.includes(word)); // each text is searched once
    const { id, name, names } = clips.strings;
    return (row) =>
      columns.some((codes) => codes[row] >= 0 && holds[codes[row]]) ||
      (name[row] ?? "").toLowerCase().includes(word) ||
      id[row].startsWith(word) ||
      (names[row] ?? []).some((other) => other.toLowerCase().includes(word));
  }

  nagfarm.filtering = { matching };
}
