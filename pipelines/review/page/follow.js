// An object that a reviewer shows in the player is followed through the video; the track can be kept.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { ask } from "./api.js";

export const FOLLOWED = 999999; // track that nobody has kept yet
const POLL_MS = 500;
const CLICK = 5; // pixels of the screen that a pointer moves in a click
const ROUNDING = 0.001; // seconds by which a browser's time of a frame may be off

const post = (path, body) =>
  ask(path, {}, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

// Lies over the picture while an object is shown; `onMarked` receives `box …` or `point …` in pixels of the video.
export function Marker({ video, onMarked }) {
  const area = useRef();
  const [drawn, setDrawn] = useState(null); // corners on the screen, from the area's left and top
  const place = ({ clientX, clientY }) => {
    const { left, top, width, height } = area.current.getBoundingClientRect();
    return [Math.max(0, Math.min(width, clientX - left)), Math.max(0, Math.min(height, clientY - top))];
  };
  const pixels = ([x, y]) => {
    const { width, height } = area.current.getBoundingClientRect();
    const scale = Math.min(width / video.width, height / video.height);
    const inside = (at, side, size) => Math.max(0, Math.min(size, (at - (side - scale * size) / 2) / scale));
    return [inside(x, width, video.width), inside(y, height, video.height)];
  };
  const end = (event) => {
    if (!drawn) return;
    const [start, stop] = [drawn[0], place(event)];
    setDrawn(null);
    const [first, last] = [pixels(start), pixels(stop)];
    if (Math.hypot(stop[0] - start[0], stop[1] - start[1]) < CLICK) {
      const [x, y] = [Math.min(first[0], video.width - 1), Math.min(first[1], video.height - 1)].map(Math.floor);
      onMarked(`point ${x} ${y}`);
      return;
    }
    const low = [0, 1].map((at) => Math.floor(Math.min(first[at], last[at])));
    const high = [0, 1].map((at) => Math.ceil(Math.max(first[at], last[at])));
    if (high[0] > low[0] && high[1] > low[1])
      onMarked(`box ${low[0]} ${low[1]} ${high[0] - low[0]} ${high[1] - low[1]}`);
  };
  const sides = drawn && {
    left: `${Math.min(drawn[0][0], drawn[1][0])}px`,
    top: `${Math.min(drawn[0][1], drawn[1][1])}px`,
    width: `${Math.abs(drawn[0][0] - drawn[1][0])}px`,
    height: `${Math.abs(drawn[0][1] - drawn[1][1])}px`,
  };
  return html`<div
    class="marker"
    ref=${area}
    onPointerDown=${(event) => {
      event.currentTarget.setPointerCapture(event.pointerId);
      setDrawn([place(event), place(event)]);
    }}
    onPointerMove=${(event) => drawn && setDrawn([drawn[0], place(event)])}
    onPointerUp=${end}
  >
    ${sides && html`<div class="drawn" style=${sides}></div>`}
  </div>`;
}

// What is asked and told while an object is followed. `following` is {step, …}: mark, name, run or found.
export function Follow({ video, following, onFollowing, reviewer, onFound, onKept }) {
  const [error, setError] = useState(null);
  const fail = (problem) => {
    setError(problem.message);
    onFollowing(null);
  };
  useEffect(() => {
    if (following?.step !== "run") return undefined;
    const timer = setInterval(
      () =>
        ask("followed", { followed: following.followed }).then((state) => {
          if (state.error) fail(new Error(state.error));
          else if (state.track) onFound(following.followed, state.track);
          else onFollowing({ ...following, ...state });
        }, fail),
      POLL_MS,
    );
    return () => clearInterval(timer);
  }, [following]);
  const start = (event) => {
    event.preventDefault();
    const name = new FormData(event.currentTarget).get("name").trim();
    const prompt = `${(following.time + ROUNDING).toFixed(6)}s: ${following.where} = ${name}`;
    setError(null);
    post("follow", { video_id: video.video_id, prompt }).then(
      ({ followed }) => onFollowing({ step: "run", followed, done: 0, total: 0 }),
      fail,
    );
  };
  const keep = (isSearched) =>
    post("keep", { followed: following.followed, reviewer }).then((kept) => onKept(kept, isSearched), fail);
  const give = (text) => html`<button type="button" onClick=${() => onFollowing(null)}>${text}</button>`;
  if (!following) return error && html`<p class="follow missing" role="alert">${error}</p>`;
  if (following.step === "mark")
    return html`<p class="follow" role="status">Draw a box around the object, or click on it. ${give("Cancel")}</p>`;
  if (following.step === "name")
    return html`<form class="follow" onSubmit=${start}>
      <label>Name of the object <input name="name" list="categories" required autofocus /></label>
      <button>Follow</button>${give("Cancel")}
    </form>`;
  if (following.step === "run") {
    const share = following.total ? `${following.done} of ${following.total} frames` : "starting";
    return html`<p class="follow" role="status">Following the object: ${share} ${give("Cancel")}</p>`;
  }
  return html`<p class="follow" role="status">
    Found in ${following.track.frames} frames.
    <button type="button" onClick=${() => keep(false)}>Keep</button>
    <button type="button" onClick=${() => keep(true)}>Keep, and find more like this</button>
    ${give("Discard")}
  </p>`;
}
