// What is above and below the tracks: the search, what is found, and what can be done about a track.

import { html } from "./vendor/preact.js";
import { Field } from "./field.js";
import { MOST } from "./grid.js";

const NEXT_THEME = { auto: "dark", dark: "light", light: "auto" };
const THEMES = { auto: "◐ auto", dark: "● dark", light: "○ light" };

const DECIDE = [
  ["a", "✓ Accept", "Accept"],
  ["r", "✗ Reject", "Reject"],
  ["n", "✎ Rename", "Rename"],
  ["m", "⇢ Merge", "Merge"],
  ["s", "✂ Split", "Split at the playhead"],
  ["u", "↶ Undo", "Undo"],
];

const count = (number) => number.toLocaleString("en");

export function Top({ archive, box, reviewer, onReviewer, theme, onTheme, onSearch, onKeys }) {
  const isOff = Boolean(archive.search_off);
  const submit = (event) => {
    event.preventDefault();
    const text = box.current.value.trim();
    onSearch(text ? { text } : {});
  };
  const take = (event) => {
    const [image] = event.currentTarget.files;
    if (image) onSearch({ image, name: image.name });
    event.currentTarget.value = ""; // otherwise the same image could not be chosen again
  };
  return html`<header class="top">
    <h1>openvis review</h1>
    <form class="search" role="search" onSubmit=${submit}>
      <input
        ref=${box}
        type="search"
        aria-label="Search tracks by text"
        placeholder=${isOff ? "search is off" : "search, such as: red striped star"}
        disabled=${isOff}
      />
      <button type="submit" disabled=${isOff}>Search</button>
      <label class=${`file ${isOff ? "off" : ""}`}>
        Image …
        <input type="file" accept="image/*" disabled=${isOff} onChange=${take} />
      </label>
    </form>
    ${
      !archive.read_only &&
      html`<label class="who">
      <span>Reviewer</span>
      <${Field} value=${reviewer} placeholder=${archive.reviewer} onValue=${(name) => onReviewer(name.trim())} />
    </label>`
    }
    <button type="button" title="Theme" onClick=${() => onTheme(NEXT_THEME[theme])}>${THEMES[theme]}</button>
    <button type="button" aria-label="Keys" onClick=${onKeys}>?</button>
  </header>`;
}

export function Status({ archive, tracks, search, onSearch, notice, refused, onDismiss }) {
  const facts = [
    tracks && `${count(tracks.all)} of ${count(archive.tracks)} tracks`,
    tracks?.all > MOST && `the first ${count(MOST)} are shown`,
    `${count(archive.decided)} decided`,
    archive.stale > 0 && `${count(archive.stale)} stale`,
    archive.failed > 0 && `${count(archive.failed)} videos could not be labelled`,
  ];
  const sought = search.text ? `“${search.text}”` : search.name;
  const [reason] = refused;
  const lost =
    refused.length > 1
      ? `${count(refused.length)} decisions were refused, the first: ${reason}`
      : `A decision was refused: ${reason}`;
  return html`<div class="status" role="status" aria-live="polite">
    <span>${facts.filter(Boolean).join(", ")}</span>
    ${
      sought &&
      html`<span class="chip">
      similar to ${sought}
      <button type="button" aria-label="End the search" onClick=${() => onSearch({})}>✕</button>
    </span>`
    }
    ${archive.search_off && html`<span class="off">search is off: ${archive.search_off}</span>`}
    ${archive.read_only && html`<span class="off">decisions are off: ${archive.read_only}</span>`}
    ${
      reason &&
      html`<span class="refused">
      ${lost}
      <button type="button" aria-label="Dismiss what was refused" onClick=${onDismiss}>✕</button>
    </span>`
    }
    ${notice && html`<strong class="notice">${notice}</strong>`}
  </div>`;
}

export function Actions({ actions, isOpen, isReadOnly }) {
  const buttons = [
    ...(isReadOnly ? [] : DECIDE),
    ["l", "≈ Alike", "More like this"],
    isOpen ? ["Escape", "✕ Close", "Close the video"] : ["Enter", "► Open", "Open the video"],
  ];
  return html`<footer>
    <div class="actions" role="toolbar" aria-label=${isReadOnly ? "See" : "Decide"}>
      ${buttons.map(
        ([key, text, about]) =>
          html`<button type="button" onClick=${actions[key]} aria-keyshortcuts=${key} title=${`${about} (${key})`}>
            ${text}
          </button>`,
      )}
    </div>
  </footer>`;
}
