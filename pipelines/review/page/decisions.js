// What is decided about a track, in words, and how a decision is taken back.

const SIGNS = { accept: "✓ accepted", reject: "✗ rejected", rename: "✎ renamed", merge: "⇢ merged", split: "✂ split" };

export const firstPiece = (pieces) => pieces.find((piece) => piece.split_at === null);

// The badge of a track, or of a piece of one: its kind, its text, and the category if that was given by a reviewer.
export function badgeOf(pieces) {
  if (!pieces.length) return null;
  const own = firstPiece(pieces);
  if (pieces.every((piece) => piece.stale)) return { kind: "stale", text: "stale: labelled again since" };
  const cuts = pieces.filter((piece) => piece.split_at !== null).length;
  const parts = [];
  if (own && !own.stale) {
    parts.push(own.action === "merge" ? `${SIGNS.merge} into ${own.merged_with}` : SIGNS[own.action]);
  }
  if (cuts) parts.push(`✂ ${cuts + 1} pieces`);
  const kind = own && !own.stale ? own.action : "split";
  const category = own && !own.stale && ["accept", "rename"].includes(own.action) ? own.category : undefined;
  return { kind, text: parts.join(", "), category };
}

// The badge of one piece, also of one within a track.
export const badgeOfPiece = (own) => badgeOf(own.map((each) => ({ ...each, split_at: null })));

const lastOf = ({ video_id, track_id, split_at }, decisions) =>
  decisions.findLast(
    (each) => each.video_id === video_id && each.track_id === track_id && each.split_at === split_at,
  );

// The category of a piece: that of the last decision that waits to be stored or, if none is about it, of its badge.
export function categoryOf(piece, badge, label, waiting) {
  const last = lastOf(piece, waiting);
  if (last) return ["accept", "rename"].includes(last.action) ? last.category : label;
  return badge?.category ?? label;
}

// The decision that brings back what counted before about a piece: the last of the decisions that wait to be stored or,
// if none is about it, what is stored.
export function restoring({ video_id, track_id, split_at }, pieces, waiting) {
  const before = lastOf({ video_id, track_id, split_at }, waiting) ?? pieces.find((piece) => piece.split_at === split_at && !piece.stale);
  if (!before) return { video_id, track_id, split_at, action: "clear" };
  const { action, category, merged_with, note } = before;
  return { video_id, track_id, split_at, action, category, merged_with, note };
}
