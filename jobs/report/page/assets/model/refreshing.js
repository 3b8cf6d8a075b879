// Keep the clips up to date: load the index, then the parts that are new, again and again.
"use strict";

{
  const VERSION = 1;
  const CALM_S = 60; // between two looks while no run is under way
  const MAX_DETAILS = 6; // parts of details that are kept; each may have megabytes

  class Source {
    // `onChange(index)` is called whenever there is more to show, `onError(error)` after each try.
    constructor(clips, onChange, onError) {
      this.clips = clips;
      this.onChange = onChange;
      this.onError = onError;
      this.index = null;
      this.parts = new Map(); // by file
      this.details = new Map(); // by file, the last one used at the end
      this.timer = null;
    }

    async refresh() {
      clearTimeout(this.timer);
      try {
        const index = await nagfarm.loadData("index.js", { isFresh: this.index !== null });
        if (index.version !== VERSION) {
          throw new Error(`the data have version ${index.version}, the page needs ${VERSION}`);
        }
        const isNew = index.generated_at !== this.index?.generated_at;
        this.index = index;
        if (isNew) await this.loadParts(index);
        this.onError(null);
      } catch (error) {
        this.onError(error);
      }
      this.schedule();
    }

    // Show the clips as they come at the first time; later all new ones at once, without a flicker.
    async loadParts(index) {
      this.clips.linkBase = index.link_base ?? "../";
      const isFirst = this.parts.size === 0;
      const missing = index.parts.filter(({ file }) => !this.parts.has(file));
      let isPainting = false;
      const paintSoon = () => {
        if (!isFirst || isPainting) return;
        isPainting = true;
        requestAnimationFrame(() => {
          isPainting = false;
          this.show(index);
        });
      };
      await Promise.all(
        missing.map(async ({ file }, number) => {
          this.parts.set(file, await nagfarm.loadData(file));
          if (number === 0) paintSoon();
        }),
      );
      const kept = new Set(index.parts.map(({ file }) => file));
      for (const file of this.parts.keys()) if (!kept.has(file)) this.parts.delete(file);
      this.show(index);
    }

    show(index) {
      const loaded = index.parts.map(({ file }) => this.parts.get(file)).filter(Boolean);
      const files = index.parts.filter(({ file }) => this.parts.has(file));
      this.clips.setParts(loaded);
      this.detailsOf = files.map(
        ({ file }) => index.details[index.parts.findIndex((part) => part.file === file)]?.file,
      );
      this.onChange(index);
    }

    schedule() {
      if (this.index === null) return;
      const refresh_s = this.index.refresh_s || CALM_S;
      this.timer = setTimeout(() => {
        // a hidden page waits until it is shown
        if (document.hidden) {
          document.addEventListener("visibilitychange", () => this.refresh(), { once: true });
        } else this.refresh();
      }, refresh_s * 1000);
    }

    // Return the details of one clip, or null if there are none.
    async detailsFor(ordinal) {
      const file = this.detailsOf[this.clips.partOf[ordinal]];
      const id = this.clips.strings.id[ordinal];
      if (!file) return null;
      const details = this.details.get(file) ?? nagfarm.loadData(file);
      this.details.delete(file);
      this.details.set(file, details);
      for (const oldest of this.details.keys()) {
        if (this.details.size <= MAX_DETAILS) break;
        this.details.delete(oldest);
      }
      try {
        return (await details)[id] ?? null;
      } catch (error) {
        this.details.delete(file);
        throw error;
      }
    }
  }

  nagfarm.Source = Source;
}
