// The clips of all parts, by columns: equal texts have one number, so that filters compare numbers.
"use strict";

{
  const { NUMBERS, STRINGS, TEXTS, STAGES, DIMENSIONS, SCORE } = nagfarm.fields;
  const NONE = -1;

  class Clips {
    constructor() {
      this.texts = []; // each text once
      this.lower = []; // the same for searching
      this.numberOf = new Map();
      this.version = 0;
      this.linkBase = "../";
      this.setParts([]);
    }

    code(text) {
      if (text === null || text === undefined) return NONE;
      let code = this.numberOf.get(text);
      if (code === undefined) {
        code = this.texts.push(text) - 1;
        this.lower.push(text.toLowerCase());
        this.numberOf.set(text, code);
      }
      return code;
    }

    // Take the parts of the newest index, in their order. Codes of texts stay as they are.
    setParts(parts) {
      this.version += 1;
      this.parts = parts;
      this.count = parts.reduce((sum, part) => sum + lengthOf(part), 0);
      this.partOf = new Uint32Array(this.count);
      this.strings = Object.fromEntries(STRINGS.map((name) => [name, new Array(this.count)]));
      this.codes = Object.create(null); // notes and addresses name fields: no inherited ones
      this.numbers = {};
      for (const { id } of DIMENSIONS) this.codes[id] = new Int32Array(this.count).fill(NONE);
      for (const id of TEXTS) this.codes[id] ??= new Int32Array(this.count).fill(NONE);
      const stages = STAGES.map((stage) => `stage:${stage}`);
      const scored = parts.flatMap((part) => Object.keys(part.columns.scores ?? {}));
      this.scores = [...new Set(scored)].sort();
      const figures = this.scores.map((name) => SCORE + name);
      for (const name of [...NUMBERS, ...stages, ...figures, "total", "committed"]) {
        this.numbers[name] = new Float64Array(this.count).fill(NaN);
      }
      let first = 0;
      parts.forEach((part, number) => {
        this.partOf.fill(number, first, first + lengthOf(part));
        this.fill(part, first);
        first += lengthOf(part);
      });
      this.derive();
      const names = nagfarm.ordering.ranksOfNames(this.strings.name);
      this.byName = names.rows;
      this.numbers.name = names.ranks;
      this.ordinals = new Map(this.strings.id.map((id, ordinal) => [id, ordinal]));
      this.distinct = new Map();
    }

    fill({ strings, columns }, first) {
      const length = columns.id.length;
      for (const name of STRINGS) {
        const column = columns[name];
        for (let row = 0; row < length; row++) {
          this.strings[name][first + row] = column?.[row] ?? null;
        }
      }
      const codes = strings.map((text) => this.code(text));
      for (const name of TEXTS) {
        const [column, target] = [columns[name], this.codes[name]];
        if (!column) continue;
        const isText = name === "state"; // written as itself
        for (let row = 0; row < length; row++) {
          const value = column[row];
          if (value === null) continue;
          target[first + row] = isText ? this.code(value) : codes[value];
        }
      }
      if (columns.seed) {
        const target = this.codes.seed;
        for (let row = 0; row < length; row++) target[first + row] = this.code(columns.seed[row]);
      }
      for (const name of NUMBERS) copy(columns[name], this.numbers[name], first);
      for (const stage of STAGES) {
        copy(columns.stages?.[stage], this.numbers[`stage:${stage}`], first);
      }
      for (const name of this.scores) copy(columns.scores?.[name], this.numbers[SCORE + name], first);
      for (let row = 0; row < length; row++) {
        for (const [note, index] of Object.entries(columns.meta?.[row] ?? {})) {
          const id = `meta.${note}`;
          this.codes[id] ??= new Int32Array(this.count).fill(NONE);
          this.codes[id][first + row] = codes[index];
        }
      }
    }

    derive() {
      const { width, height, num_frames: frames, steps, fps, total, committed } = this.numbers;
      const stages = STAGES.map((stage) => this.numbers[`stage:${stage}`]);
      for (let row = 0; row < this.count; row++) {
        if (!Number.isNaN(width[row])) {
          this.codes.size[row] = this.code(`${width[row]}×${height[row]}, ${frames[row]} frames`);
        }
        if (!Number.isNaN(steps[row])) this.codes.steps[row] = this.code(String(steps[row]));
        if (!Number.isNaN(fps[row])) this.codes.fps[row] = this.code(String(fps[row]));
        let sum = NaN;
        for (const stage of stages) {
          if (!Number.isNaN(stage[row])) sum = (Number.isNaN(sum) ? 0 : sum) + stage[row];
        }
        total[row] = sum;
        const at = this.strings.committed_at[row];
        if (at) committed[row] = Date.parse(at);
      }
    }

    text(dimension, ordinal) {
      const code = this.codes[dimension]?.[ordinal] ?? NONE;
      return code === NONE ? null : this.texts[code];
    }

    textOf(code) {
      return code === NONE ? null : this.texts[code];
    }

    // The codes of a dimension that occur: numbers by size, texts as they first appear in the order
    // of names, and no text at all before them.
    values(dimension) {
      let values = this.distinct.get(dimension);
      if (values === undefined) {
        const codes = this.codes[dimension];
        values = codes ? [...new Set(this.byName.map((row) => codes[row]))] : [];
        const isBlank = (code) => code === NONE || this.texts[code] === "";
        values.sort((a, b) => isBlank(b) - isBlank(a));
        if (nagfarm.fields.dimension(dimension).isNumber) {
          values.sort((a, b) => nagfarm.ordering.byNumber(this.textOf(a), this.textOf(b)));
        }
        this.distinct.set(dimension, values);
      }
      return values;
    }

    // Dimensions with more than one value, notes of the manifest among them.
    varying() {
      return Object.keys(this.codes).filter(
        (id) => !["message", "worker"].includes(id) && this.values(id).length > 1,
      );
    }

    url(key, ordinal) {
      if (!key) return null;
      const plain = this.linkBase + key.split("/").map(encodeURIComponent).join("/");
      const { links } = this.parts[this.partOf[ordinal]];
      const signed = links?.signed[key];
      return signed ? `${plain}?${links.queries[signed[0]]}${signed[1]}` : plain;
    }

    source(ordinal) {
      const isThere = this.text("state", ordinal) === "committed";
      return isThere ? this.url(this.strings.key[ordinal], ordinal) : null;
    }
  }

  function lengthOf(part) {
    return part.columns.id.length;
  }

  function copy(column, target, first) {
    if (!column) return;
    for (let row = 0; row < column.length; row++) {
      if (column[row] !== null) target[first + row] = column[row];
    }
  }

  nagfarm.Clips = Clips;
}
