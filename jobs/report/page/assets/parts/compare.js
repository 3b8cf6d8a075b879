// One clip, or two of them in step: behind a slider, or side by side.
"use strict";

{
  const { make, text, button } = nagfarm.dom;

  // Returns {element, show(first, second), actions, stop()}. A clip is {source, poster, label,
  // fps, hasSound}.
  function comparePlayer() {
    const bar = nagfarm.transport("Play", {
      toggle: () => group.toggle(),
      step: (num) => group.step(num, fps),
      seek: (time_s) => group.seek(time_s),
      setRate: (rate) => group.setRate(rate),
    });
    const group = new nagfarm.StepGroup(bar.show);
    const stage = make("div", { class: "stage" });
    const slider = make("input", {
      type: "range",
      class: "slider",
      min: 0,
      max: 100,
      step: 0.5,
      value: 50,
      "aria-label": "Border between the two clips",
      on: { input: () => stage.style.setProperty("--border", `${slider.value}%`) },
    });
    const mode = button("Side by side", "together", () => setMode(!isTogether), { class: "mode" });
    const sound = button("Sound", "silent", () => setSound(!isLoud), { class: "sound" });
    bar.element.append(mode, sound);
    const element = make("div", { class: "player" }, stage, bar.element);
    let isTogether = nagfarm.preferences.get("compare", "slider") === "together";
    let isLoud = nagfarm.preferences.get("sound", "off") === "on";
    let fps = 16;
    let videos = [];

    function setMode(together) {
      isTogether = together;
      nagfarm.preferences.set("compare", together ? "together" : "slider");
      stage.classList.toggle("is-together", together && videos.length === 2);
      mode.replaceChildren(nagfarm.icon(together ? "slider" : "together"));
      const label = together ? "Behind a slider" : "Side by side";
      mode.title = label;
      mode.setAttribute("aria-label", label);
    }

    function setSound(isOn) {
      isLoud = isOn;
      nagfarm.preferences.set("sound", isOn ? "on" : "off");
      if (videos[0]) videos[0].muted = !isOn; // that of the first clip: two would mix
      sound.replaceChildren(nagfarm.icon(isOn ? "sound" : "silent"));
      sound.setAttribute("aria-pressed", String(isOn));
    }

    function stop() {
      group.pause();
      for (const video of videos) {
        group.remove(video);
        video.removeAttribute("src");
        video.load();
      }
      videos = [];
      stage.replaceChildren();
    }

    function side(clip, name) {
      if (!clip.source) {
        return make("div", { class: `side ${name} is-empty` }, text(clip.problem, {}, "p"));
      }
      const video = make("video", {
        src: clip.source,
        poster: clip.poster,
        preload: "auto",
        playsinline: true,
        "aria-label": clip.label,
      });
      video.muted = true;
      video.disableRemotePlayback = true;
      const label = text(clip.caption, { class: "side-label" });
      video.addEventListener("error", () => {
        if (!video.hasAttribute("src")) return; // stopped
        label.textContent = [clip.caption, "This video cannot be loaded"]
          .filter(Boolean)
          .join(" · ");
      });
      videos.push(video);
      group.add(video);
      return make(
        "div",
        { class: `side ${name}` },
        video,
        label,
      );
    }

    function show(first, second) {
      stop();
      fps = first.fps || 16;
      stage.style.setProperty("--aspect", String(first.aspect || 16 / 9));
      stage.append(side(first, "first"));
      if (second) stage.append(side(second, "second"), slider);
      stage.classList.toggle("has-two", Boolean(second));
      bar.element.hidden = videos.length === 0;
      mode.hidden = !second;
      sound.hidden = !first.hasSound || videos.length === 0;
      setMode(isTogether);
      setSound(isLoud);
      group.time_s = 0;
      if (!matchMedia("(prefers-reduced-motion: reduce)").matches) group.play();
    }

    stage.style.setProperty("--border", "50%");
    // the picture itself is the handle, and a click plays or pauses
    let isDragged = false;
    stage.addEventListener("pointerdown", (event) => {
      if (event.target === slider || event.button !== 0) return;
      isDragged = false;
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!stage.hasPointerCapture(event.pointerId) || videos.length < 2 || isTogether) return;
      const box = stage.getBoundingClientRect();
      isDragged = true;
      slider.value = String((100 * (event.clientX - box.left)) / box.width);
      stage.style.setProperty("--border", `${slider.value}%`);
    });
    stage.addEventListener("pointerup", (event) => {
      if (event.target !== slider && !isDragged) group.toggle();
    });

    return {
      element,
      show,
      stop,
      toggle: () => group.toggle(),
      step: (num) => group.step(num, fps),
      toggleSound: () => setSound(!isLoud),
      toggleMode: () => setMode(!isTogether),
      nudge(by) {
        slider.value = String(Number(slider.value) + by);
        stage.style.setProperty("--border", `${slider.value}%`);
      },
    };
  }

  nagfarm.comparePlayer = comparePlayer;
}
