// The fields of a clip by which people compare, filter and sort: one table, read by all others.
"use strict";

{
  const STAGES = ["queue", "load", "text", "denoise", "decode", "encode", "check", "upload"];

  // Fields with few values: axes of the grid, filters. `isNumber` decides the order of values.
  const DIMENSIONS = [
    { id: "prompt", label: "Prompt", isLong: true },
    { id: "negative_prompt", label: "Negative prompt", isLong: true },
    { id: "inputs", label: "Images and videos" },
    { id: "method", label: "Method" },
    { id: "model", label: "Model" },
    { id: "state", label: "Status" },
    { id: "seed", label: "Seed", isNumber: true },
    { id: "guidance", label: "Guidance" },
    { id: "loras", label: "LoRAs" },
    { id: "steps", label: "Steps", isNumber: true },
    { id: "size", label: "Size" },
    { id: "sound", label: "Sound" },
    { id: "fps", label: "Frames per second", isNumber: true },
    { id: "run_id", label: "Run" },
    { id: "device", label: "Device" },
    { id: "host", label: "Host" },
    { id: "failure_class", label: "Failure" },
    { id: "error_type", label: "Error" },
  ];

  const NUMBERS = [
    "steps",
    "fps",
    "num_frames",
    "width",
    "height",
    "attempts",
    "busy_s",
    "idle_s",
    "peak_memory_bytes",
    "num_bytes",
  ];
  const STRINGS = ["id", "name", "key", "poster", "thumbnail", "committed_at", "names"];
  const TEXTS = [
    "prompt",
    "negative_prompt",
    "inputs",
    "model",
    "method",
    "guidance",
    "loras",
    "sound",
    "run_id",
    "worker",
    "device",
    "host",
    "state",
    "failure_class",
    "error_type",
    "message",
  ];

  // Values by which clips are sorted. `column` names numbers of the clips.
  const MEASURES = [
    { id: "name", label: "Name", column: "name" },
    { id: "committed", label: "Time of commit", column: "committed" },
    { id: "stars", label: "Stars" },
    { id: "total", label: "All stages", column: "total", show: "seconds" },
    ...STAGES.map((stage) => ({
      id: stage,
      label: `Stage ${stage}`,
      column: `stage:${stage}`,
      show: "seconds",
    })),
    { id: "busy", label: "Device busy", column: "busy_s", show: "seconds" },
    { id: "idle", label: "Device idle", column: "idle_s", show: "seconds" },
    { id: "memory", label: "Peak memory", column: "peak_memory_bytes", show: "bytes" },
    { id: "bytes", label: "Size of the file", column: "num_bytes", show: "bytes" },
    { id: "attempts", label: "Attempts", column: "attempts" },
  ];

  function dimension(id) {
    const known = DIMENSIONS.find((one) => one.id === id);
    return known ?? { id, label: id.replace(/^meta\./, "Note "), isLong: true };
  }

  const SCORE = "score:"; // begins the columns of the figures of `nagfarm score`

  function scoreMeasure(name) {
    return { id: SCORE + name, label: `Score ${name}`, column: SCORE + name, show: "figure" };
  }

  function measure(id) {
    if (id.startsWith(SCORE)) return scoreMeasure(id.slice(SCORE.length));
    return MEASURES.find((one) => one.id === id) ?? MEASURES[0];
  }

  // The words for a value that has none of its own.
  function valueLabel(id, text) {
    if (text === null) return "none";
    if (text === "") return id === "negative_prompt" ? "no negative prompt" : "empty";
    return text;
  }

  nagfarm.fields = {
    STAGES,
    DIMENSIONS,
    NUMBERS,
    STRINGS,
    TEXTS,
    MEASURES,
    SCORE,
    dimension,
    measure,
    scoreMeasure,
    valueLabel,
  };
}
