// Filters, orders and similarity over the table of tracks, with the rules of the server's catalogue.

const SIMILAR = 2000; // tracks that a search returns

// Which columns a filter looks at, and what a track must fulfil.
function conditions(wanted, { names, numbers }) {
  const tests = [];
  const add = (columns, test) => tests.push({ columns, test });
  if (wanted.category !== undefined)
    add(["category", "given", "stale"], (row) =>
      (row.given !== null && !row.stale ? row.given : row.category) === wanted.category,
    );
  if (wanted.video !== undefined) {
    const number = numbers.get(wanted.video);
    add(["video"], (row) => row.video === number);
  }
  if (wanted.name !== undefined) {
    const part = wanted.name.toLowerCase();
    const having = new Set(names.flatMap((name, number) => (name.toLowerCase().includes(part) ? [number] : [])));
    add(["video"], (row) => having.has(row.video));
  }
  if (wanted.min_frames !== undefined) add(["frames"], (row) => row.frames >= Number(wanted.min_frames));
  const decided = (row) => row.action !== null && !row.stale;
  const decisions = {
    undecided: (row) => !decided(row),
    decided,
    stale: (row) => row.action !== null && row.stale,
  };
  if (wanted.decision !== undefined)
    add(["action", "stale"], decisions[wanted.decision] ?? ((row) => decided(row) && row.action === wanted.decision));
  return tests;
}

const ORDERS = {
  "-score": [], // that of the table
  score: ["score", (a, b) => a - b],
  "-uncertain": ["score", (a, b) => Math.abs(a - 0.5) - Math.abs(b - 0.5)],
  "-length": ["frames", (a, b) => b - a],
  length: ["frames", (a, b) => a - b],
  video: ["video", (a, b) => a - b],
};

// The rows that pass a filter, in its order. Scores descend, so most row groups pass or fail as a whole by them.
export async function find(table, wanted, videos) {
  const [low, high] = [Number(wanted.min_score ?? 0), Number(wanted.max_score ?? 1)];
  const tests = conditions(wanted, videos);
  const found = await Promise.all(
    table.groups.map(async (group, number) => {
      if (group.score.high < low || group.score.low > high) return [];
      const within = group.score.low >= low && group.score.high <= high;
      const all = within
        ? tests
        : [...tests, { columns: ["score"], test: ({ score }) => score >= low && score <= high }];
      const names = [...new Set(all.flatMap(({ columns }) => columns))];
      const columns = await table.read(number, names);
      const rows = [];
      for (let at = 0; at < group.rows; at++) {
        const row = Object.fromEntries(names.map((name) => [name, columns[name][at] ?? null]));
        if (all.every(({ test }) => test(row))) rows.push(group.start + at);
      }
      return rows;
    }),
  );
  return ordered(table, Int32Array.from(found.flat()), wanted.order ?? "-score");
}

async function ordered(table, rows, order) {
  const [column, compare] = ORDERS[order];
  if (!column) return rows;
  const keys = await gathered(table, rows, [...new Set([column, "video", "track_id"])]);
  const inTurn = (a, b) => keys.video[a] - keys.video[b] || keys.track_id[a] - keys.track_id[b];
  const places = rows.map((_, at) => at);
  places.sort((a, b) => compare(keys[column][a], keys[column][b]) || inTurn(a, b));
  return places.map((at) => rows[at]);
}

// Columns of some rows, which ascend, by name.
async function gathered(table, rows, columns) {
  const groups = [...new Set(Array.from(rows, (row) => table.groupOf(row)))];
  const read = new Map(await Promise.all(groups.map(async (group) => [group, await table.read(group, columns)])));
  return Object.fromEntries(
    columns.map((column) => [
      column,
      Array.from(rows, (row) => {
        const group = table.groupOf(row);
        return read.get(group)[column][row - table.groups[group].start];
      }),
    ]),
  );
}

let embeddings = null; // of all tracks, read once

// Of some rows those that are most similar to a track, best first, with their cosines; those of its model alone.
export async function alike({ data, dimension, archive, tracks }, like, rows) {
  if (archive.similar_off) throw new Error(`search: ${archive.similar_off}`);
  embeddings ??= fetch(`${data}/embeddings.bin`).then(async (response) => {
    if (!response.ok) throw new Error(`embeddings.bin: ${response.statusText}`);
    return new Int8Array(await response.arrayBuffer());
  });
  embeddings.catch(() => (embeddings = null));
  const codes = await embeddings;
  const sorted = Int32Array.from(rows).sort();
  const own = await gathered(tracks, [like], ["scale", "model"]);
  const { scale, model } = await gathered(tracks, sorted, ["scale", "model"]);
  const vector = codes.subarray(like * dimension, (like + 1) * dimension);
  const found = [];
  sorted.forEach((row, at) => {
    if (model[at] !== own.model[0]) return;
    let product = 0;
    const from = row * dimension;
    for (let i = 0; i < dimension; i++) product += codes[from + i] * vector[i];
    found.push([row, product * scale[at] * own.scale[0]]);
  });
  found.sort(([, a], [, b]) => b - a);
  const best = found.slice(0, SIMILAR);
  return { rows: Int32Array.from(best, ([row]) => row), cosines: best.map(([, cosine]) => cosine) };
}
