"""How often are cuts found, and what is taken for one? Sequences are made from real videos without cuts.

python -m tests.benchmarks.shots --videos FOLDER

FOLDER has at least two videos of one shot each, the more the better; of each, at most 300 frames are read.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from openvis_model.shots import ShotState, begins_shot, thumbnails
from openvis_model.working_size import working_size
from pipelines.video.frames import read_frames

REPEATS = 60
SHORT_SIDE, DIVISOR = 192, 32
FADE = 12  # frames

Sequence = tuple[np.ndarray, range | None]
"""Frames, and where a cut may be found; None if there is none."""


class Sequences:
    """Makes sequences from clips.

    Args:
        clips: frames of each video, uint8 [T, h, w, 3].
    """

    def __init__(self, clips: list[np.ndarray]) -> None:
        self.clips = clips
        self.rng = np.random.default_rng(0)

    def shot(self, frames: int, clip: int | None = None) -> np.ndarray:
        pixels = self.clips[self.rng.integers(len(self.clips)) if clip is None else clip]
        start = self.rng.integers(max(1, len(pixels) - frames))
        return pixels[start : start + frames].astype(np.float32)

    def two(self, frames: int) -> tuple[np.ndarray, np.ndarray]:
        first, second = self.rng.choice(len(self.clips), 2, replace=False)
        return self.shot(frames, first), self.shot(frames, second)

    def cut(self, stride: int = 1) -> Sequence:
        first, second = (shot[::stride] for shot in self.two(20 * stride))
        return joined(first, second), range(len(first), len(first) + 1)

    def other_view(self) -> Sequence:
        """Two halves of one scene, the second one mirrored: much the same colours."""
        clip = self.rng.integers(len(self.clips))
        first, second = self.shot(10, clip), self.shot(10, clip)
        height, width = first.shape[1:3]
        box = height * 5 // 8, width // 2
        return (
            joined(crop(first, 0, 0, *box), crop(second, height * 3 // 8, width // 2, *box)[:, :, ::-1]),
            range(10, 11),
        )

    def partly(self, kind: str, black: int = 0) -> Sequence:
        """A scene of which much is black or white, maybe after black frames."""
        first, second = self.two(20)
        height, width = second.shape[1:3]
        rows, columns, level = {
            "night": (slice(None), slice(width // 2, None), 0),
            "product on white": (slice(height // 6, -height // 6), slice(width // 6, -width // 6), 255),
            "between pillars": (slice(None), slice(width // 6, -width // 6), 0),
        }[kind]
        shown = np.full_like(second, level)
        shown[:, rows, columns] = second[:, rows, columns]
        before = np.concatenate([first, np.zeros_like(first[:black])])
        return joined(before, shown), range(len(before), len(before) + 1)

    def fade(self, level: int) -> Sequence:
        first, second = self.two(30)
        weight = np.linspace(1, 0, FADE)[:, None, None, None]
        first[-FADE:] = level + (first[-FADE:] - level) * weight
        second[:FADE] = level + (second[:FADE] - level) * weight[::-1]
        return joined(first, second), range(30 - FADE // 2, 30 + FADE)

    def dissolve(self) -> Sequence:
        first, second = self.two(30)
        weight = np.linspace(0, 1, FADE)[:, None, None, None]
        first[-FADE:] = first[-FADE:] * (1 - weight) + second[:FADE] * weight
        return joined(first, second[FADE:]), range(30 - FADE, 31)

    def flash(self, gain: float, offset: float, frames: int) -> Sequence:
        shot, at = self.shot(30), self.rng.integers(5, 25)
        shot[at : at + frames] = shot[at : at + frames] * gain + offset
        return shot, None

    def light(self) -> Sequence:
        shot = self.shot(30)
        shot[15:] *= self.rng.choice((0.4, 0.6, 1.3, 1.6))
        return shot, None

    def shake(self, share: float) -> Sequence:
        shot = self.shot(20)
        margin = int(share * shot.shape[1])
        size = shot.shape[1] - margin, shot.shape[2] - margin
        moved = [crop(shot[i : i + 1], *self.rng.integers(0, margin + 1, 2), *size) for i in range(len(shot))]
        return np.concatenate(moved), None

    def pan(self, share: float) -> Sequence:
        shot = self.shot(40)
        height, width = shot.shape[1:3]
        room, window = width * 3 // 8, width * 5 // 8
        at = [int(abs((share * window * i + room) % (2 * room) - room)) for i in range(len(shot))]
        moved = [crop(shot[i : i + 1], 0, x, height, window) for i, x in enumerate(at)]
        return np.concatenate(moved), None


def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.concatenate([first, resized(second, *first.shape[1:3])])


def crop(frames: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    return resized(frames[:, top : top + height, left : left + width], *frames.shape[1:3])


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    return F.interpolate(pixels, (height, width), mode="bilinear", antialias=True).permute(0, 2, 3, 1).numpy()


def find(frames: np.ndarray) -> Iterator[int]:
    state = ShotState()
    for index, thumbnail in enumerate(thumbnails(np.clip(frames, 0, 255).astype(np.uint8))):
        cut, state = begins_shot(state, thumbnail)
        if cut:
            yield index


def report(name: str, make: Callable[[], Sequence]) -> None:
    found = false = frames = cuts = 0
    for _ in range(REPEATS):
        pixels, place = make()
        at = list(find(pixels))
        hits = sum(place is not None and index in place for index in at)
        cuts, found = cuts + (place is not None), found + min(hits, 1)
        false, frames = false + len(at) - min(hits, 1), frames + len(pixels)
    share = f"{found} of {cuts}" if cuts else "–"
    print(f"| {name} | {share} | {false} in {frames:,} frames |")


def read(path: Path) -> np.ndarray:
    size = lambda height, width: working_size(height, width, short_side=SHORT_SIDE, divisor=DIVISOR)  # noqa: E731
    return np.concatenate([batch.pixels for batch in islice(read_frames(str(path), size, batch_size=50), 6)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    torch.set_num_threads(1)
    clips = [read(path) for path in sorted(parser.parse_args().videos.iterdir())]
    make = Sequences(clips)
    print("| | cuts found | false |\n|---|---|---|")
    report("cuts", make.cut)
    report("cuts, every 9th frame", lambda: make.cut(9))
    report("cuts to another view of the same scene", make.other_view)
    report("fades through black", lambda: make.fade(0))
    report("fades through white", lambda: make.fade(255))
    report("dissolves", make.dissolve)
    report("flashes of 2 frames, ×1.5 + 40", lambda: make.flash(1.5, 40, 2))
    report("flashes of 1 frame, ×2 + 60", lambda: make.flash(2, 60, 1))
    report("flashes of 3 frames, ×3 + 100", lambda: make.flash(3, 100, 3))
    report("light switched, ×0.4 to ×1.6", make.light)
    for share in (0.1, 0.2, 0.3):
        report(f"shake by up to {share:.0%} of the height a frame", lambda share=share: make.shake(share))
    for share in (0.05, 0.2):
        report(f"pan by {share:.0%} of the width a frame", lambda share=share: make.pan(share))
    for kind in ("night", "product on white", "between pillars"):
        report(f"cuts, {kind}", lambda kind=kind: make.partly(kind))
        report(f"cuts, {kind}, after 3 black frames", lambda kind=kind: make.partly(kind, black=3))
    for stride in (1, 8, 30):
        false = sum(len(list(find(clip[::stride].astype(np.float32)))) for clip in clips)
        print(
            f"| the videos, frame by frame {stride} apart | – | {false} in {sum(len(c[::stride]) for c in clips):,} |"
        )
    frames = clips[0][:100]
    start = time.process_time()
    small = thumbnails(frames)
    middle, state = time.process_time(), ShotState()
    for thumbnail in small:
        _, state = begins_shot(state, thumbnail)
    end = time.process_time()
    print(f"\nCPU a frame: thumbnail {(middle - start) * 10:.2f} ms, comparison {(end - middle) * 10:.2f} ms")


if __name__ == "__main__":
    main()
