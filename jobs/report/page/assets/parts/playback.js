// Decide which tiles have a video: the one under the pointer, or all that are seen, in step.
//
// A browser holds a limited number of videos. All others are pictures.
"use strict";

{
  const HOVER_MS = 70; // a pointer that only passes starts nothing
  const MAX_IN_STEP = matchMedia("(pointer: coarse)").matches ? 12 : 60;

  class Playback {
    constructor(onTick) {
      this.group = new nagfarm.StepGroup(onTick);
      this.isInStep = false;
      this.hovered = null;
      this.timer = null;
      this.root = null; // the element whose tiles play
    }

    listen(root) {
      root.addEventListener("pointerover", (event) => {
        if (event.pointerType !== "touch") this.point(event.target.closest?.(".tile"));
      });
      root.addEventListener("pointerleave", () => this.point(null));
      root.addEventListener("focusin", (event) => {
        if (event.target.matches(":focus-visible")) this.point(event.target.closest(".tile"));
      });
    }

    point(tile) {
      clearTimeout(this.timer);
      if (tile === this.hovered) return;
      this.timer = setTimeout(() => this.hover(tile), HOVER_MS);
    }

    hover(tile) {
      if (this.hovered && !this.isInStep) removeVideo(this.hovered);
      this.hovered = tile;
      if (!tile || this.isInStep || !tile.isConnected) return;
      const video = addVideo(tile);
      if (!video) return;
      video.loop = true;
      video.play().catch(() => {}); // the pointer left
    }

    startInStep(root) {
      this.hover(null);
      this.root = root;
      this.isInStep = true;
      this.update();
      this.group.seek(0);
      this.group.play();
    }

    stopInStep() {
      this.isInStep = false;
      this.group.pause();
      for (const video of this.group.videos) {
        this.group.remove(video);
        removeVideo(video.closest(".tile"));
      }
      this.root = null;
    }

    // Give the tiles that are seen now their video. Return {num, numSeen}.
    update() {
      if (!this.isInStep) return { num: 0, numSeen: 0 };
      const seen = [...this.root.querySelectorAll(".tile[data-source]")].filter(isSeen);
      const wanted = new Set(seen.slice(0, MAX_IN_STEP));
      for (const video of [...this.group.videos]) {
        const tile = video.closest(".tile");
        if (video.isConnected && wanted.has(tile)) continue;
        this.group.remove(video);
        if (tile) removeVideo(tile);
      }
      for (const tile of wanted) {
        if (tile.querySelector("video:not(.still)")) continue;
        this.group.add(addVideo(tile));
      }
      return { num: wanted.size, numSeen: seen.length };
    }
  }

  function isSeen(tile) {
    const box = tile.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  }

  function addVideo(tile) {
    if (!tile.dataset.source) return null;
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    video.disableRemotePlayback = true;
    video.tabIndex = -1;
    video.setAttribute("aria-hidden", "true");
    video.src = tile.dataset.source;
    // until its first frame is there, the picture below shows
    video.addEventListener("loadeddata", () => video.classList.add("is-shown"), { once: true });
    tile.querySelector(".picture").append(video);
    return video;
  }

  function removeVideo(tile) {
    const video = tile?.querySelector("video:not(.still)");
    if (!video) return;
    video.pause();
    video.removeAttribute("src"); // frees the decoder now, not at the next collection
    video.load();
    video.remove();
  }

  nagfarm.Playback = Playback;
}
