// Sum clips up over time and by model, for the charts and tables. Pure.
"use strict";

{
  const { STAGES } = nagfarm.fields;
  const MAX_BUCKETS = 120;
  // Lengths of a bucket that people can name, in seconds.
  const LENGTHS_S = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400,
  ];

  // Return one entry for each span of time between the first and the last commit.
  function overTime(clips, ordinals) {
    const { committed, busy_s: busy, idle_s: idle, peak_memory_bytes: memory } = clips.numbers;
    const rows = ordinals.filter((row) => !Number.isNaN(committed[row]));
    if (rows.length === 0) return null;
    const times_s = rows.map((row) => committed[row] / 1000);
    const first = times_s.reduce((a, b) => Math.min(a, b));
    const last = times_s.reduce((a, b) => Math.max(a, b));
    const length_s =
      LENGTHS_S.find((length) => (last - first) / length < MAX_BUCKETS) ??
      Math.ceil((last - first) / MAX_BUCKETS);
    const begin = Math.floor(first / length_s) * length_s;
    const num = Math.floor((last - begin) / length_s) + 1;
    const buckets = Array.from({ length: num }, (_, index) => ({
      at_s: begin + index * length_s,
      num: 0,
      busy_s: 0,
      idle_s: 0,
      memory_bytes: null,
      stages_s: Object.fromEntries(STAGES.map((stage) => [stage, 0])),
    }));
    rows.forEach((row, index) => {
      const bucket = buckets[Math.floor((times_s[index] - begin) / length_s)];
      bucket.num += 1;
      bucket.busy_s += busy[row] || 0;
      bucket.idle_s += idle[row] || 0;
      if (!Number.isNaN(memory[row])) {
        bucket.memory_bytes = Math.max(bucket.memory_bytes ?? 0, memory[row]);
      }
      for (const stage of STAGES) {
        bucket.stages_s[stage] += clips.numbers[`stage:${stage}`][row] || 0;
      }
    });
    return { length_s, buckets };
  }

  // Return {model, num, stages: {stage: {median, p95, share}}} for each model.
  function byModel(clips, ordinals) {
    const groups = new Map();
    for (const row of ordinals) {
      const model = clips.text("model", row);
      if (model === null || Number.isNaN(clips.numbers.total[row])) continue;
      if (!groups.has(model)) groups.set(model, []);
      groups.get(model).push(row);
    }
    return [...groups].map(([model, rows]) => {
      const total = sum(rows.map((row) => clips.numbers.total[row]));
      const stages = {};
      for (const stage of STAGES) {
        const values = rows
          .map((row) => clips.numbers[`stage:${stage}`][row])
          .filter((value) => !Number.isNaN(value))
          .sort((a, b) => a - b);
        if (values.length) {
          stages[stage] = {
            median: quantile(values, 0.5),
            p95: quantile(values, 0.95),
            share: sum(values) / total,
          };
        }
      }
      return { model, num: rows.length, total, stages };
    });
  }

  function sum(values) {
    return values.reduce((a, b) => a + b, 0);
  }

  function quantile(sorted, share) {
    return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  }

  nagfarm.series = { overTime, byModel };
}
