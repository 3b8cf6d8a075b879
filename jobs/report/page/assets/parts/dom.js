// Make elements. Texts become text nodes, always: what strangers wrote never becomes HTML.
"use strict";

{
  // `properties`: `class`, `on` with listeners, `style` with CSS properties, `data`, attributes.
  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) set(element, name, value);
    element.append(...children.flat().filter((child) => child || child === 0));
    return element;
  }

  function set(element, name, value) {
    if (value === null || value === undefined || value === false) return;
    if (name === "class") element.className = value;
    else if (name === "on") {
      for (const [event, listener] of Object.entries(value)) {
        element.addEventListener(event, listener);
      }
    } else if (name === "style") {
      for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    } else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }

  // A text of any origin: its direction of writing is its own, and does not leave the element.
  function text(content, properties = {}, tag = "span") {
    return make(tag, { dir: "auto", ...properties }, content);
  }

  function button(label, icon, onClick, properties = {}) {
    return make(
      "button",
      {
        type: "button",
        title: label,
        "aria-label": label,
        on: { click: onClick },
        ...properties,
        class: `button ${properties.class ?? ""}`,
      },
      nagfarm.icon(icon),
    );
  }

  function clear(element, ...children) {
    element.replaceChildren(...children.flat().filter((child) => child || child === 0));
    return element;
  }

  // Say something to readers of screens, and show it for a moment.
  function say(message) {
    const place = document.querySelector("#message");
    if (!place) return;
    place.textContent = message;
    place.classList.add("is-shown");
    clearTimeout(say.timer);
    say.timer = setTimeout(() => place.classList.remove("is-shown"), 4000);
  }

  nagfarm.dom = { make, text, button, clear, say };
}
