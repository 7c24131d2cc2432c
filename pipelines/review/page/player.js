// A video with its tracks: playing, stepping, and deciding about one of them.

import { html, useEffect, useReducer, useRef, useState } from "./vendor/preact.js";
import { ask } from "./api.js";
import { FOLLOWED, Follow, Marker } from "./follow.js";
import { Stage } from "./stage.js";
import { Timeline, piecesOf, samePiece } from "./timeline.js";

const RETRY_MS = 2000;

const nameOf = ({ track_id: track }) => (track === FOLLOWED ? "followed" : `track ${track}`);

export function Player({
  videoId,
  catalogue,
  chosen,
  onChosen,
  control,
  version,
  reviewer,
  isReadOnly,
  onKept,
  onClose,
}) {
  const [video, setVideo] = useState(null);
  const [error, setError] = useState(null);
  const [tries, again] = useReducer((number) => number + 1, 0);
  const [time, setTime] = useState(0);
  const [playing, setPlaying] = useState(false);
  const index = useRef(-1);
  const aim = useRef(null); // labelled frame that was stepped to and is not on the screen yet
  const opened = useRef(null);
  const [following, setFollowing] = useState(null);
  const back = useRef(null); // where the picture that is loaded again for other masks has been
  const followed = following?.step === "found" ? following.followed : undefined;

  useEffect(() => {
    let timer = null;
    let gone = false;
    ask("video", { id: videoId, followed }).then(
      (answer) => gone || (setVideo({ ...answer, followed, catalogue }), setError(null)),
      (problem) => {
        if (gone) return;
        setError(problem.message);
        if (!(problem.status < 500)) timer = setTimeout(again, RETRY_MS);
      },
    );
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [videoId, catalogue, version, followed, tries]);
  const shown = `${videoId} ${video?.followed}`;
  useEffect(() => {
    if (back.current !== null) control.current.seek?.(back.current);
    back.current = null;
  }, [shown]);
  const pieces = video ? piecesOf(video) : [];
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
    const before = video.times.findLastIndex((each) => each <= time);
    const inGap = by < 0 ? before + 1 : before; // a step leads to one of its ends
    const from = aim.current ?? (index.current < 0 ? inGap : index.current);
    aim.current = Math.max(0, Math.min(video.times.length - 1, from + by));
    control.current.seek(video.times[aim.current]);
  };
  const toggle = () => {
    aim.current = null;
    control.current.toggle();
  };
  const follow = () => {
    if (following) return; // what was found is kept or discarded first
    control.current.pause();
    const at = index.current < 0 ? time : video.times[index.current]; // others see what is labelled in the same frames
    control.current.seek(at);
    setFollowing({ step: "mark", time: at });
  };
  // Returns whether there was something to cancel.
  const cancel = () => {
    if (following?.step !== "mark") return false;
    setFollowing(null);
    return true;
  };
  const update = (changes) =>
    setVideo((known) => {
      const own = changes.filter((each) => each.video_id === known?.video_id);
      const pieces = new Map(own.map((each) => [each.track_id, each.pieces]));
      const tracks = known?.tracks.map((track) => ({ ...track, pieces: pieces.get(track.track_id) ?? track.pieces }));
      return known && { ...known, tracks };
    });
  Object.assign(control.current, {
    step,
    update,
    follow,
    cancel,
    pieces,
    piece,
    frame: () => (index.current < 0 ? null : video.frames[index.current]),
  });
  const pick = (track) => {
    const frame = video.frames[Math.max(0, index.current)];
    const of = pieces.filter((each) => each.track_id === track && (each.split_at === null || each.split_at <= frame));
    onChosen(of.at(-1));
  };

  const problem = error && html`<p class="missing" role="status">${error}</p>`;
  if (!video) return html`<section class="player" aria-label="Video">${problem}</section>`;
  return html`<section class="player" aria-label="Video">
    <header>
      <h2 title=${video.video_id}>${video.name}</h2>
      <button type="button" onClick=${onClose} aria-label="Close the video">✕</button>
    </header>
    ${problem}
    ${video.status !== "ok" && html`<p class="missing">${video.error}</p>`}
    <${Stage}
      key=${shown}
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
    >
      ${
        following?.step === "mark" &&
        html`<${Marker} video=${video} onMarked=${(where) => setFollowing({ ...following, step: "name", where })} />`
      }
    <//>
    <div class="transport">
      <button type="button" onClick=${() => step(-1)} aria-label="Frame back">◂</button>
      <button type="button" onClick=${toggle} aria-label=${playing ? "Pause" : "Play"}>
        ${playing ? "❚❚" : "►"}
      </button>
      <button type="button" onClick=${() => step(1)} aria-label="Frame forward">▸</button>
      <span class="what">
        ${piece ? `${nameOf(piece)}: ${piece.track.category}, score ${piece.track.score.toFixed(2)}` : "no track chosen"}
      </span>
      ${
        !isReadOnly &&
        html`<button type="button" onClick=${follow} disabled=${Boolean(following)}>Follow an object</button>`
      }
    </div>
    <${Follow}
      video=${video}
      following=${following}
      onFollowing=${(next) => {
        if (followed && !next) {
          back.current = time;
          if (chosen.track_id === FOLLOWED) onChosen(following.before);
        }
        setFollowing(next);
      }}
      reviewer=${reviewer}
      onFound=${(name, track) => {
        back.current = time;
        setFollowing({ step: "found", followed: name, track, before: chosen });
        onChosen({ track_id: FOLLOWED, split_at: null });
      }}
      onKept=${(kept, isSearched) => {
        back.current = time;
        setFollowing(null);
        onKept(kept, isSearched);
      }}
    />
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
