// Choose light or dark: as the system has it, until the reader chooses. Keep small preferences.
"use strict";

{
  const THEMES = ["auto", "light", "dark"];

  const preferences = {
    get(name, otherwise) {
      try {
        return localStorage.getItem(`nagfarm ${name}`) ?? otherwise;
      } catch {
        return otherwise;
      }
    },
    // A whole number from 0, below `end`; pages of other programs may share the storage.
    number(name, otherwise, end) {
      const kept = Number(this.get(name, otherwise));
      return Number.isInteger(kept) && kept >= 0 && kept < end ? kept : otherwise;
    },
    set(name, value) {
      try {
        localStorage.setItem(`nagfarm ${name}`, value);
      } catch {
        // a browser that keeps nothing asks again the next time
      }
    },
  };

  function apply(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    document.dispatchEvent(new CustomEvent("themechange"));
  }

  function next() {
    const current = preferences.get("theme", "auto");
    const theme = THEMES[(THEMES.indexOf(current) + 1) % THEMES.length];
    preferences.set("theme", theme);
    apply(theme);
    nagfarm.dom.say(`Colours: ${theme === "auto" ? "as the system has them" : theme}`);
  }

  apply(preferences.get("theme", "auto")); // before the first paint
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    document.dispatchEvent(new CustomEvent("themechange")),
  );

  nagfarm.preferences = preferences;
  nagfarm.theme = { next };
}
