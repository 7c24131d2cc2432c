// What narrows and orders the tracks.

import { html } from "./vendor/preact.js";
import { Field } from "./field.js";

export const NO_FILTER = {
  category: "",
  name: "",
  min_score: "",
  max_score: "",
  min_frames: "",
  decision: "",
  duplicates: "",
  order: "-score",
  video: "",
};

const DECISIONS = [
  ["", "all"],
  ["undecided", "undecided"],
  ["decided", "decided"],
  ["accept", "accepted"],
  ["reject", "rejected"],
  ["rename", "renamed"],
  ["merge", "merged"],
  ["stale", "stale"],
];
const ORDERS = [
  ["-score", "highest score"],
  ["score", "lowest score"],
  ["-uncertain", "most uncertain"],
  ["-length", "longest"],
  ["length", "shortest"],
  ["video", "by video"],
];
const TOGETHER = ["duplicates", "duplicates together"];

const options = (pairs) => pairs.map(([value, text]) => html`<option value=${value}>${text}</option>`);

export function Filters({ filter, categories, duplicates, onFilter, narrow }) {
  const set = (name) => (value) => onFilter({ ...filter, [name]: value });
  const choose = (name) => (event) => set(name)(event.currentTarget.value);
  const number = (name, text, step, max) => html`<label>
    ${text}
    <${Field} type="number" min="0" max=${max} step=${step} value=${filter[name]} onValue=${set(name)} />
  </label>`;
  const onlyDuplicates = (event) => {
    const chosen = event.currentTarget.checked;
    onFilter({ ...filter, duplicates: chosen ? "true" : "", order: chosen ? "duplicates" : NO_FILTER.order });
  };
  const orders = duplicates > 0 ? [...ORDERS, TOGETHER] : ORDERS;
  const active = Object.keys(NO_FILTER).filter((name) => filter[name] !== NO_FILTER[name]).length;
  return html`<details class="filters" open=${!narrow}>
    <summary>Filters${active ? ` (${active})` : ""}</summary>
    <form onSubmit=${(event) => event.preventDefault()}>
      <label>Decision<select value=${filter.decision} onChange=${choose("decision")}>${options(DECISIONS)}</select></label>
      <label>
        Category
        <${Field} list="categories" value=${filter.category} onValue=${set("category")} placeholder="all" />
      </label>
      <label>
        Video
        <${Field} type="search" value=${filter.name} onValue=${set("name")} placeholder="part of the name" />
      </label>
      <div class="pair">${number("min_score", "Score from", 0.05, 1)}${number("max_score", "to", 0.05, 1)}</div>
      ${number("min_frames", "Frames, at least", 1)}
      <label>Order<select value=${filter.order} onChange=${choose("order")}>${options(orders)}</select></label>
      ${(duplicates > 0 || filter.duplicates) &&
      html`<label class="check">
        <input type="checkbox" checked=${filter.duplicates === "true"} onChange=${onlyDuplicates} /> only duplicates
        (${duplicates})
      </label>`}
      ${filter.video && html`<p class="only">only video ${filter.video}</p>`}
      <button type="button" disabled=${!active} onClick=${() => onFilter(NO_FILTER)}>Clear filters</button>
    </form>
    <ul class="categories" aria-label="Categories with most tracks">
      ${categories.slice(0, 40).map(
        ({ category, tracks, decided }) => html`<li key=${category}>
          <button
            type="button"
            aria-pressed=${filter.category === category}
            onClick=${() => onFilter({ ...filter, category: filter.category === category ? "" : category })}
          >
            <span>${category}</span> <span class="count">${decided ? `${decided}/` : ""}${tracks}</span>
          </button>
        </li>`,
      )}
    </ul>
  </details>`;
}
