// The bar that plays videos in step: play, single frames, time, speed.
"use strict";

{
  const { make, button } = nagfarm.dom;
  const RATES = [0.25, 0.5, 1, 2];

  // `actions`: toggle(), step(number), seek(time_s), setRate(rate). Returns {element, show(...)}.
  function transport(label, actions) {
    const play = button(label, "play", actions.toggle, { class: "play" });
    const time = make("input", {
      type: "range",
      min: 0,
      max: 1,
      step: 0.01,
      value: 0,
      "aria-label": "Time",
      on: { input: () => actions.seek(Number(time.value)) },
    });
    const clock = make("output", { class: "clock" }, "0.00 s");
    const rate = make(
      "select",
      {
        "aria-label": "Speed",
        on: { change: () => actions.setRate(Number(rate.value)) },
      },
      RATES.map((one) => make("option", { value: one, selected: one === 1 }, `${one}×`)),
    );
    const note = make("span", { class: "note" });
    const more = make("div", { class: "more" }, [
      button("One frame back", "stepBack", () => actions.step(-1)),
      time,
      button("One frame on", "stepOn", () => actions.step(1)),
      clock,
      rate,
      note,
    ]);
    const element = make(
      "div",
      { class: "transport", role: "group", "aria-label": label },
      play,
      more,
    );
    let wasPlaying = null;
    return {
      element,
      note,
      show(time_s, duration_s, isPlaying) {
        time.max = String(Math.max(duration_s, 0.01));
        time.value = String(time_s);
        clock.textContent = `${time_s.toFixed(2)} s`;
        if (isPlaying === wasPlaying) return;
        wasPlaying = isPlaying;
        play.replaceChildren(nagfarm.icon(isPlaying ? "pause" : "play"));
        play.setAttribute("aria-pressed", String(isPlaying));
      },
    };
  }

  nagfarm.transport = transport;
}
