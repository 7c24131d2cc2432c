// The review page.

import { html, render, useEffect, useMemo, useReducer, useRef, useState } from "./vendor/preact.js";
import { Outbox, ask } from "./api.js";
import { Actions, Status, Top } from "./bars.js";
import { badgeOf, badgeOfPiece, categoryOf, restoring } from "./decisions.js";
import { Keys, Merge, Rename } from "./dialogs.js";
import { Filters, NO_FILTER } from "./filters.js";
import { FOLLOWED } from "./follow.js";
import { Grid, Tracks } from "./grid.js";
import { Player } from "./player.js";
import { samePiece } from "./timeline.js";

const POLL_MS = 4000;
const SEARCHING = "Searching …";
const NARROW = "(max-width: 820px)";

const stored = (name, fallback) => JSON.parse(localStorage.getItem(name) ?? "null") ?? fallback;
const store = (name, value) => localStorage.setItem(name, JSON.stringify(value));

// The address says what is shown: the filter, and the video and the track in the player.
function fromHash() {
  const { open, track, ...filter } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  return {
    filter: { ...NO_FILTER, ...filter },
    opened: open ? { video_id: open, track_id: Number(track), split_at: null } : null,
  };
}

function toHash(filter, opened) {
  const given = Object.entries(filter).filter(([name, value]) => value !== NO_FILTER[name]);
  if (opened) given.push(["open", opened.video_id], ["track", opened.track_id]);
  try {
    history.replaceState(null, "", `${location.pathname}#${new URLSearchParams(given)}`);
  } catch {
    // some browsers refuse many changes within a few seconds; a later one says all
  }
}

function App() {
  const [archive, setArchive] = useState(null);
  const [filter, setFilter] = useState(() => fromHash().filter);
  const [search, setSearch] = useState({}); // {text}, {like, name} or {image}
  const [tracks, setTracks] = useState(null);
  const [chosen, setChosen] = useState(0); // index of a card
  const [opened, setOpened] = useState(() => fromHash().opened); // {video_id, track_id, split_at} in the player
  const [dialog, setDialog] = useState(null);
  const [message, setMessage] = useState("");
  const [version, changed] = useReducer((number) => number + 1, 0);
  const [reviewer, setReviewer] = useState(stored("openvis-reviewer", ""));
  const [theme, setTheme] = useState(stored("openvis-theme", "auto"));
  const control = useRef({});
  const box = useRef();
  const now = useRef({});
  const revision = useRef(null); // of the decisions that are shown
  const searching = useRef(null); // the latest search, until its answer is there
  const cause = useRef(null); // why the next search is made, if nobody asked for it
  const listed = useRef(null); // tells which tracks there were when what is shown was found
  const narrow = useMemo(() => matchMedia(NARROW).matches, []);

  const undoName = archive && `openvis-undo ${archive.labels}`;

  const readArchive = () =>
    ask("archive").then(
      (answer) => {
        revision.current ??= answer.revision;
        listed.current ??= answer;
        setArchive(answer);
        return answer;
      },
      (error) => setMessage(error.message),
    );
  useEffect(() => {
    readArchive();
    const follow = () => {
      const wanted = fromHash();
      setFilter(wanted.filter);
      setOpened(wanted.opened);
    };
    addEventListener("hashchange", follow); // a link that is opened in the same tab
    return () => removeEventListener("hashchange", follow);
  }, []);
  useEffect(() => toHash(filter, opened), [filter, opened]);
  const outbox = useMemo(() => {
    if (!archive) return null;
    return new Outbox(
      `openvis-outbox ${archive.labels}`,
      (changes) => {
        now.current.tracks?.update(changes);
        control.current.update?.(changes);
        readArchive();
        changed();
      },
      changed,
    );
  }, [archive?.labels]);

  // What handlers see that were made in an earlier render.
  now.current = { archive, tracks, chosen, opened, filter, search, undoName, reviewer };

  // Afterwards the first track is chosen or, if `isAgain`, the one that was, where it is still near.
  const find = (wanted, asked, isAgain = false) => {
    const query = Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== ""));
    const request = asked.image
      ? ask("find", query, { method: "POST", body: asked.image })
      : ask("find", { ...query, text: asked.text, like: asked.like });
    setMessage(cause.current ?? SEARCHING);
    cause.current = null;
    searching.current = request;
    const isLatest = () => searching.current === request;
    request.then(
      async (answer) => {
        const gone = () => {
          const { tracks: shown, filter: again, search: sought } = now.current;
          if (shown === found && !searching.current) find(again, sought, true);
        };
        const found = new Tracks(answer, changed, gone, isAgain);
        if (isAgain && isLatest()) await found.around(now.current.chosen);
        if (!isLatest()) return;
        searching.current = null;
        const was = isAgain && now.current.tracks?.at(now.current.chosen);
        setMessage((text) => (text === SEARCHING ? "" : text));
        setChosen(was ? Math.max(0, found.indexOf(was)) : 0);
        setTracks(found);
      },
      (error) => {
        if (!isLatest()) return;
        searching.current = null;
        setMessage(error.message);
      },
    );
  };
  useEffect(() => find(filter, search), [filter, search]);
  useEffect(() => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    store("openvis-theme", theme);
  }, [theme]);

  // Others decide, too.
  useEffect(() => {
    const timer = setInterval(async () => {
      const known = now.current.archive;
      if (!known) {
        if (await readArchive()) find(now.current.filter, now.current.search);
        return;
      }
      const state = await ask("state").catch(() => null);
      if (!state) return;
      const before = listed.current;
      const isListedAgain = state.catalogue !== before.catalogue;
      if (state.revision !== revision.current || state.search_off !== known.search_off || isListedAgain) {
        revision.current = state.revision;
        listed.current = state;
        await Promise.all([readArchive(), now.current.tracks?.reread(now.current.chosen)]);
        changed();
      }
      if (isListedAgain) {
        const { filter: wanted, search: asked } = now.current;
        cause.current = "The labels have changed since; what is shown is found again.";
        if (asked.like === undefined || state.numbering === before.numbering) find(wanted, asked, true);
        else setSearch({}); // its row has another number now
      }
    }, POLL_MS);
    return () => clearInterval(timer);
  }, []);

  // What a decision is about: the piece in the player, or the chosen card; null while what is chosen is not shown yet.
  const target = () => {
    const { opened: inPlayer, tracks: found, chosen: index } = now.current;
    const row = found?.at(index);
    if (found?.total && !row) return null;
    const piece = control.current.piece;
    if (inPlayer && piece) {
      const { video_id, track_id, split_at } = piece;
      const about = { video_id, track_id, split_at };
      const category = categoryOf(about, badgeOfPiece(piece.own), piece.category, outbox.decisions);
      return { ...about, category, label: piece.category, pieces: piece.track.pieces };
    }
    const isShown = !inPlayer || (row?.video_id === inPlayer.video_id && row.track_id === inPlayer.track_id);
    if (!row || !isShown) return null;
    const about = { video_id: row.video_id, track_id: row.track_id, split_at: null };
    const category = categoryOf(about, badgeOf(row.pieces), row.category, outbox.decisions);
    return { ...about, category, label: row.category, pieces: row.pieces };
  };
  const undoStack = () => stored(now.current.undoName, []);
  // Returns why nothing can be decided; null if it can.
  const readOnly = () => {
    const { read_only: reason } = now.current.archive;
    return reason && `Decisions cannot be stored: ${reason}`;
  };
  // Returns whether the decision is on its way.
  const decide = (decision, about = target()) => {
    const refuse = (text) => {
      setMessage(text);
      return false;
    };
    if (!about) return refuse("Choose a track first.");
    if (readOnly()) return refuse(readOnly());
    if (about.track_id === FOLLOWED) return refuse("Keep the track, or discard it, first.");
    const { video_id, track_id, split_at } = about;
    const latest = target(); // while a dialog was open, something may have been stored
    const { pieces } = samePiece(latest, about) && latest.video_id === video_id ? latest : about;
    const whole = { video_id, track_id, split_at, ...decision };
    store(now.current.undoName, [...undoStack(), [restoring(whole, pieces, outbox.decisions)]].slice(-200));
    setMessage("");
    outbox.add([whole], now.current.reviewer);
    return true;
  };
  const undo = () => {
    if (readOnly()) return setMessage(readOnly());
    const stack = undoStack();
    if (!stack.length) return setMessage("Nothing to undo.");
    const last = stack.pop();
    store(now.current.undoName, stack);
    outbox.add(last, now.current.reviewer);
    setMessage(`Undone: track ${last[0].track_id}.`);
    return undefined;
  };
  const judge = (action) => {
    const about = target();
    if (!about) return setMessage("Choose a track first.");
    const category = action === "accept" ? about.category : about.label;
    if (decide({ action, category }, about) && about.split_at === null) goTo(now.current.chosen + 1);
    return undefined;
  };
  const split = () => {
    const piece = now.current.opened ? control.current.piece : null;
    const frame = piece ? control.current.frame() : null;
    const about = target();
    if (frame === null || !about) return setMessage("Open the video, and go to the first frame of the new piece.");
    const first = about.split_at ?? piece.track.first_frame;
    if (frame <= first) return setMessage("The piece begins here; go to a later frame.");
    return decide({ action: "split", split_at: frame }, about);
  };
  const goTo = (index) => {
    const { tracks: found, opened: inPlayer } = now.current;
    if (!found?.total) return;
    const at = Math.max(0, Math.min(found.total - 1, index));
    setChosen(at);
    if (!inPlayer) return;
    const isLatest = () => now.current.tracks === found && now.current.chosen === at && now.current.opened;
    if (found.at(at)) open(at);
    else found.around(at).then(() => isLatest() && open(at));
  };
  const open = (index) => {
    const row = now.current.tracks?.at(index);
    if (!row) return;
    control.current.piece = undefined;
    setChosen(index);
    setOpened({ video_id: row.video_id, track_id: row.track_id, split_at: null });
  };
  const kept = async ({ video_id, track_id, row }, isSearched) => {
    if (now.current.opened?.video_id === video_id) setOpened({ video_id, track_id, split_at: null });
    listed.current = (await readArchive()) ?? listed.current;
    if (isSearched) setSearch({ like: row, name: `track ${track_id}` });
    else find(now.current.filter, now.current.search, true);
    changed();
  };
  const close = () => {
    setOpened(null);
    document.querySelector(".grid")?.focus();
  };
  const alike = () => {
    const about = target();
    const row = now.current.opened ? control.current.piece?.track.row : now.current.tracks?.at(now.current.chosen)?.row;
    if (row !== undefined && row !== null) setSearch({ like: row, name: `track ${about.track_id} (${about.category})` });
  };
  const askName = () => target() && setDialog({ kind: Rename, target: target() });
  const askTrack = () => target() && setDialog({ kind: Merge, target: target() });
  const only = () => {
    const about = target();
    if (about) setFilter({ ...now.current.filter, video: now.current.filter.video ? "" : about.video_id });
  };

  const actions = {
    a: () => judge("accept"),
    r: () => judge("reject"),
    n: askName,
    m: askTrack,
    s: split,
    u: undo,
    l: alike,
    v: only,
    f: () => now.current.opened && !now.current.archive.read_only && control.current.follow?.(),
    "/": () => box.current.focus(),
    "?": () => setDialog({ kind: Keys, target: { isReadOnly: Boolean(now.current.archive.read_only) } }),
    Enter: () => open(now.current.chosen),
    Escape: () => (now.current.opened && control.current.cancel?.()) || close(),
    " ": () => now.current.opened && control.current.toggle?.(),
    ",": () => now.current.opened && control.current.step?.(-1),
    ".": () => now.current.opened && control.current.step?.(1),
  };
  const keys = useRef();
  keys.current = actions;
  useEffect(() => {
    const press = (event) => {
      if (event.altKey || event.defaultPrevented) return;
      if (document.querySelector("dialog[open]")) return; // one that is closing no longer takes keys
      if (/^(input|select|textarea)$/i.test(event.target.tagName) && event.target.type !== "range") return;
      if (event.target.closest?.("button, summary") && [" ", "Enter"].includes(event.key)) return;
      const isUndo = (event.ctrlKey || event.metaKey) && event.key === "z";
      if ((event.ctrlKey || event.metaKey) && !isUndo) return;
      const act = keys.current[isUndo ? "u" : event.key];
      if (!act) return;
      event.preventDefault();
      if (!event.repeat || [",", "."].includes(event.key)) act(); // nobody decides about tracks that fly by
    };
    const drop = (event) => {
      event.preventDefault();
      const [file] = event.dataTransfer?.files ?? [];
      if (file && now.current.archive?.search_off) setMessage(now.current.archive.search_off);
      else if (file) setSearch({ image: file, name: file.name });
    };
    const over = (event) => event.preventDefault();
    document.addEventListener("keydown", press);
    document.addEventListener("drop", drop);
    document.addEventListener("dragover", over);
    return () => {
      document.removeEventListener("keydown", press);
      document.removeEventListener("drop", drop);
      document.removeEventListener("dragover", over);
    };
  }, []);

  if (!archive) return html`<p class="loading" role="status">${message || "Reading the archive …"}</p>`;
  const waiting = outbox?.waiting ?? 0;
  const notice =
    outbox?.error && waiting
      ? `${waiting} decisions are not stored yet, trying again: ${outbox.error}`
      : message;
  return html`
    <${Top}
      archive=${archive}
      box=${box}
      reviewer=${reviewer}
      onReviewer=${(name) => {
        store("openvis-reviewer", name);
        setReviewer(name);
      }}
      theme=${theme}
      onTheme=${setTheme}
      onSearch=${setSearch}
      onKeys=${actions["?"]}
    />
    <${Status} archive=${archive} tracks=${tracks} search=${search} onSearch=${setSearch} notice=${notice}
      refused=${outbox?.refused ?? []} onDismiss=${() => outbox.dismiss()} />
    <main class=${opened ? "with-player" : ""}>
      <${Filters} filter=${filter} categories=${archive.categories} duplicates=${archive.duplicates}
        onFilter=${setFilter} narrow=${narrow} />
      <section class="found" aria-label="Tracks found">
        ${tracks && html`<${Grid} ...${{ tracks, chosen, version, onChoose: goTo, onOpen: open }} />`}
      </section>
      ${
        opened &&
        html`<${Player}
        key=${opened.video_id}
        videoId=${opened.video_id}
        catalogue=${archive.catalogue}
        chosen=${opened}
        control=${control}
        version=${version}
        reviewer=${reviewer}
        isReadOnly=${Boolean(archive.read_only)}
        onKept=${kept}
        onClose=${close}
        onChosen=${(piece) => piece && setOpened({ ...opened, track_id: piece.track_id, split_at: piece.split_at })}
      />`
      }
    </main>
    <${Actions} actions=${actions} isOpen=${Boolean(opened)} isReadOnly=${Boolean(archive.read_only)} />
    <datalist id="categories">
      ${archive.categories.map(({ category }) => html`<option value=${category}></option>`)}
    </datalist>
    ${
      dialog &&
      html`<${dialog.kind}
      key=${dialog}
      target=${dialog.target}
      onClose=${() => setDialog((latest) => (latest === dialog ? null : latest))}
      onDecide=${(decision) => decide(decision, dialog.target)}
    />`
    }
  `;
}

render(html`<${App} />`, document.getElementById("app"));
