// Find the clips that differ from one clip in a single respect.
"use strict";

{
  const ALL = [
    "prompt",
    "negative_prompt",
    "model",
    "method",
    "guidance",
    "loras",
    "seed",
    "steps",
    "size",
    "fps",
  ];
  // What may differ. Parameters of a method differ with it, and a model has a size of its own.
  const KINDS = [
    { id: "negative_prompt", label: "Other negative prompts", free: ["negative_prompt"] },
    { id: "method", label: "Other methods", free: ["method", "guidance"] },
    { id: "guidance", label: "Other parameters", free: ["guidance"] },
    { id: "seed", label: "Other seeds", free: ["seed"] },
    { id: "steps", label: "Other steps", free: ["steps"] },
    { id: "loras", label: "Other LoRAs", free: ["loras"] },
    { id: "model", label: "Other models", free: ["model", "loras", "steps", "size", "fps"] },
    { id: "prompt", label: "Other prompts", free: ["prompt"] },
  ];

  function neighbours(clips, ordinal) {
    return KINDS.map((kind) => {
      const equal = ALL.filter((id) => !kind.free.includes(id)).map((id) => clips.codes[id]);
      const differs = clips.codes[kind.id];
      const found = [];
      for (let row = 0; row < clips.count; row++) {
        if (differs[row] === differs[ordinal]) continue;
        if (equal.every((codes) => codes[row] === codes[ordinal])) found.push(row);
      }
      return { ...kind, ordinals: found };
    }).filter((kind) => kind.ordinals.length > 0);
  }

  nagfarm.neighbours = neighbours;
}
