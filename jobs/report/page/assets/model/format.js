// Write numbers, times and sizes for people.
"use strict";

{
  const GIB = 2 ** 30;
  const MIB = 2 ** 20;

  function count(number, word) {
    return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
  }

  function seconds(value) {
    if (value === null || Number.isNaN(value)) return "";
    if (value < 10) return `${value.toFixed(2)} s`;
    if (value < 120) return `${value.toFixed(1)} s`;
    if (value < 7200) return `${(value / 60).toFixed(1)} min`;
    return `${(value / 3600).toFixed(1)} h`;
  }

  function bytes(value) {
    if (value === null || Number.isNaN(value)) return "";
    if (value >= GIB) return `${(value / GIB).toFixed(2)} GiB`;
    if (value >= MIB) return `${(value / MIB).toFixed(1)} MiB`;
    return `${Math.ceil(value / 1024).toLocaleString("en")} KiB`;
  }

  function percent(share) {
    return share === null || Number.isNaN(share) ? "" : `${(100 * share).toFixed(1)}%`;
  }

  function figure(value) {
    return Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "";
  }

  // The time of day where the reader is; the day too if it is another one than today.
  function moment(text) {
    const date = new Date(text);
    if (Number.isNaN(date.getTime())) return text ?? "";
    return date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
  }

  function shortened(text, maxCharacters) {
    return text.length > maxCharacters ? `${text.slice(0, maxCharacters - 1)}…` : text;
  }

  nagfarm.format = { count, seconds, bytes, percent, figure, moment, shortened };
}
