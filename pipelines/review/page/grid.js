// The tracks that were found, as pictures: only those in sight are in the document.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { ask, url } from "./api.js";
import { badgeOf } from "./decisions.js";

export const MOST = 100000; // tracks that can be scrolled to; browsers limit the height of what scrolls
const BLOCK = 60;
const CARD = 168; // least width of a card, pixels
const ROW = 214; // height of a row of cards, pixels
const SPARE = 2; // rows kept above and below those in sight
const RETRY_MS = 2000;

// Tracks of a result, read in blocks when they come into sight. `onGone` is called when the server no longer knows the
// result; `isAgain` tells that it replaces one that was shown.
export class Tracks {
  constructor({ found, total, catalogue }, onChange, onGone, isAgain) {
    Object.assign(this, { found, total: Math.min(total, MOST), all: total, catalogue, onChange, onGone, isAgain });
    this.blocks = new Map();
    this.stale = new Set(); // blocks to read again when they are in sight
    this.changes = []; // decisions so far; an answer may be older than some of them
  }

  at(index) {
    const block = this.blocks.get(Math.floor(index / BLOCK));
    return block && block[index % BLOCK];
  }

  lacks(block) {
    return !this.blocks.has(block) || this.stale.has(block);
  }

  need(first, last) {
    for (let block = Math.floor(first / BLOCK); block <= Math.floor(last / BLOCK); block++) {
      if (block >= 0 && block * BLOCK < this.total && this.lacks(block)) this.read(block);
    }
  }

  // Reads the tracks around an index.
  async around(index) {
    const block = Math.floor(index / BLOCK);
    const blocks = [block - 1, block, block + 1].filter((each) => each >= 0 && each * BLOCK < this.total);
    await Promise.all(blocks.map((each) => this.read(each)));
  }

  // Returns the index of a track; -1 if it is not among those read.
  indexOf({ video_id, track_id }) {
    for (const [block, rows] of this.blocks) {
      const at = rows.findIndex((row) => row.video_id === video_id && row.track_id === track_id);
      if (at >= 0) return block * BLOCK + at;
    }
    return -1;
  }

  async read(block) {
    const before = this.blocks.get(block);
    this.stale.delete(block);
    this.blocks.set(block, before ?? []); // what is shown stays until what is new is there
    const known = this.changes.length;
    try {
      this.blocks.set(block, await ask("rows", { found: this.found, offset: block * BLOCK, limit: BLOCK }));
      this.apply(this.changes.slice(known), [block]);
    } catch (error) {
      if (error.status === 404) this.onGone();
      setTimeout(() => {
        this.stale.add(block);
        this.onChange();
      }, RETRY_MS);
    }
    this.onChange();
  }

  update(changes) {
    this.changes.push(...changes);
    this.apply(changes, [...this.blocks.keys()]);
  }

  apply(changes, blocks) {
    const byTrack = new Map(changes.map((change) => [`${change.track_id} ${change.video_id}`, change.pieces]));
    for (const row of blocks.flatMap((block) => this.blocks.get(block))) {
      const pieces = byTrack.get(`${row.track_id} ${row.video_id}`);
      if (pieces) row.pieces = pieces;
    }
  }

  // Has all be read again: what is around an index at once.
  reread(index) {
    for (const block of this.blocks.keys()) this.stale.add(block);
    return this.around(index);
  }
}

export function Grid({ tracks, chosen, onChoose, onOpen, version }) {
  const box = useRef();
  const [view, setView] = useState({ top: 0, width: 800, height: 600 });
  const columns = Math.max(2, Math.floor(view.width / CARD));
  const rows = Math.ceil(tracks.total / columns);
  const first = Math.max(0, Math.floor(view.top / ROW) - SPARE);
  const last = Math.min(rows, Math.ceil((view.top + view.height) / ROW) + SPARE);

  useLayoutEffect(() => {
    const measure = () =>
      setView({ top: box.current.scrollTop, width: box.current.clientWidth, height: box.current.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(box.current);
    measure();
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (!tracks.isAgain) box.current.scrollTop = 0;
  }, [tracks]);
  useEffect(() => tracks.need(first * columns, last * columns - 1), [tracks, first, last, columns, version]);
  useEffect(() => {
    const row = Math.floor(chosen / columns);
    const { scrollTop, clientHeight } = box.current;
    if (row * ROW < scrollTop) box.current.scrollTop = row * ROW;
    else if ((row + 1) * ROW > scrollTop + clientHeight) box.current.scrollTop = (row + 1) * ROW - clientHeight;
  }, [chosen, columns]);

  const move = (event) => {
    const page = Math.max(1, Math.floor(view.height / ROW)) * columns;
    const steps = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: columns,
      ArrowUp: -columns,
      PageDown: page,
      PageUp: -page,
    };
    const ends = { Home: 0, End: tracks.total - 1 };
    if (event.key in steps || event.key in ends) {
      event.preventDefault();
      const target = event.key in ends ? ends[event.key] : chosen + steps[event.key];
      onChoose(Math.max(0, Math.min(tracks.total - 1, target)));
    } else if (event.key === "Enter") {
      event.preventDefault();
      onOpen(chosen);
    }
  };
  const cards = [];
  for (let index = first * columns; index < Math.min(last * columns, tracks.total); index++) {
    cards.push(html`<${Card}
      key=${`${tracks.found} ${index}`}
      index=${index}
      row=${tracks.at(index)}
      catalogue=${tracks.catalogue}
      total=${tracks.total}
      isChosen=${index === chosen}
      onChoose=${onChoose}
      onOpen=${onOpen}
      version=${version}
    />`);
  }
  return html`<div
    class="grid"
    ref=${box}
    tabindex="0"
    role="listbox"
    aria-label="Tracks"
    aria-activedescendant=${tracks.total ? `card-${chosen}` : undefined}
    onScroll=${(event) => setView({ ...view, top: event.currentTarget.scrollTop })}
    onKeyDown=${move}
  >
    ${!tracks.total && html`<p class="empty" role="option" aria-selected="false">No track passes these filters.</p>`}
    <div class="space" role="presentation" style=${{ height: `${rows * ROW}px` }}>
      <div
        class="cards"
        role="presentation"
        style=${{ transform: `translateY(${first * ROW}px)`, gridTemplateColumns: `repeat(${columns}, 1fr)` }}
      >
        ${cards}
      </div>
    </div>
  </div>`;
}

function Card({ index, row, catalogue, total, isChosen, onChoose, onOpen }) {
  const badge = row && badgeOf(row.pieces);
  const name = badge?.category ?? row?.category;
  return html`<div
    id=${`card-${index}`}
    class=${`card ${badge?.kind ?? ""}`}
    role="option"
    aria-selected=${isChosen}
    aria-setsize=${total}
    aria-posinset=${index + 1}
    onClick=${() => onChoose(index)}
    onDblClick=${() => onOpen(index)}
  >
    ${
      row
        ? html`<${Crop} row=${row} catalogue=${catalogue} />
          <span class="name" title=${name}>${name}</span>
          <span class="about">
            ${row.similarity === undefined ? row.score.toFixed(2) : `≈ ${row.similarity.toFixed(3)}`}
            <span class="video" title=${row.name}>${row.name}</span>
          </span>
          ${badge && html`<span class="badge">${badge.text}</span>`}`
        : html`<span class="crop waiting"></span>`
    }
  </div>`;
}

function Crop({ row, catalogue }) {
  const [error, setError] = useState(null);
  const source = url("crop", { id: row.video_id, track: row.track_id, of: catalogue });
  const explain = async () => {
    const answer = await fetch(source)
      .then((response) => response.json())
      .catch(() => ({}));
    setError(answer.error ?? "no picture");
  };
  useEffect(() => setError(null), [source]);
  if (error) return html`<span class="crop missing">${error}</span>`;
  return html`<img class="crop" src=${source} alt="" loading="lazy" decoding="async" onError=${explain} />`;
}
