// The picture of a video with its masks over it, always those of the frame that is on the screen.

import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { ask, url } from "./api.js";
import { labelledAt, projector, watch } from "./clock.js";
import { paint, trackAt } from "./masks.js";

const CHUNK = 48; // labelled frames whose masks are read at a time
const KEPT = 12; // chunks
const RETRY_MS = 2000;

// The masks of a video, read in chunks.
class Masks {
  constructor(video) {
    Object.assign(this, { video, chunks: new Map() });
  }

  chunk(number) {
    if (!this.chunks.has(number)) {
      const frames = this.video.frames.slice(number * CHUNK, (number + 1) * CHUNK);
      if (!frames.length) return Promise.resolve({});
      const { video_id: id, followed } = this.video;
      const query = { id, first: frames[0], last: frames.at(-1), followed };
      const asked = ask("masks", query);
      const drop = () => this.chunks.get(number) === asked && this.chunks.delete(number);
      asked.catch(() => setTimeout(drop, RETRY_MS));
      this.chunks.set(number, asked);
      if (this.chunks.size > KEPT) this.chunks.delete(this.chunks.keys().next().value);
    }
    return this.chunks.get(number);
  }

  async at(index) {
    const number = Math.floor(index / CHUNK);
    const masks = (await this.chunk(number))[this.video.frames[index]] ?? [];
    this.chunk(number + 1).catch(() => {});
    return masks;
  }
}

// `control` receives seek(time), toggle() and pause(); `onTime` the time and the index of the labelled frame, or -1.
export function Stage({ video, chosen, pieceOf, control, onTime, onPick, onPlaying, children }) {
  const media = useRef();
  const canvas = useRef();
  const state = useRef({ owners: new Map(), index: -1, time: null });
  const [byFrames, setByFrames] = useState(!video.playable);
  const [picture, setPicture] = useState({}); // {image} of the frame on the screen, or {error}
  const current = useRef({});
  const labels = `${video.catalogue} ${video.frames.length}`; // other masks may come with others
  const masks = useMemo(() => new Masks(video), [labels]);
  const film = url("media", { id: video.video_id });
  useLayoutEffect(() => setByFrames(!video.playable), [film]);
  current.current = { masks, chosen, pieceOf, onTime };

  const draw = async (index) => {
    const { masks: read } = current.current;
    const isOver = () => !canvas.current || state.current.index !== index || current.current.masks !== read;
    const again = () => isOver() || draw(index);
    const found = index < 0 ? [] : await read.at(index).catch(() => (setTimeout(again, RETRY_MS), []));
    if (isOver()) return;
    state.current.owners = paint(canvas.current, found, current.current.chosen?.track_id);
    canvas.current.dataset.frame = index < 0 ? "" : read.video.frames[index];
  };
  const show = (time, isNew = false) => {
    const index = labelledAt(current.current.masks.video, time);
    if (isNew || index !== state.current.index) {
      state.current.index = index;
      draw(index);
    }
    state.current.time = time;
    current.current.onTime(time, index);
  };
  useEffect(() => {
    draw(state.current.index);
  }, [chosen?.track_id]);
  const load = async (frame) => {
    const image = new Image();
    image.src = url("frame", { id: video.video_id, frame });
    try {
      await image.decode();
      return { image };
    } catch {
      const answer = await fetch(image.src)
        .then((response) => response.json())
        .catch(() => ({}));
      return { error: answer.error ?? "the frame cannot be shown" };
    }
  };
  // Before the browser can show a frame: of one that is on the screen already, it tells nothing.
  useLayoutEffect(() => {
    if (byFrames) {
      const project = (loaded, time) => {
        setPicture(loaded);
        show(time);
      };
      const player = projector(() => current.current.masks.video, load, project, onPlaying);
      Object.assign(control.current, player);
      return player.stop;
    }
    const element = media.current;
    const watched = watch(element, show);
    Object.assign(control.current, {
      seek: watched.seek,
      toggle: watched.toggle,
      pause: () => element.pause(),
    });
    return watched.stop;
  }, [byFrames]);
  useEffect(() => {
    if (state.current.time === null) return;
    if (byFrames && masks.video.frames.length) control.current.seek(state.current.time);
    show(state.current.time, true);
  }, [labels]);

  const pick = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const scale = Math.min(box.width / video.width, box.height / video.height);
    const x = (event.clientX - box.left - (box.width - scale * video.width) / 2) / scale;
    const y = (event.clientY - box.top - (box.height - scale * video.height) / 2) / scale;
    const inside = x >= 0 && y >= 0 && x < video.width && y < video.height;
    const track = inside && trackAt(state.current.owners, Math.floor(x), Math.floor(y), video.height);
    if (track !== null && track !== false) onPick(track);
    else control.current.toggle();
  };
  return html`<div class="stage" style=${{ aspectRatio: `${video.width || 16} / ${video.height || 9}` }}>
    ${
      byFrames
        ? picture.image && html`<img class="picture" src=${picture.image.src} alt="" />`
        : html`<video
            class="picture"
            ref=${media}
            src=${film}
            muted
            playsinline
            preload="auto"
            tabindex="-1"
            onPlay=${() => onPlaying(true)}
            onPause=${() => onPlaying(false)}
            onError=${() => setByFrames(true)}
          ></video>`
    }
    ${byFrames && picture.error && html`<p class="missing" role="status">${picture.error}</p>`}
    <canvas class="masks" ref=${canvas} width=${video.width} height=${video.height} onClick=${pick}></canvas>
    ${children}
    ${
      byFrames &&
      picture.image &&
      html`<span class="hint">frames by the server: this browser cannot play the file</span>`
    }
  </div>`;
}
