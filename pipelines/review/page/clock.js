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

// Plays frames that the server makes, one for each labelled frame; looks like what `watch` returns, with pause.
// `labelled` returns the video as it is labelled now, `load` promises the picture of a frame, and `show` takes a
// picture and its time.
export function projector(labelled, load, show, onState) {
  let at = 0; // index of the frame that was asked for last
  let asked = 0; // frames so far
  let shown = 0; // number of the one on the screen
  let playing = false;
  let timer = null;
  let stopped = false;
  const go = async (index) => {
    const { frames, times } = labelled();
    if (!times.length) return;
    clearTimeout(timer);
    at = Math.max(0, Math.min(times.length - 1, index));
    const [number, time] = [++asked, times[at]];
    const picture = await load(frames[at]);
    if (stopped || number < shown) return; // a later one was there first
    shown = number;
    show(picture, time);
    if (playing && number === asked) wait();
  };
  const wait = () => {
    const { times } = labelled();
    if (at + 1 >= times.length) return pause();
    timer = setTimeout(go, 1000 * (times[at + 1] - times[at]), at + 1);
  };
  const pause = () => {
    clearTimeout(timer);
    playing = false;
    onState(false);
  };
  const play = () => {
    const { times } = labelled();
    if (!times.length) return;
    playing = true;
    onState(true);
    if (at + 1 >= times.length) go(0);
    else if (shown === asked) wait();
  };
  go(0);
  return {
    seek: (time) => go(labelled().times.findLastIndex((each) => each <= time + ROUNDING)),
    toggle: () => (playing ? pause() : play()),
    pause,
    stop: () => {
      stopped = true;
      pause();
    },
  };
}
