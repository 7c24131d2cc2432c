// Filters, orders and similarity over the table of tracks, with the rules of the server's catalogue.

const SIMILAR = 2000; // tracks that a search returns

// Of a filter the columns that it looks at, each with a function that makes of them a test for places in a row group.
function conditions(wanted, { names, numbers }) {
  const tests = [];
  const add = (columns, test) => tests.push({ columns, test });
  if (wanted.category !== undefined)
    add(["category", "given", "stale"], ({ category, given, stale }) => (at) =>
      ((!stale[at] && given[at]) || category[at]) === wanted.category,
    );
  if (wanted.video !== undefined) {
    const number = numbers.get(wanted.video);
    add(["video"], ({ video }) => (at) => video[at] === number);
  }
  if (wanted.name !== undefined) {
    const part = wanted.name.toLowerCase();
    const having = new Set(names.flatMap((name, number) => (name.toLowerCase().includes(part) ? [number] : [])));
    add(["video"], ({ video }) => (at) => having.has(video[at]));
  }
  if (wanted.min_frames !== undefined) {
    const least = Number(wanted.min_frames);
    add(["frames"], ({ frames }) => (at) => frames[at] >= least);
  }
  if (wanted.decision !== undefined)
    add(["action", "stale"], ({ action, stale }) => {
      const counts = (at) => Boolean(action[at]) && !stale[at];
      const decisions = {
        undecided: (at) => !counts(at),
        decided: counts,
        stale: (at) => Boolean(action[at]) && stale[at],
      };
      return decisions[wanted.decision] ?? ((at) => counts(at) && action[at] === wanted.decision);
    });
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
      const scored = { columns: ["score"], test: ({ score }) => (at) => score[at] >= low && score[at] <= high };
      const all = within ? tests : [...tests, scored];
      const columns = await table.read(number, [...new Set(all.flatMap((each) => each.columns))]);
      const passes = all.map(({ test }) => test(columns));
      const rows = [];
      for (let at = 0; at < group.rows; at++) {
        if (passes.every((pass) => pass(at))) rows.push(group.start + at);
      }
      return rows;
    }),
  );
  return ordered(table, Int32Array.from(found.flat()), wanted.order ?? "-score");
}

async function ordered(table, rows, order) {
  const [column, compare] = ORDERS[order] ?? ORDERS["-score"]; // the address may ask for that of an archive
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

export const forget = () => (embeddings = null);

// Of some rows those that are most similar to a track, best first, with their cosines; those of its model alone.
export async function alike({ data, dimension, archive, tracks }, like, rows) {
  if (archive.similar_off) throw new Error(`search: ${archive.similar_off}`);
  embeddings ??= fetch(`${data}/embeddings.bin`).then(async (response) => {
    if (!response.ok) throw Object.assign(new Error(`embeddings.bin: ${response.statusText}`), { status: response.status });
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
