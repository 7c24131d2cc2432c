"""Tracks of one video: birth, gaps, end, and what is known of each track so far.

Memory grows with the objects in sight, not with the length of the video: a track keeps running sums only, and leaves
when it has ended.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openvis_model.association import Association, Memory, assign, build_association
from openvis_model.instances import Instances
from openvis_model.options import VideoTrackerConfig
from openvis_model.rollout_tracker import RolloutTracker
from openvis_model.vocabulary import VocabularyEmbedding

NO_TRACK = -1
"""Track id of an instance that belongs to no track."""


@dataclass(frozen=True)
class Track:
    """A finished track.

    Attributes:
        track_id: unique within the video, in order of first sight.
        first_frame: index of the first frame in which it was seen.
        last_frame: index of the last one.
        frames: number of frames in which it was seen.
        objectness: mean over its frames.
        embedding: mean of its instance tokens weighted by objectness, unit norm.
        scores: for each category, objectness · class probability of the embedding (Eq. 4), so that the scores in any
            other vocabulary follow from what is stored.
    """

    track_id: int
    first_frame: int
    last_frame: int
    frames: int
    objectness: float
    embedding: Float[Tensor, " D"]
    scores: Float[Tensor, " K"]

    def top(self, k: int) -> list[tuple[int, float]]:
        """The k best (category index, score), best first."""
        scores, categories = self.scores.topk(min(k, len(self.scores)))
        return list(zip(categories.tolist(), scores.tolist(), strict=True))


class Slots(NamedTuple):
    """Running state, one row per slot; a slot has a track once its instance was seen.

    `gap` counts the frames since the slot last took in an instance, see `VideoTracker.link`.
    """

    gap: Int[Tensor, " M"]
    track_id: Int[Tensor, " M"]
    first_frame: Int[Tensor, " M"]
    last_frame: Int[Tensor, " M"]
    frames: Int[Tensor, " M"]
    objectness_sum: Float[Tensor, " M"]
    embedding_sum: Float[Tensor, "M D"]


@dataclass(frozen=True)
class TrackerState:
    """Everything that a video's tracking carries from one frame to the next; plain tensors, picklable."""

    memory: Memory | None = None
    slots: Slots | None = None
    next_track_id: int = 0
    frame: int = -1


@dataclass(frozen=True)
class TrackedFrame:
    """What one frame brought.

    Attributes:
        track_ids: the track of each instance, `NO_TRACK` for those that are in none.
        ended: tracks that were out of sight for too long.
    """

    track_ids: Int[np.ndarray, " n"]
    ended: list[Track]


class VideoTracker:
    """Links the instances of successive frames into tracks; holds no state itself, so one serves many videos.

    Args:
        config: when tracks begin and end.
        vocabulary: what tracks may be called.
        rollout_tracker: the trained tracker, for `rollout` association.
    """

    def __init__(
        self,
        config: VideoTrackerConfig,
        vocabulary: VocabularyEmbedding,
        rollout_tracker: RolloutTracker | None = None,
    ) -> None:
        self.config = config
        self.vocabulary = vocabulary
        self.association: Association = build_association(config.association, rollout_tracker)

    @torch.inference_mode()
    def step(self, state: TrackerState, frame: int, instances: Instances) -> tuple[TrackerState, TrackedFrame]:
        """Takes in the next frame; `frame` is its index in the video.

        A track ends when its gap exceeds `max_gap`. Its slot leaves with it, unless an instance is matched to it in
        this frame: then it keeps its memory and may begin a new track. So runs that hand over all N instances of every
        frame and refuse no match have N slots throughout.

        Raises:
            ValueError: for a frame that does not come after the last one, or instances in another embedding space than
                the vocabulary.
        """
        if frame <= state.frame:
            raise ValueError(f"frame: expected one after {state.frame}, got {frame}; frames must come in order")
        if instances.instance_tokens.shape[1] != self.vocabulary.embeddings.shape[1]:
            raise ValueError(
                f"vocabulary: embedded in {self.vocabulary.embeddings.shape[1]} dimensions, instances in "
                f"{instances.instance_tokens.shape[1]}; embed it with the text encoder of the same model"
            )
        memory, slots, slot_of = self.link(state, instances)
        alive = self._alive(instances)
        seen = slot_of[alive]

        born = seen[slots.track_id[seen] == NO_TRACK]
        next_track_id = state.next_track_id + len(born)
        new_ids = torch.arange(state.next_track_id, next_track_id)
        objectness, tokens = instances.objectness[alive], instances.instance_tokens[alive]
        slots = Slots(
            gap=slots.gap,
            track_id=slots.track_id.index_copy(0, born, new_ids),
            first_frame=slots.first_frame.index_fill(0, born, frame),
            last_frame=slots.last_frame.index_fill(0, seen, frame),
            frames=slots.frames.index_add(0, seen, torch.ones_like(seen)),
            objectness_sum=slots.objectness_sum.index_add(0, seen, objectness),
            embedding_sum=slots.embedding_sum.index_add(0, seen, objectness[:, None] * tokens),
        )
        track_ids = torch.where(alive, slots.track_id[slot_of], NO_TRACK).numpy()

        over = slots.gap > self.config.max_gap
        ended: list[Track] = []
        if over.any():
            ended = self._tracks(Slots(*_rows(slots, over)))
            matched = torch.zeros_like(over).index_fill(0, slot_of, True)
            freed = (over & matched).nonzero()[:, 0]
            slots = Slots(*_with_rows(slots, freed, self._empty_slots(len(freed))))
            kept = matched | ~over
            memory, slots = _rows(memory, kept), Slots(*_rows(slots, kept))
        return TrackerState(memory, slots, next_track_id, frame), TrackedFrame(track_ids, ended)

    def finish(self, state: TrackerState) -> tuple[TrackerState, list[Track]]:
        """Ends all tracks, at the end of a video or at a shot cut; track ids go on where they were."""
        tracks = self._tracks(state.slots) if state.slots else []
        return TrackerState(next_track_id=state.next_track_id, frame=state.frame), tracks

    def link(self, state: TrackerState, instances: Instances) -> tuple[Memory, Slots, Int[Tensor, " n"]]:
        """Memory and slots with this frame's instances taken in, and the slot of each instance.

        A slot with a track takes in an instance only when the track is alive in it, as in training, where an absent
        object leaves its row as it is; a slot without a track takes in whatever is matched to it.
        """
        observed = self.association.observe(instances)
        if state.memory is None or state.slots is None:
            return self.association.start(observed), self._empty_slots(len(observed)), torch.arange(len(observed))
        memory, slots = self.association.advance(state.memory), state.slots
        slots = slots._replace(gap=slots.gap + 1)
        similarity = self.association.similarity(memory, observed)
        matched, found = map(torch.as_tensor, assign(similarity, self.config.association.gate))
        taken = self._alive(instances)[found] | (slots.track_id[matched] == NO_TRACK)
        rows = matched[taken]
        memory = _with_rows(memory, rows, self.association.update(_rows(memory, rows), observed[found[taken]]))
        slots = slots._replace(gap=slots.gap.index_fill(0, rows, 0))

        slot_of = torch.full((len(observed),), -1).index_copy(0, found, matched)
        new = (slot_of < 0).nonzero()[:, 0]
        if len(new):
            slot_of[new] = len(slots.gap) + torch.arange(len(new))
            memory = tuple(map(torch.cat, zip(memory, self.association.start(observed[new]), strict=True)))
            slots = Slots(*map(torch.cat, zip(slots, self._empty_slots(len(new)), strict=True)))
        return memory, slots, slot_of

    def _alive(self, instances: Instances) -> Bool[Tensor, " n"]:
        """Which instances are in sight."""
        confident = instances.objectness >= self.config.objectness_threshold
        return confident & torch.as_tensor(instances.masks.areas > 0)

    def _empty_slots(self, count: int) -> Slots:
        none = torch.full((count,), NO_TRACK)
        zero = torch.zeros(count, dtype=torch.long)
        width = self.vocabulary.embeddings.shape[1]
        return Slots(zero, none, none, none, zero, torch.zeros(count), torch.zeros(count, width))

    def _tracks(self, slots: Slots) -> list[Track]:
        order = slots.track_id.argsort()
        slots = Slots(*_rows(slots, order[slots.track_id[order] != NO_TRACK]))
        objectness = slots.objectness_sum / slots.frames
        embeddings = F.normalize(slots.embedding_sum, dim=-1)
        scores = objectness[:, None] * self.vocabulary.probabilities(embeddings)
        return [
            # Clones: a view would be pickled with the storage of all tracks.
            Track(int(track_id), int(first), int(last), int(frames), float(mean), embedding.clone(), score.clone())
            for track_id, first, last, frames, mean, embedding, score in zip(
                *slots[1:5], objectness, embeddings, scores, strict=True
            )
        ]


def _rows(parts: tuple[Tensor, ...], index: Tensor) -> tuple[Tensor, ...]:
    return tuple(part[index] for part in parts)


def _with_rows(parts: tuple[Tensor, ...], index: Tensor, rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(part.index_copy(0, index, row) for part, row in zip(parts, rows, strict=True))
