// An object that a reviewer shows in the player is followed through the video; the track can be kept.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { ask } from "./api.js";

export const FOLLOWED = 999999; // track that nobody has kept yet
const POLL_MS = 500;
const CLICK = 5; // pixels of the screen that a pointer moves in a click
const ROUNDING = 0.001; // seconds by which a browser's time of a frame may be off

const post = (path, body) =>
  ask(path, {}, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

// Others need not wait for what nobody wants any more; of what was found, this changes nothing.
const unfollow = (followed) => post("unfollow", { followed }).catch(() => {});

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
    onPointerCancel=${() => setDrawn(null)}
  >
    ${sides && html`<div class="drawn" style=${sides}></div>`}
  </div>`;
}

// What is asked and told while an object is followed. `following` is {step, …}: mark, name, run or found.
export function Follow({ video, following, onFollowing, reviewer, onFound, onKept }) {
  const [error, setError] = useState(null);
  const [keeping, setKeeping] = useState(false);
  const latest = useRef(); // an answer counts only for what was asked last
  latest.current = following;
  const found = useRef(); // with where the player is then
  found.current = onFound;
  const marking = following?.step === "mark";
  const input = useRef();
  useLayoutEffect(() => input.current?.focus(), [following?.step]); // the name is typed at once
  const running = following?.step === "run" ? following.followed : null;
  const fail = (problem) => {
    setError(problem.message);
    onFollowing(null);
  };
  useEffect(() => setError(null), [video.video_id, marking]);
  useEffect(() => {
    if (!running) return undefined;
    let over = false;
    const unless = (act) => (value) => over || act(value);
    const timer = setInterval(
      () =>
        ask("followed", { followed: running }).then(
          unless((state) => {
            if (state.error) fail(new Error(state.error));
            else if (state.track) found.current(running, state.track);
            else onFollowing({ ...latest.current, ...state, away: null });
          }),
          unless((problem) => {
            if (problem.status < 500) fail(problem);
            else onFollowing({ ...latest.current, away: problem.message });
          }),
        ),
      POLL_MS,
    );
    return () => {
      over = true;
      clearInterval(timer);
      unfollow(running);
    };
  }, [running]);
  const start = (event) => {
    event.preventDefault();
    const name = new FormData(event.currentTarget).get("name").trim();
    const prompt = `${(following.time + ROUNDING).toFixed(6)}s: ${following.where} = ${name}`;
    setError(null);
    post("follow", { video_id: video.video_id, prompt }).then(
      ({ followed }) => {
        if (latest.current === following) onFollowing({ step: "run", followed, done: 0, total: 0 });
        else unfollow(followed); // it was cancelled meanwhile
      },
      (problem) => latest.current === following && setError(problem.message),
    );
  };
  const keep = (isSearched) => {
    setError(null);
    setKeeping(true);
    post("keep", { followed: following.followed, reviewer })
      .then((kept) => onKept(kept, isSearched), (problem) => setError(problem.message))
      .finally(() => setKeeping(false));
  };
  const give = (text) =>
    html`<button type="button" disabled=${keeping} onClick=${() => onFollowing(null)}>${text}</button>`;
  const problem = error && html`<p class="follow missing" role="alert">${error}</p>`;
  if (!following) return problem;
  if (following.step === "mark")
    return html`<p class="follow" role="status">Draw a box around the object, or click on it. ${give("Cancel")}</p>`;
  if (following.step === "name")
    return html`<form
      class="follow"
      onSubmit=${start}
      onKeyDown=${(event) => {
        if (event.key !== "Escape") return;
        event.stopPropagation(); // it would close the player, too
        onFollowing(null);
      }}
    >
      <label>Name of the object <input ref=${input} name="name" list="categories" required /></label>
      <button>Follow</button>${give("Cancel")}
    </form>${problem}`;
  if (following.step === "run") {
    const share = following.total ? `${following.done} of ${following.total} frames` : "starting";
    const away = following.away && `; trying again: ${following.away}`;
    return html`<p class="follow" role="status">Following the object: ${share}${away} ${give("Cancel")}</p>`;
  }
  return html`<p class="follow" role="status">
    Found in ${following.track.frames} frames.
    <button type="button" disabled=${keeping} onClick=${() => keep(false)}>Keep</button>
    <button type="button" disabled=${keeping} onClick=${() => keep(true)}>Keep, and find more like this</button>
    ${give("Discard")}
  </p>${problem}`;
}
