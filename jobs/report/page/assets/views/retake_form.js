// The form that exports the picks as a manifest, with other seeds or steps.
"use strict";

{
  const { make, text, clear, say } = nagfarm.dom;
  const FILE = "picks.jsonl";

  function retakeForm(page) {
    const field = (name, placeholder) =>
      make("input", {
        type: "text",
        name,
        placeholder,
        autocomplete: "off",
        on: { input: () => show() },
      });
    const seeds = field("seeds", "as they are, or 5..8");
    const steps = make("input", {
      type: "text",
      inputmode: "numeric",
      name: "steps",
      placeholder: "as they are",
      autocomplete: "off",
      on: { input: () => show() },
    });
    const result = make("p", { class: "result", "aria-live": "polite" });
    const command = make("code", { class: "command", dir: "ltr" });
    const download = make("button", { type: "submit", class: "primary" }, `Download ${FILE}`);
    const ids = make(
      "button",
      { type: "button", class: "text-button", on: { click: () => copyIds() } },
      "Copy the ids",
    );
    const forget = make(
      "button",
      { type: "button", class: "text-button", on: { click: () => page.picks.clear() } },
      "Unpick all",
    );
    const element = make(
      "form",
      {
        class: "retake",
        "aria-label": "Render picks again",
        on: {
          submit: (event) => {
            event.preventDefault();
            save();
          },
        },
      },
      make("h2", {}, "Render these again"),
      make("label", {}, make("span", {}, "Seeds"), seeds),
      make("label", {}, make("span", {}, "Steps"), steps),
      result,
      make("div", { class: "buttons" }, download, ids, forget),
      make("p", { class: "hint" }, "Then: ", command),
      make(
        "p",
        { class: "hint" },
        "Picks and stars are kept in this browser alone; the file is what you pass on.",
      ),
    );

    function wish() {
      return {
        seeds: nagfarm.retake.parseSeeds(seeds.value),
        steps: nagfarm.retake.parseSteps(steps.value),
      };
    }

    // Picked clips that have a record, so a row; in the order of the output.
    function picked() {
      const { clips, picks } = page;
      return picks
        .picked()
        .map((id) => clips.ordinals.get(id))
        .filter((row) => row !== undefined)
        .sort((a, b) => a - b);
    }

    function show() {
      const rows = picked();
      command.textContent = `nagfarm render ${FILE} --output ${shellText(page.source.index?.uri ?? "")}`;
      download.disabled = rows.length === 0;
      try {
        const wanted = wish();
        const num = rows.length * (wanted.seeds?.length ?? 1);
        result.className = "result";
        const times = wanted.seeds ? ` × ${nagfarm.format.count(wanted.seeds.length, "seed")}` : "";
        result.textContent = rows.length
          ? `${nagfarm.format.count(rows.length, "pick")}${times} = ${nagfarm.format.count(num, "row")}`
          : "Pick clips with the tick on their pictures, or the key P.";
      } catch (error) {
        result.className = "result problem";
        result.textContent = error.message;
        download.disabled = true;
      }
    }

    async function lines() {
      const { clips, source } = page;
      const sources = [];
      const missing = [];
      for (const row of picked()) {
        const details = await source.detailsFor(row);
        if (details?.row) sources.push({ row: details.row, seed: clips.text("seed", row) });
        else missing.push(clips.strings.name[row] ?? clips.strings.id[row]);
      }
      return { lines: nagfarm.retake.retakeLines(sources, wish()), missing };
    }

    async function save() {
      download.disabled = true;
      try {
        const made = await lines();
        const file = new Blob(
          made.lines.map((line) => `${line}\n`),
          { type: "application/jsonl" },
        );
        const url = URL.createObjectURL(file);
        const link = make("a", { href: url, download: FILE });
        link.click();
        setTimeout(() => URL.revokeObjectURL(url), 60_000);
        say(`${FILE}: ${nagfarm.format.count(made.lines.length, "row")}`);
        if (made.missing.length) {
          clear(
            result,
            `Without a record, so left out: `,
            text(made.missing.slice(0, 5).join(", ")),
          );
          result.className = "result problem";
        }
      } catch (error) {
        result.className = "result problem";
        result.textContent = error.message;
      }
      download.disabled = false;
    }

    async function copyIds() {
      const { id } = page.clips.strings;
      const chosen = picked().map((row) => id[row]);
      try {
        await navigator.clipboard.writeText(chosen.join("\n"));
        say(`${nagfarm.format.count(chosen.length, "id")} copied`);
      } catch {
        say("This browser lets no page from here copy");
      }
    }

    return { element, show };
  }

  function shellText(value) {
    return /^[\w./:@%+=,-]+$/.test(value) ? value : `'${value.replaceAll("'", `'\\''`)}'`;
  }

  nagfarm.retakeForm = retakeForm;
}
