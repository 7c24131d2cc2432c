// A video with its tracks: playing, stepping, and deciding about one of them.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { ask } from "./api.js";
import { Stage } from "./stage.js";
import { Timeline, piecesOf, samePiece } from "./timeline.js";

export function Player({ videoId, chosen, onChosen, control, version, onClose }) {
  const [video, setVideo] = useState(null);
  const [error, setError] = useState(null);
  const [time, setTime] = useState(0);
  const [playing, setPlaying] = useState(false);
  const index = useRef(-1);
  const aim = useRef(null); // labelled frame that was stepped to and is not on the screen yet
  const opened = useRef(null);

  useEffect(() => {
    let gone = false;
    ask("video", { id: videoId }).then(
      (answer) => gone || (setVideo(answer), setError(null)),
      (problem) => gone || setError(problem.message),
    );
    return () => (gone = true);
  }, [videoId, version]);
  const pieces = video?.video_id === videoId ? piecesOf(video) : [];
  const piece =
    pieces.find((each) => samePiece(each, chosen)) ?? pieces.find((each) => each.track_id === chosen?.track_id);

  // A track that is opened is shown from where it begins.
  useEffect(() => {
    const key = `${videoId} ${chosen?.track_id}`;
    if (piece && opened.current !== key && control.current.seek) {
      opened.current = key;
      if (piece.runs.length && !piece.runs.some(([from, to]) => from <= time && time < to)) {
        control.current.seek(piece.runs[0][0]);
      }
    }
  });
  const step = (by) => {
    control.current.pause();
    aim.current = Math.max(0, Math.min(video.times.length - 1, (aim.current ?? index.current) + by));
    control.current.seek(video.times[aim.current]);
  };
  const toggle = () => {
    aim.current = null;
    control.current.toggle();
  };
  Object.assign(control.current, {
    step,
    pieces,
    piece,
    frame: () => (index.current < 0 ? null : video.frames[index.current]),
  });
  const pick = (track) => {
    const frame = video.frames[Math.max(0, index.current)];
    const of = pieces.filter((each) => each.track_id === track && (each.split_at === null || each.split_at <= frame));
    onChosen(of.at(-1));
  };

  if (error)
    return html`<section class="player" aria-label="Video"><p class="missing" role="status">${error}</p></section>`;
  if (!video || video.video_id !== videoId) return html`<section class="player" aria-label="Video"></section>`;
  return html`<section class="player" aria-label="Video">
    <header>
      <h2 title=${video.video_id}>${video.name}</h2>
      <button type="button" onClick=${onClose} aria-label="Close the video">✕</button>
    </header>
    ${video.status !== "ok" && html`<p class="missing">${video.error}</p>`}
    <${Stage}
      key=${videoId}
      video=${video}
      chosen=${chosen}
      control=${control}
      onPick=${pick}
      onPlaying=${setPlaying}
      onTime=${(now, at) => {
        index.current = at;
        if (at === aim.current) aim.current = null;
        setTime(now);
      }}
    />
    <div class="transport">
      <button type="button" onClick=${() => step(-1)} aria-label="Frame back">◂</button>
      <button type="button" onClick=${toggle} aria-label=${playing ? "Pause" : "Play"}>
        ${playing ? "❚❚" : "►"}
      </button>
      <button type="button" onClick=${() => step(1)} aria-label="Frame forward">▸</button>
      <span class="what">
        ${piece ? `track ${piece.track_id}: ${piece.track.category}, score ${piece.track.score.toFixed(2)}` : "no track chosen"}
      </span>
    </div>
    <${Timeline}
      video=${video}
      pieces=${pieces}
      chosen=${piece}
      time=${time}
      onPick=${onChosen}
      onSeek=${(to) => {
        aim.current = null;
        control.current.seek(to);
      }}
    />
  </section>`;
}
