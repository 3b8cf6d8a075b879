// Write the manifest that renders picks again: JSONL, one row a line. Pure.
//
// Seeds stay texts of digits: a number of JavaScript loses digits above 2^53.
"use strict";

{
  const MAX_SEED = 2n ** 63n - 1n;
  const MAX_SEEDS = 1000;
  const MAX_NAME = 128; // characters, as the manifest has it

  // "5..8, 11" -> ["5", "6", "7", "8", "11"]; "" -> null: each clip keeps its seed.
  function parseSeeds(text) {
    const seeds = [];
    for (const piece of text.split(/[\s,]+/).filter(Boolean)) {
      const found = /^(\d+)(?:(?:\.\.|-)(\d+))?$/.exec(piece);
      if (!found) throw new Error(`seeds are numbers and ranges such as 5..8, not “${piece}”`);
      const [first, last] = [BigInt(found[1]), BigInt(found[2] ?? found[1])];
      if (last > MAX_SEED) throw new Error(`a seed is at most ${MAX_SEED}, not ${last}`);
      if (last < first) throw new Error(`the range ${piece} ends before it begins`);
      if (last - first >= MAX_SEEDS) throw new Error(`at most ${MAX_SEEDS} seeds, not ${piece}`);
      for (let seed = first; seed <= last; seed++) seeds.push(String(seed));
    }
    if (seeds.length > MAX_SEEDS) throw new Error(`at most ${MAX_SEEDS} seeds`);
    return seeds.length ? [...new Set(seeds)] : null;
  }

  function parseSteps(text) {
    if (!text.trim()) return null;
    const steps = Number(text);
    if (!Number.isInteger(steps) || steps < 1 || steps > 1000) {
      throw new Error(`steps are a whole number from 1 to 1000, not “${text.trim()}”`);
    }
    return steps;
  }

  // `sources` are {row, seed}: the row as a line of JSON, and the seed as digits.
  function retakeLines(sources, { seeds, steps }) {
    const names = new Set();
    return sources.flatMap(({ row, seed }) =>
      (seeds ?? [seed]).map((wanted) => {
        const fields = JSON.parse(row);
        delete fields.seed;
        if (steps !== null) fields.num_inference_steps = steps;
        if (fields.name !== undefined) {
          const suffix = (seeds ? `-s${wanted}` : "") + (steps === null ? "" : `-${steps}steps`);
          fields.name = unique(`${fields.name.slice(0, MAX_NAME - 40)}${suffix}`, names);
        }
        return `${JSON.stringify(fields).slice(0, -1)},"seed":${wanted}}`;
      }),
    );
  }

  function unique(name, taken) {
    let chosen = name;
    for (let number = 2; taken.has(chosen); number++) chosen = `${name}-${number}`;
    taken.add(chosen);
    return chosen;
  }

  nagfarm.retake = { parseSeeds, parseSteps, retakeLines };
}
