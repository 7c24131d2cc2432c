// An input that tells its value when it is complete, and keeps what is being typed while the page changes around it.

import { html, useEffect, useState } from "./vendor/preact.js";

export function Field({ value, onValue, ...others }) {
  const [draft, setDraft] = useState(value);
  useEffect(() => setDraft(value), [value]);
  return html`<input
    ...${others}
    value=${draft}
    onInput=${(event) => setDraft(event.currentTarget.value)}
    onChange=${(event) => onValue(event.currentTarget.value)}
  />`;
}
