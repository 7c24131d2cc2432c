// One row for each track of a video, with gaps where it is out of sight.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { badgeOfPiece } from "./decisions.js";
import { FOLLOWED } from "./follow.js";
import { css } from "./masks.js";

export const clock = (time) => `${Math.floor(time / 60)}:${(time % 60).toFixed(2).padStart(5, "0")}`;

export const samePiece = (a, b) => a && b && a.track_id === b.track_id && a.split_at === b.split_at;

// The pieces of a video's tracks, each with the times at which it is seen, and what was decided about it.
export function piecesOf(video) {
  const timeOf = new Map(video.frames.map((frame, index) => [frame, video.times[index]]));
  return video.tracks.flatMap((track) => {
    const cuts = track.pieces.filter((piece) => piece.split_at !== null && !piece.stale).map((piece) => piece.split_at);
    const starts = [null, ...cuts.sort((a, b) => a - b)];
    return starts.map((split_at, number) => {
      const from = split_at === null ? -Infinity : (timeOf.get(split_at) ?? -Infinity);
      const to = number + 1 < starts.length ? (timeOf.get(starts[number + 1]) ?? Infinity) : Infinity;
      const runs = track.runs
        .map(([start, end]) => [Math.max(start, from), Math.min(end, to)])
        .filter(([start, end]) => end > start);
      const own = track.pieces.filter((piece) => piece.split_at === split_at);
      return {
        track_id: track.track_id,
        split_at,
        video_id: video.video_id,
        category: track.category,
        runs,
        own,
        track,
      };
    });
  });
}

export function Timeline({ video, pieces, chosen, time, onPick, onSeek }) {
  const [zoom, setZoom] = useState(1);
  const rows = useRef();
  const total = Math.max(video.duration_s || 0, video.ends.at(-1) ?? 0, 0.01);
  const span = total / zoom;
  const start = Math.max(0, Math.min(total - span, time - span / 2));
  const part = (at) => `${(100 * (at - start)) / span}%`;
  const at = pieces.findIndex((piece) => samePiece(piece, chosen));

  useEffect(() => {
    rows.current?.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }, [at]);
  const move = (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps) {
      event.preventDefault();
      event.stopPropagation();
      onPick(pieces[Math.max(0, Math.min(pieces.length - 1, at + steps[event.key]))]);
    }
  };
  const seek = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    onSeek(start + (span * (event.clientX - box.left)) / box.width);
  };
  return html`<div class="timeline">
    <div class="scrub">
      <input
        type="range"
        min="0"
        max=${total}
        step="any"
        value=${time}
        aria-label="Position"
        aria-valuetext=${clock(time)}
        onInput=${(event) => onSeek(Number(event.currentTarget.value))}
      />
      <output class="time">${clock(time)} / ${clock(total)}</output>
      <button type="button" aria-label="Zoom out" disabled=${zoom <= 1} onClick=${() => setZoom(zoom / 2)}>−</button>
      <button type="button" aria-label="Zoom in" disabled=${zoom >= 64} onClick=${() => setZoom(zoom * 2)}>+</button>
    </div>
    <div class="rows" role="listbox" tabindex="0" aria-label="Tracks of this video" ref=${rows} onKeyDown=${move}
      aria-activedescendant=${at < 0 ? undefined : `piece-${at}`}>
      ${pieces.map((piece, number) => {
        const badge = badgeOfPiece(piece.own);
        return html`<div
          key=${`${piece.track_id} ${piece.split_at}`}
          id=${`piece-${number}`}
          class=${`piece ${badge?.kind ?? ""}`}
          role="option"
          aria-selected=${number === at}
          onClick=${() => onPick(piece)}
        >
          <span class="swatch" style=${{ background: css(piece.track_id) }}></span>
          <span class="label">
            ${piece.track_id === FOLLOWED ? "followed" : piece.track_id}${piece.split_at === null ? "" : ` from ${piece.split_at}`} ${badge?.category ?? piece.category}
            ${badge && html`<span class="mark"> ${badge.text}</span>`}
          </span>
          <span class="bars" onClick=${seek}>
            ${piece.runs
              .filter(([from, to]) => to > start && from < start + span)
              .map(
                ([from, to]) => html`<span
                  class="bar"
                  style=${{
                    left: part(Math.max(from, start)),
                    width: `${(100 * (Math.min(to, start + span) - Math.max(from, start))) / span}%`,
                    background: css(piece.track_id),
                  }}
                ></span>`,
              )}
            <span class="playhead" style=${{ left: part(Math.min(time, total)) }}></span>
          </span>
        </div>`;
      })}
    </div>
  </div>`;
}
