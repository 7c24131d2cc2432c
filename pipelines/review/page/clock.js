// Which labelled frame belongs to what is on the screen.

const ROUNDING = 0.002; // seconds by which a browser's time of a frame may be off
const LATE_MS = 1000; // after which a frame is taken as shown, though the browser did not say so

// Index of the last labelled frame at or before a time; -1 if there is none, or the objects are out of sight since.
export function labelledAt({ times, ends }, time) {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= time + ROUNDING) low = middle + 1;
    else high = middle;
  }
  return low && time + ROUNDING < ends[low - 1] ? low - 1 : -1;
}

// Calls back with the time of each frame that a <video> shows, counted from its first frame.
export function watch(video, onFrame) {
  let origin = null; // time of the first frame: files need not begin at 0
  let wanted = null; // time that was sought before the first frame was there
  let stopped = false;
  const go = (time) => (video.currentTime = time + origin + ROUNDING / 2);
  const begin = (first) => {
    if (origin !== null) return;
    origin = first;
    if (wanted !== null) go(wanted);
  };
  const follow = (_, { mediaTime }) => {
    if (stopped) return;
    video.requestVideoFrameCallback(follow);
    begin(video.paused ? mediaTime : 0);
    onFrame(mediaTime - origin);
  };
  const poll = () => {
    if (stopped) return;
    onFrame(video.currentTime);
    requestAnimationFrame(poll);
  };
  // Of a frame that comes while the page is busy, the browser may tell nothing.
  const late = () => {
    if (stopped) return;
    begin(0);
    if (video.paused && !video.seeking) onFrame(Math.max(0, video.currentTime - origin));
  };
  if (video.requestVideoFrameCallback) {
    video.requestVideoFrameCallback(follow);
    for (const event of ["loadeddata", "seeked"]) video.addEventListener(event, () => setTimeout(late, LATE_MS));
  } else {
    begin(0);
    poll();
  }
  return {
    seek: (time) => (origin === null ? (wanted = time) : go(time)),
    stop: () => (stopped = true),
  };
}

// Plays frames that the server makes, one for each labelled frame; looks like what `watch` returns, with play and pause.
// `labelled` returns the video as it is labelled now.
export function projector(labelled, show, onFrame, onState) {
  let at = 0;
  let timer = null;
  const go = (index) => {
    const video = labelled();
    at = Math.max(0, Math.min(video.times.length - 1, index));
    show(video.frames[at]);
    onFrame(video.times[at]);
  };
  const pause = () => {
    clearTimeout(timer);
    timer = null;
    onState(false);
  };
  const next = () => {
    const video = labelled();
    if (at + 1 >= video.times.length) return pause();
    timer = setTimeout(
      () => {
        go(at + 1);
        next();
      },
      1000 * (video.times[at + 1] - video.times[at]),
    );
  };
  const play = () => {
    if (at + 1 >= labelled().times.length) go(0);
    onState(true);
    next();
  };
  if (labelled().times.length) go(0);
  return {
    seek: (time) => go(labelled().times.findLastIndex((each) => each <= time + ROUNDING)),
    toggle: () => (timer === null ? play() : pause()),
    pause,
    stop: pause,
  };
}
