// Load the data scripts: the one place that adds scripts to the page.
//
// A page from disk may not fetch, so data are scripts that call index(), part() or details(). The
// value belongs to the script element that runs at that moment.
"use strict";

const nagfarm = {};
window.nagfarm = nagfarm;

{
  const received = new WeakMap();
  const receive = (value) => received.set(document.currentScript, value);

  nagfarm.index = receive;
  nagfarm.part = (number, value) => receive(value);
  nagfarm.details = (number, value) => receive(value);

  nagfarm.loadData = (file, { isFresh = false } = {}) =>
    new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `data/${encodeURIComponent(file)}${isFresh ? `?t=${Date.now()}` : ""}`;
      script.onload = () => {
        script.remove();
        const value = received.get(script);
        if (value === undefined) reject(new Error(`data/${file} is damaged: write it again`));
        else resolve(value);
      };
      script.onerror = () => {
        script.remove();
        reject(new Error(`data/${file} cannot be loaded`));
      };
      document.head.append(script);
    });
}
