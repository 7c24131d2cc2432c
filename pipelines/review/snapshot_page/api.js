// What the page asks a server elsewhere, answered from the files of a snapshot; see the `api.js` of the server.

import { find, forget, alike } from "./find.js";
import { Table } from "./tables.js";

const MASKS = ["frame", "track_id", "counts"];
const SHOWN = ["video", "track_id", "category", "score", "first_frame", "last_frame", "frames", "pieces", "missing"];
const FOUND = 16; // results that can still be scrolled through
const KEPT = 16; // videos

export const newId = () => String(Math.random()).slice(2);

// Nothing is decided in a snapshot.
export class Outbox {
  waiting = 0;

  refused = [];

  decisions = [];

  add() {}
}

const once = (make) => {
  let made = null;
  const get = () => (made ??= make().catch((error) => ((made = null), Promise.reject(error))));
  return Object.assign(get, { clear: () => (made = null) });
};

async function json(path, options) {
  const response = await fetch(path, options);
  if (!response.ok) throw Object.assign(new Error(`${path}: ${response.statusText}`), { status: response.status });
  return response.json();
}

const current = () => json("snapshot.json", { cache: "no-cache" });

const opened = once(async () => {
  const snapshot = await current();
  if (!snapshot.data) throw new Error("This snapshot is not complete: it is being written, or that broke off.");
  return { ...snapshot, tracks: await Table.open(`${snapshot.data}/tracks.parquet`, snapshot.sizes.tracks) };
});

const videos = once(async () => {
  const { data, sizes } = await opened();
  const table = await Table.open(`${data}/videos.parquet`, sizes.videos);
  const { video_id: ids, name: names } = await table.values(["video_id", "name"], 0, table.size);
  return { ids, names, numbers: new Map(ids.map((id, number) => [id, number])) };
});

const folders = new Map(); // of the videos that the page knows, by id
const missing = new Map(); // why something has no picture, by video and track
const results = new Map();

function keep(map, key, value, most) {
  map.set(key, value);
  if (map.size > most) map.delete(map.keys().next().value);
  return value;
}

const read = new Map(); // what is told of a video, and its masks

async function about(id) {
  const { data } = await opened();
  const { numbers } = await videos();
  if (!numbers.has(id)) throw new Error(`video: ${id} is not in the snapshot`);
  const folder = `${data}/${String(numbers.get(id)).padStart(6, "0")}`;
  folders.set(id, folder);
  if (!read.has(id)) {
    const told = json(`${folder}/about.json`);
    told.catch(() => read.delete(id));
    keep(read, id, { told, masks: once(async () => Table.open(`${folder}/masks.parquet`, (await told).size)) }, KEPT);
  }
  return read.get(id);
}

const ANSWERS = {
  archive: async () => (await opened()).archive,

  async state() {
    await isReplaced((await opened()).data);
    return (await opened()).archive;
  },

  async find({ like, ...wanted }) {
    const snapshot = await opened();
    const rows = await find(snapshot.tracks, wanted, await videos());
    const found = like === undefined ? { rows } : await alike(snapshot, Number(like), rows);
    const name = newId();
    keep(results, name, found, FOUND);
    return { found: name, total: found.rows.length, catalogue: snapshot.data };
  },

  async rows({ found, offset, limit }) {
    const { tracks, data } = await opened();
    const { ids, names } = await videos();
    const { rows, cosines } = results.get(found) ?? {};
    if (!rows) throw Object.assign(new Error("this was found too long ago; search again"), { status: 404 });
    return Promise.all(
      Array.from(rows.slice(offset, offset + limit), async (row, at) => {
        const group = tracks.groupOf(row);
        const columns = await tracks.read(group, SHOWN);
        const place = row - tracks.groups[group].start;
        const { video, pieces, missing: reason, ...shown } = Object.fromEntries(
          SHOWN.map((name) => [name, columns[name][place]]),
        );
        folders.set(ids[video], `${data}/${String(video).padStart(6, "0")}`);
        if (reason) missing.set(`${ids[video]} ${shown.track_id}`, reason);
        const similarity = cosines && { similarity: cosines[offset + at] };
        const decided = { pieces: pieces ? JSON.parse(pieces) : [] };
        return { row, video_id: ids[video], name: names[video], ...shown, ...decided, ...similarity };
      }),
    );
  },

  async video({ id }) {
    const told = await (await about(id)).told;
    if (told.missing) missing.set(id, told.missing);
    return told;
  },

  async masks({ id, first, last }) {
    const { told, masks } = await about(id);
    const { frames, starts } = await told;
    const begin = frames.findIndex((frame) => frame >= first);
    const end = frames.findLastIndex((frame) => frame <= last) + 1;
    const { frame, track_id, counts } = await (await masks()).values(MASKS, starts[begin], starts[end]);
    const byFrame = {};
    frame.forEach((number, at) => {
      (byFrame[number] ??= []).push({ track_id: track_id[at], rle: { counts: counts[at] } });
    });
    return byFrame;
  },
};

// Returns whether other data lie in the folder now; if so, forgets what the page knows of those before.
async function isReplaced(data) {
  const { data: latest } = await current();
  if (latest !== data && (await opened()).data === data) forgetAll();
  return latest !== data;
}

// A snapshot that was written again has its files elsewhere. Rows of its tables have other numbers.
export async function ask(path, query = {}) {
  const entries = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const given = Object.fromEntries(entries);
  const { data } = await opened();
  try {
    return await ANSWERS[path](given);
  } catch (error) {
    if (error.status !== 404 || !(await isReplaced(data))) throw error;
    if (path === "rows" || given.like !== undefined) throw error;
    return ANSWERS[path](given);
  }
}

// The folders stay: a film that is shown keeps its address until that of the next is known.
function forgetAll() {
  forget();
  for (const known of [opened, videos, missing, results, read]) known.clear();
}

const sentence = (error) => `data:application/json,${encodeURIComponent(JSON.stringify({ error }))}`;

export function url(path, { id, track }) {
  const folder = folders.get(id);
  if (path === "crop") {
    const reason = missing.get(`${id} ${track}`);
    return reason ? sentence(reason) : `${folder}/${track}.jpg`;
  }
  if (path === "media") return `${folder}/film.mp4`;
  return sentence(missing.get(id) ?? "this browser cannot play the film of the video");
}
