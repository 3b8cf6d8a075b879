// The page: it joins data, state and views. All changes of the state go through `go`.
"use strict";

{
  const { make, button, say } = nagfarm.dom;
  const TABS = [
    ["grid", "Grid"],
    ["clips", "Clips"],
    ["failures", "Failures"],
    ["numbers", "Numbers"],
    ["picks", "Picks"],
  ];

  class Page {
    constructor() {
      this.clips = new nagfarm.Clips();
      this.state = nagfarm.route.fromHash(location.hash);
      this.matching = [];
      this.ordered = [];
      this.error = null;
      this.orders = new Map(); // by view
      this.picks = new nagfarm.Picks("", memory(), () => {});
      this.source = new nagfarm.Source(
        this.clips,
        (index) => this.takeIndex(index),
        (error) => this.takeError(error),
      );
      this.bar = nagfarm.transport("Play all in step", {
        toggle: () => this.togglePlay(),
        step: (num) => this.stepFrames(num),
        seek: (time_s) => this.inStep(() => this.playback.group.seek(time_s)),
        setRate: (rate) => this.playback.group.setRate(rate),
      });
      this.playback = new nagfarm.Playback(this.bar.show);
      this.build();
    }

    build() {
      const form = nagfarm.retakeForm(this);
      this.views = {
        grid: nagfarm.gridView(this),
        clips: nagfarm.clipsView(this),
        failures: nagfarm.failuresView(this),
        numbers: nagfarm.numbersView(this),
        picks: nagfarm.clipsView(this, { aside: form }),
        clip: nagfarm.clipView(this),
      };
      this.form = form;
      this.filters = nagfarm.filterBar(this);
      this.help = nagfarm.help();
      this.title = make("span", { class: "title", dir: "auto" });
      this.live = make("span", { class: "live" });
      this.tabs = new Map(
        TABS.map(([id, label]) => [
          id,
          make(
            "a",
            { href: "#", class: "tab", data: { view: id } },
            label,
            make("span", { class: "badge" }),
          ),
        ]),
      );
      this.problem = make("p", { class: "problem banner", role: "alert", hidden: true });
      this.stage = make("main", { id: "main", tabindex: "-1" }, this.filters.element, this.problem);
      for (const [id] of TABS) this.stage.append(this.views[id].element);
      this.stage.append(this.bar.element);
      document.body.append(
        make(
          "a",
          { class: "skip", href: "#main", on: { click: (event) => this.skip(event) } },
          "Skip to the clips",
        ),
        make(
          "header",
          { class: "top" },
          make("div", { class: "heading" }, this.title, this.live),
          make("nav", { "aria-label": "Views" }, [...this.tabs.values()]),
          make(
            "div",
            { class: "tools" },
            button("Colours: as the system, light, dark (T)", "theme", () => nagfarm.theme.next()),
            button("Keys (?)", "help", () => this.help.toggle()),
          ),
        ),
        this.stage,
        this.views.clip.element,
        this.help.element,
        make("div", { id: "message", role: "status", "aria-live": "polite" }),
      );
      this.listen();
    }

    listen() {
      this.playback.listen(document.body);
      this.help.fill(nagfarm.keyboard.listen(this));
      document.addEventListener("click", (event) => {
        const pick = event.target.closest?.("[data-action=pick]");
        if (pick) this.picks.toggle(pick.closest(".tile").dataset.id);
        const link = event.target.closest?.("a[href^='#']:not(.skip)");
        if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault(); // the same address, without a jump
        const state = nagfarm.route.fromHash(new URL(link.href).hash);
        // a tile that stayed while the filters changed has an address with the old ones
        const { clip, beside } = state;
        this.go(clip ? { clip, beside } : state, { isNew: true });
      });
      addEventListener("popstate", () => {
        this.state = nagfarm.route.fromHash(location.hash);
        this.render();
      });
      addEventListener("storage", (event) => {
        if (event.key !== this.picks.place) return;
        this.picks.read();
        this.takePicks(null);
      });
    }

    get view() {
      return this.views[this.state.view];
    }

    // Change the state. `isNew` makes a place to which the back button returns.
    go(change, { isNew = false } = {}) {
      this.state = { ...this.state, ...change };
      const hash = nagfarm.route.toHash(this.state);
      if (isNew) history.pushState(null, "", hash);
      else history.replaceState(null, "", hash);
      this.render();
    }

    hrefOf(change) {
      return nagfarm.route.toHash({ ...this.state, ...change });
    }

    open(view) {
      this.go({ view, clip: "", beside: "" }, { isNew: true });
    }

    choose(id, texts) {
      const chosen = Object.assign(Object.create(null), this.state.chosen);
      if (texts.length) chosen[id] = texts;
      else delete chosen[id];
      this.go({ chosen });
    }

    isFiltered() {
      const { chosen, query, isPicked, minStars } = this.state;
      return Boolean(Object.keys(chosen).length || query || isPicked || minStars);
    }

    resetFilters() {
      this.filters.search.value = "";
      this.go({ chosen: {}, query: "", isPicked: false, minStars: 0 });
    }

    back() {
      if (this.help.isOpen) this.help.toggle();
      else if (document.activeElement === this.filters.search) {
        this.filters.search.blur();
        this.view.scroller.focus({ preventScroll: true });
      } else if (this.state.clip) this.go({ clip: "", beside: "" }, { isNew: true });
      else if (this.playback.isInStep) this.togglePlay({ isStop: true });
    }

    skip(event) {
      event.preventDefault();
      this.view.move(0, 0);
    }

    takeIndex(index) {
      const isFirst = this.title.textContent === "";
      if (isFirst) this.openOutput(index);
      const before = this.numSeen ?? this.clips.count;
      this.numSeen = this.clips.count;
      if (!isFirst && this.clips.count > before && this.isLoaded) {
        say(nagfarm.format.count(this.clips.count - before, "new clip"));
      }
      this.isLoaded = index.parts.length <= this.clips.parts.length;
      const end = index.links_expire_at;
      this.live.textContent = [
        index.is_running && "rendering",
        end && `links until ${nagfarm.format.moment(end)}`,
      ]
        .filter(Boolean)
        .join(", ");
      this.live.classList.toggle("is-running", index.is_running);
      this.render();
    }

    openOutput(index) {
      this.title.textContent = index.title;
      this.title.title = index.uri;
      document.title = index.title;
      let storage = memory();
      try {
        storage = localStorage;
      } catch {
        // refused by the browser: picks last as long as the page
      }
      this.picks = new nagfarm.Picks(index.uri, storage, (ids) => this.takePicks(ids));
      if (!this.picks.isKept) say("This browser keeps no picks: export them before you close it");
    }

    takeError(error) {
      const end = this.source.index?.links_expire_at;
      if (error === null && end && Date.parse(end) < Date.now()) {
        error = new Error(
          `the links of this page ended on ${nagfarm.format.moment(end)}: nagfarm report writes new ones`,
        );
      }
      this.error = error;
      this.problem.hidden = error === null;
      if (error === null) return;
      const hint = this.clips.count ? "" : ". nagfarm report URI writes the data of this page";
      this.problem.textContent = `${error.message}${hint}`;
    }

    takePicks(ids) {
      const isShown = (tile) => ids === null || ids.includes(tile.dataset.id);
      for (const tile of document.querySelectorAll(".tile")) {
        if (isShown(tile)) nagfarm.tile.refresh(this, tile);
      }
      if (this.state.clip) this.views.clip.marks();
      this.showTabs();
      this.form.show();
      const { view, isPicked, minStars, sort } = this.state;
      if ((view === "picks" || isPicked || minStars || sort === "stars") && !this.state.clip) {
        this.render();
      }
      if (!this.picks.isKept) say("This browser keeps no picks: export them before you close it");
    }

    // The clip under the keyboard, under the pointer, or on its own page.
    current() {
      const tile = document.activeElement.closest?.(".tile") ?? this.playback.hovered;
      return this.state.clip || (tile?.isConnected && tile.dataset.id) || null;
    }

    pickCurrent() {
      const id = this.current();
      if (id) this.picks.toggle(id);
    }

    starCurrent(stars) {
      const id = this.current();
      if (id) this.picks.set(id, { stars });
    }

    togglePlay({ isStop = false } = {}) {
      if (!this.playback.isInStep) {
        if (["failures", "numbers"].includes(this.state.view)) return;
        this.playback.startInStep(this.view.element);
      } else if (isStop) this.playback.stopInStep();
      else this.playback.group.toggle();
      this.showBar();
    }

    inStep(run) {
      if (this.playback.isInStep) run();
    }

    stepFrames(num) {
      if (this.state.clip) this.views.clip.player.step(num);
      else this.inStep(() => this.playback.group.step(num, this.fps()));
    }

    fps() {
      return this.clips.numbers.fps[this.ordered[0]] || 16;
    }

    // Width over height of the first clip that has them: most clips of an output have one shape.
    aspect() {
      const { width, height } = this.clips.numbers;
      const row = this.ordered.find((one) => width[one] > 0);
      const aspect = row === undefined ? 16 / 9 : width[row] / height[row];
      return Math.min(Math.max(aspect, 0.5), 2.4);
    }

    emptyText() {
      if (this.source.index === null) return this.error ? "" : "Loading";
      if (this.clips.count === 0) return "No clips yet. They appear here as they are rendered.";
      if (this.state.view === "picks" && !this.isFiltered()) {
        return "No picks yet. Point at a clip and press P, or tick its picture.";
      }
      return "No clip matches these filters.";
    }

    filter() {
      const { state } = this;
      const isPicked = state.isPicked || state.view === "picks";
      this.matching = nagfarm.filtering.matching(this.clips, { ...state, isPicked }, this.picks);
      this.ordered = nagfarm.ordering.ordered(
        this.clips,
        this.matching,
        { measure: state.sort, isDescending: state.isDescending },
        this.picks,
      );
    }

    render() {
      const { state } = this;
      if (this.playback.isInStep && this.shownView !== state.view) this.playback.stopInStep();
      this.filter();
      for (const [id] of TABS) {
        const isShown = id === state.view;
        if (!isShown && !this.views[id].element.hidden) this.views[id].hide?.();
        this.views[id].element.hidden = !isShown;
      }
      this.showTabs();
      this.filters.show();
      // behind a clip's page, the view stays as it is: its place is kept
      const isBehind =
        state.clip && this.shownView === state.view && this.shownVersion === this.clips.version;
      if (!isBehind) this.showView();
      this.shownView = state.view;
      this.shownVersion = this.clips.version;
      this.stage.inert = Boolean(state.clip);
      if (state.clip && this.playback.isInStep) this.playback.stopInStep();
      if (state.clip) this.playback.hover(null);
      this.showClip();
      this.playback.update();
      this.showBar();
    }

    // Another choice or order of clips begins at the top.
    showView() {
      const { view, query, chosen, isPicked, minStars, sort, isDescending } = this.state;
      const order = JSON.stringify([query, chosen, isPicked, minStars, sort, isDescending]);
      const isOther = this.orders.get(view) !== order;
      this.orders.set(view, order);
      this.view.show();
      if (isOther) this.view.scroller.scrollTop = 0;
    }

    // The focus goes to the clip's page, and back to its tile.
    showClip() {
      const { clip } = this.state;
      const before = this.shownClip ?? "";
      this.shownClip = clip;
      this.views.clip.show();
      if (clip && !before) this.views.clip.element.focus({ preventScroll: true });
      if (!clip && before) {
        const tile = this.view.element.querySelector(
          `.tile[data-id="${CSS.escape(before)}"] .picture`,
        );
        tile?.focus({ preventScroll: true });
      }
    }

    showTabs() {
      const failures = this.numFailures();
      const badges = { failures, picks: this.picks.picked().length };
      for (const [id, tab] of this.tabs) {
        tab.href = this.hrefOf({ view: id, clip: "", beside: "" });
        if (id === this.state.view) tab.setAttribute("aria-current", "page");
        else tab.removeAttribute("aria-current");
        tab.querySelector(".badge").textContent = badges[id] ? badges[id].toLocaleString("en") : "";
      }
    }

    numFailures() {
      if (this.failuresOf !== this.clips.version) {
        this.failuresOf = this.clips.version;
        this.failures = this.clips.codes.failure_class.reduce((sum, code) => sum + (code >= 0), 0);
      }
      return this.failures;
    }

    showBar() {
      const isPlayable =
        ["grid", "clips", "picks"].includes(this.state.view) && this.ordered.length;
      this.bar.element.hidden = !isPlayable || Boolean(this.state.clip);
      this.bar.element.classList.toggle("is-open", this.playback.isInStep);
      const { num, numSeen } = this.playback.update();
      this.bar.note.textContent = num < numSeen ? `${num} of ${numSeen} in sight` : `${num} clips`;
    }
  }

  function memory() {
    const kept = new Map();
    return {
      getItem: (key) => kept.get(key) ?? null,
      setItem: (key, value) => kept.set(key, value),
    };
  }

  nagfarm.page = new Page();
  nagfarm.page.render();
  nagfarm.page.source.refresh();
}
