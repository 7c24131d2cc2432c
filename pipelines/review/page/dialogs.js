// What asks for a name or a track before something is decided, and the list of keys.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { ask } from "./api.js";
import { clock } from "./timeline.js";

// `onSubmit` returns whether the dialog is done.
function Dialog({ title, onClose, onSubmit, children, action }) {
  const box = useRef();
  useLayoutEffect(() => box.current.showModal(), []); // before the next key
  const submit = (event) => {
    event.preventDefault();
    if (onSubmit?.() !== false) box.current.close();
  };
  return html`<dialog ref=${box} onClose=${onClose} aria-labelledby="dialog-title">
    <form onSubmit=${submit}>
      <h2 id="dialog-title">${title}</h2>
      ${children}
      <menu>
        <button type="button" onClick=${() => box.current.close()}>${action ? "Cancel" : "Close"}</button>
        ${action && html`<button type="submit" class="primary">${action}</button>`}
      </menu>
    </form>
  </dialog>`;
}

export function Rename({ target, onDecide, onClose }) {
  const [name, setName] = useState(target.category);
  const input = useRef();
  useLayoutEffect(() => input.current.select(), []);
  const submit = () => {
    if (!name.trim()) return false;
    onDecide({ action: "rename", category: name.trim() });
    return true;
  };
  return html`<${Dialog} title=${`Rename track ${target.track_id}`} action="Rename" onSubmit=${submit} onClose=${onClose}>
    <label>
      Category
      <input ref=${input} list="categories" required value=${name} onInput=${(event) => setName(event.currentTarget.value)} />
    </label>
  <//>`;
}

export function Merge({ target, onDecide, onClose }) {
  const [tracks, setTracks] = useState([]);
  const [other, setOther] = useState("");
  const [problem, setProblem] = useState("");
  useEffect(() => {
    ask("video", { id: target.video_id }).then(
      ({ tracks: all }) => {
        const others = all.filter((each) => each.track_id !== target.track_id || target.split_at !== null);
        setTracks(others);
        setOther(String(others[0]?.track_id ?? ""));
        if (!others.length) setProblem("The video has no other track.");
      },
      (error) => setProblem(error.message),
    );
  }, []);
  const submit = () => {
    if (other === "") return false;
    onDecide({ action: "merge", merged_with: Number(other) });
    return true;
  };
  const when = ({ runs }) => (runs.length ? `${clock(runs[0][0])} to ${clock(runs.at(-1)[1])}` : "");
  return html`<${Dialog} title=${`Track ${target.track_id} belongs to …`} action="Merge" onSubmit=${submit} onClose=${onClose}>
    <label>
      Track of the same object
      <select
        value=${other}
        onChange=${(event) => setOther(event.currentTarget.value)}
        onKeyDown=${(event) => event.key === "Enter" && event.currentTarget.form.requestSubmit()}
      >
        ${tracks.map((each) => html`<option value=${each.track_id}>${each.track_id}: ${each.category}, ${when(each)}</option>`)}
      </select>
    </label>
    ${problem && html`<p role="status">${problem}</p>`}
  <//>`;
}

const DECIDE = [
  ["a", "accept"],
  ["r", "reject"],
  ["n", "rename"],
  ["m", "merge with another track"],
  ["s", "split at the playhead"],
  ["f", "follow an object that you show in the video"],
  ["u or Ctrl Z", "undo"],
];
const SEE = [
  ["Enter", "open the video"],
  ["Esc", "close the video"],
  ["Space", "play or pause"],
  [", and .", "frame back and forward"],
  ["l", "more like this"],
  ["v", "only this video"],
  ["/", "search"],
  ["arrows", "choose a track"],
  ["?", "these keys"],
];

export function Keys({ target, onClose }) {
  const keys = target.isReadOnly ? SEE : [...DECIDE, ...SEE];
  return html`<${Dialog} title="Keys" onClose=${onClose}>
    <dl class="keys">${keys.map(([key, text]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${text}</dd></div>`)}</dl>
  <//>`;
}
