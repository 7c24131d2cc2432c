// Which labelled frame belongs to what is on the screen.

const ROUNDING = 0.002; // seconds by which a browser's time of a frame may be off
const LATE_MS = 1000; // after which the browser is asked to show a frame again that it did not tell of

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
  let waiting = null; // what to do once it is known
  let told = false; // whether the browser said which frame is on the screen
  let again = false; // whether it was already asked to show it again
  let timer = null;
  let stopped = false;
  const begin = (first) => {
    if (origin !== null) return;
    origin = first;
    waiting?.();
  };
  const whenBegun = (act) => (origin === null ? (waiting = act) : act());
  const follow = (_, { mediaTime }) => {
    if (stopped) return;
    video.requestVideoFrameCallback(follow);
    told = !video.seeking;
    begin(mediaTime);
    onFrame(mediaTime - origin);
  };
  const poll = () => {
    if (stopped) return;
    onFrame(video.currentTime);
    requestAnimationFrame(poll);
  };
  // Of a frame that comes while the page is busy, the browser may tell nothing.
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(late, LATE_MS);
  };
  const late = () => {
    if (stopped || told || !video.paused || video.seeking) return;
    if (document.hidden) return wait(); // of what is not on the screen it tells nothing either
    if (!again) {
      again = true;
      video.currentTime = video.currentTime;
      return;
    }
    begin(0);
    onFrame(Math.max(0, video.currentTime - origin));
  };
  if (video.requestVideoFrameCallback) {
    video.requestVideoFrameCallback(follow);
    video.addEventListener("seeking", () => (told = false));
    for (const event of ["loadeddata", "seeked"]) video.addEventListener(event, wait);
  } else {
    begin(0);
    poll();
  }
  return {
    seek: (time) =>
      whenBegun(() => {
        again = false;
        video.currentTime = time + origin + ROUNDING / 2;
      }),
    toggle: () => whenBegun(() => (video.paused ? video.play() : video.pause())),
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
