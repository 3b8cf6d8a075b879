// The overlay that lists the keys.
"use strict";

{
  const { make, button } = nagfarm.dom;
  const NAMES = {
    " ": "Space",
    ArrowLeft: "← →",
    ArrowUp: "↑",
    ArrowDown: "↓",
    ArrowRight: "→",
    PageUp: "Page up",
    PageDown: "Page down",
    Escape: "Esc",
  };

  function help() {
    const body = make("div", { class: "help-columns" });
    const dialog = make(
      "dialog",
      { class: "help", "aria-label": "Keys" },
      make(
        "header",
        {},
        make("h2", {}, "Keys"),
        button("Close", "close", () => dialog.close()),
      ),
      body,
    );
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    return {
      element: dialog,
      fill(keys) {
        const section = (title, where) =>
          make(
            "section",
            {},
            make("h3", {}, title),
            make(
              "dl",
              {},
              keys
                .filter((one) => one.label && (one.where ?? null) === where)
                .flatMap((one) => [
                  make(
                    "dt",
                    {},
                    one.keys.map((key) => make("kbd", {}, keyName(key, where))),
                  ),
                  make("dd", {}, one.label),
                ]),
            ),
          );
        body.replaceChildren(
          section("Everywhere", null),
          section("Among clips", ""),
          section("On a clip's page", "clip"),
        );
      },
      toggle() {
        if (dialog.open) dialog.close();
        else dialog.showModal();
      },
      get isOpen() {
        return dialog.open;
      },
    };
  }

  function keyName(key, where) {
    if (where === "" && key === "ArrowLeft") return "← → ↑ ↓";
    if (key === "ArrowLeft") return "←";
    return NAMES[key] ?? key.toUpperCase();
  }

  nagfarm.help = help;
}
