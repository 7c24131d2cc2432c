// Masks as COCO compressed run lengths, drawn on a canvas.

export function runs(counts) {
  const lengths = [];
  for (let at = 0; at < counts.length;) {
    let value = 0;
    let shift = 0;
    let code;
    do {
      code = counts.charCodeAt(at++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16 && shift < 32) value |= -1 << shift;
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(value);
  }
  return lengths;
}

// As the overlays of jobs.render: golden-ratio steps of hue keep the colours of consecutive ids far apart.
export function colour(track) {
  const hue = (track * 0.6180339887498949) % 1;
  const [saturation, value] = [
    [0.8, 1],
    [0.55, 1],
    [0.85, 0.8],
  ][track % 3];
  return [5, 3, 1].map((offset) => {
    const k = (offset + hue * 6) % 6;
    return Math.round(255 * (value - value * saturation * Math.max(0, Math.min(k, 4 - k, 1))));
  });
}

export const css = (track) => `rgb(${colour(track).join(" ")})`;

const FILL = 110; // of 255
const CHOSEN_FILL = 165;

// Paints masks ({track_id, rle}); returns a map of pixels to tracks for `trackAt`, column by column.
export function paint(canvas, masks, chosen) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  const owners = new Map();
  if (!masks.length) return owners;
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (const { track_id: track, rle } of masks) {
    const [red, green, blue] = colour(track);
    const rgb = (blue << 16) | (green << 8) | red;
    const fill = ((track === chosen ? CHOSEN_FILL : FILL) << 24) | rgb;
    const edge = (255 << 24) | rgb;
    const spans = [];
    let at = 0;
    runs(rle.counts).forEach((length, number) => {
      if (number % 2) {
        spans.push(at, at + length);
        for (let each = at; each < at + length; each++) {
          const row = each % height;
          const isEdge = each === at || each === at + length - 1 || row === 0 || row === height - 1;
          pixels[row * width + ((each / height) | 0)] = isEdge ? edge : fill;
        }
      }
      at += length;
    });
    owners.set(track, spans);
  }
  context.putImageData(image, 0, 0);
  return owners;
}

export function trackAt(owners, x, y, height) {
  const at = x * height + y;
  let found = null;
  for (const [track, spans] of owners) {
    for (let i = 0; i < spans.length; i += 2) if (spans[i] <= at && at < spans[i + 1]) found = track;
  }
  return found;
}
