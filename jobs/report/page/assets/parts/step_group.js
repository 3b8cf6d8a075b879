// Play several videos in step: one clock, and each video is set right when it leaves it. A video
// that is heard is the clock itself, since a change of its speed would be heard too.
//
// The clock runs as long as the longest video and begins again; a shorter one waits at its end.
"use strict";

{
  const MAX_DRIFT_S = 0.15; // below it, a seek would disturb more than it mends
  const MIN_DRIFT_S = 0.02; // beyond it, a video runs a little faster or slower
  const CHASE = 0.1; // by this share
  const SAME_S = 0.005; // less than any frame
  const END_S = 0.04; // before its end, so that a video shows its last frame

  class StepGroup {
    // `onTick(time_s, duration_s, isPlaying)` is called while the clock moves.
    constructor(onTick = () => {}) {
      this.videos = new Set();
      this.onTick = onTick;
      this.isPlaying = false;
      this.rate = 1;
      this.time_s = 0;
      this.lastTick = 0;
    }

    add(video) {
      video.loop = false;
      this.videos.add(video);
      video.addEventListener("loadedmetadata", () => this.align(video, 0), { once: true });
      // a seek that began while the video ran may end beside its goal; of a server that sends no
      // parts of files it always does, so this is tried once
      let tried_s = null;
      video.addEventListener("seeked", () => {
        if (this.isPlaying || tried_s === this.time_s) return;
        tried_s = this.time_s;
        this.align(video, SAME_S);
      });
    }

    remove(video) {
      this.videos.delete(video);
    }

    ready() {
      return [...this.videos].filter((video) => video.readyState >= 1);
    }

    get duration_s() {
      return Math.max(0, ...this.ready().map((video) => video.duration || 0));
    }

    play() {
      if (this.isPlaying) return;
      this.isPlaying = true;
      this.lastTick = performance.now();
      requestAnimationFrame((now) => this.tick(now));
    }

    pause() {
      this.isPlaying = false;
      for (const video of this.videos) this.align(video, 0);
      this.report();
    }

    toggle() {
      if (this.isPlaying) this.pause();
      else this.play();
    }

    seek(time_s) {
      this.time_s = Math.min(Math.max(time_s, 0), Math.max(this.duration_s - END_S, 0));
      for (const video of this.videos) this.align(video, 0);
      this.report();
    }

    // Stop, and go by single frames.
    step(num, fps) {
      this.pause();
      const frame = Math.round(this.time_s * fps) + num;
      this.seek((frame + 0.01) / fps);
    }

    setRate(rate) {
      this.rate = rate;
    }

    tick(now) {
      if (!this.isPlaying) return;
      const duration_s = this.duration_s;
      // a tab that slept does not catch up
      const passed_s = Math.min((now - this.lastTick) / 1000, 0.25) * this.rate;
      this.lastTick = now;
      const heard = this.ready().find((video) => !video.muted && !video.paused && !video.seeking);
      if (heard) {
        this.time_s = heard.currentTime;
      } else if (duration_s > 0 && this.ready().every((video) => video.readyState >= 2)) {
        this.time_s = (this.time_s + passed_s) % duration_s;
      }
      for (const video of this.videos) this.align(video, MAX_DRIFT_S);
      this.report();
      requestAnimationFrame((next) => this.tick(next));
    }

    align(video, allowed_s) {
      if (video.readyState < 1) return;
      const end_s = Math.max(video.duration - END_S, 0);
      const wanted_s = Math.min(this.time_s, end_s);
      const isRunning = this.isPlaying && this.time_s < end_s;
      const drift_s = video.currentTime - wanted_s;
      if (!isRunning && !video.paused) video.pause();
      const isFree = !this.isPlaying || !video.seeking; // a running seek ends before the next
      if (isFree && Math.abs(drift_s) > allowed_s) video.currentTime = wanted_s;
      const isOff = isRunning && Math.abs(drift_s) > MIN_DRIFT_S;
      const rate = this.rate * (isOff ? 1 - Math.sign(drift_s) * CHASE : 1);
      if (video.playbackRate !== rate) video.playbackRate = rate;
      if (isRunning && video.paused) play(video);
    }

    report() {
      this.onTick(this.time_s, this.duration_s, this.isPlaying);
    }
  }

  async function play(video) {
    try {
      await video.play();
    } catch (error) {
      // a browser may refuse sound before the first click; other errors: it was removed meanwhile
      if (error.name === "NotAllowedError") video.muted = true;
    }
  }

  nagfarm.StepGroup = StepGroup;
}
