// Keep picks and stars in this browser, one entry for each output.
"use strict";

{
  class Picks {
    // `onChange` is called after each change, with the ids that changed, or null for all.
    constructor(uri, storage, onChange) {
      this.place = `nagfarm picks ${uri}`;
      this.storage = storage;
      this.onChange = onChange;
      this.isKept = true; // false if the browser refuses to keep them
      this.read();
    }

    read() {
      this.entries = new Map();
      try {
        const kept = JSON.parse(this.storage.getItem(this.place) ?? "{}");
        for (const [id, entry] of Object.entries(kept)) {
          const stars = Number.isInteger(entry.stars) ? Math.min(Math.max(entry.stars, 0), 5) : 0;
          this.entries.set(id, { isPicked: entry.isPicked === true, stars });
        }
      } catch {
        this.isKept = false;
      }
    }

    isPicked(id) {
      return this.entries.get(id)?.isPicked ?? false;
    }

    stars(id) {
      return this.entries.get(id)?.stars ?? 0;
    }

    picked() {
      return [...this.entries].filter(([, entry]) => entry.isPicked).map(([id]) => id);
    }

    toggle(id) {
      this.set(id, { isPicked: !this.isPicked(id) });
    }

    setStars(id, stars) {
      this.set(id, { stars: stars === this.stars(id) ? 0 : stars });
    }

    set(id, change) {
      const entry = { isPicked: this.isPicked(id), stars: this.stars(id), ...change };
      if (entry.isPicked || entry.stars) this.entries.set(id, entry);
      else this.entries.delete(id);
      this.keep([id]);
    }

    // Drop the picks, and keep the stars.
    clear() {
      for (const id of this.picked()) {
        const stars = this.stars(id);
        if (stars) this.entries.set(id, { isPicked: false, stars });
        else this.entries.delete(id);
      }
      this.keep(null);
    }

    keep(ids) {
      try {
        this.storage.setItem(this.place, JSON.stringify(Object.fromEntries(this.entries)));
        this.isKept = true;
      } catch {
        this.isKept = false;
      }
      this.onChange(ids);
    }
  }

  nagfarm.Picks = Picks;
}
