"""Links instances into tracks, and decides when a track begins, pauses and ends.

Memory grows with the number of objects in sight, not with the length of the video: a track is a row of running sums,
and its row is dropped when the track ends.
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
from openvis_model.track import CategoryScore, Track
from openvis_model.vocabulary import VocabularyEmbedding

NO_TRACK = -1
"""Track id of an instance that belongs to no track."""


class Slots(NamedTuple):
    """Running sums of M slots, one row each; a slot holds a track from the moment its instance is first seen.

    `gap` counts the frames since the slot's track was last in sight, or since a slot without a track was last matched.
    """

    gap: Int[Tensor, " M"]
    track_id: Int[Tensor, " M"]
    first_frame: Int[Tensor, " M"]
    last_frame: Int[Tensor, " M"]
    frames: Int[Tensor, " M"]
    objectness_sum: Float[Tensor, " M"]
    embedding_sum: Float[Tensor, "M D"]
    area_sum: Float[Tensor, " M"]
    colour_sum: Float[Tensor, "M 3"]


@dataclass(frozen=True)
class TrackerState:
    """Everything that tracking carries from one frame of a video to the next: plain tensors, picklable.

    Attributes:
        memory: the association's memory, one row per slot; None before the first frame.
        slots: running sums, one row per slot; None before the first frame.
        next_track_id: id of the next track that begins.
        frame: index of the last frame taken in; -1 before the first one.
    """

    memory: Memory | None = None
    slots: Slots | None = None
    next_track_id: int = 0
    frame: int = -1


@dataclass(frozen=True)
class TrackedFrame:
    """What tracking made of one frame.

    Attributes:
        track_ids: the track of each instance; `NO_TRACK` for an instance without a track.
        ended: tracks that were out of sight for longer than `max_gap`, or that a cut ended.
        begins_shot: whether the video was cut before this frame.
    """

    track_ids: Int[np.ndarray, " n"]
    ended: list[Track]
    begins_shot: bool = False


class VideoTracker:
    """Links the instances of successive frames into tracks.

    It holds no state of a video: each call takes a `TrackerState` and returns the next one, so one tracker serves many
    videos. `VideoTracking` keeps the state of one.

    Args:
        config: when tracks begin and end.
        vocabulary: the categories that tracks are scored against.
        rollout_tracker: the trained tracker; only `rollout` association needs it.
        top: how many categories a track lists.

    Raises:
        ValueError: for `top` below 1, or an association without its rollout tracker.
    """

    def __init__(
        self,
        config: VideoTrackerConfig,
        vocabulary: VocabularyEmbedding,
        rollout_tracker: RolloutTracker | None = None,
        *,
        top: int = 5,
    ) -> None:
        if top < 1:
            raise ValueError(f"top: expected at least 1, got {top}")
        self.config = config
        self.vocabulary = vocabulary
        self.top = top
        self.association: Association = build_association(config.association, rollout_tracker)

    @torch.inference_mode()
    def step(self, state: TrackerState, frame: int, instances: Instances) -> tuple[TrackerState, TrackedFrame]:
        """Takes in the instances of the next frame.

        A track ends when its gap exceeds `max_gap`. Its slot is dropped, unless an instance is matched to the slot in
        this frame: then the slot keeps its memory and may begin a new track. A run that passes all N instances of
        every frame and refuses no match therefore has N slots throughout.

        Args:
            state: of the video; `TrackerState()` for a new one.
            frame: index of the frame in the video.
            instances: all instances of the frame.

        Returns:
            The state after this frame, and the track of each instance.

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
        in_sight = self._in_sight(instances)
        seen = slot_of[in_sight]

        born = seen[slots.track_id[seen] == NO_TRACK]
        next_track_id = state.next_track_id + len(born)
        new_ids = torch.arange(state.next_track_id, next_track_id)
        objectness, tokens = instances.objectness[in_sight], instances.instance_tokens[in_sight]
        areas = torch.as_tensor(instances.masks.areas, dtype=torch.float32)[in_sight]
        slots = Slots(
            gap=slots.gap,
            track_id=slots.track_id.index_copy(0, born, new_ids),
            first_frame=slots.first_frame.index_fill(0, born, frame),
            last_frame=slots.last_frame.index_fill(0, seen, frame),
            frames=slots.frames.index_add(0, seen, torch.ones_like(seen)),
            objectness_sum=slots.objectness_sum.index_add(0, seen, objectness),
            embedding_sum=slots.embedding_sum.index_add(0, seen, objectness[:, None] * tokens),
            area_sum=slots.area_sum.index_add(0, seen, areas),
            colour_sum=slots.colour_sum.index_add(0, seen, areas[:, None] * instances.colours[in_sight]),
        )
        track_ids = torch.where(in_sight, slots.track_id[slot_of], NO_TRACK).numpy()

        over = slots.gap > self.config.max_gap
        ended: list[Track] = []
        if over.any():
            ended = self._tracks(Slots(*_rows(slots, over)))
            occupied = torch.zeros_like(over).index_fill(0, slot_of, True)
            freed = (over & occupied).nonzero()[:, 0]
            slots = Slots(*_with_rows(slots, freed, self._empty_slots(len(freed))))
            kept = occupied | ~over
            memory, slots = _rows(memory, kept), Slots(*_rows(slots, kept))
        return TrackerState(memory, slots, next_track_id, frame), TrackedFrame(track_ids, ended)

    def finish(self, state: TrackerState) -> tuple[TrackerState, list[Track]]:
        """Ends all tracks, at the end of a video or at a cut; the returned state continues their ids.

        Returns:
            The state after it, and the ended tracks in the order of their ids.
        """
        tracks = self._tracks(state.slots) if state.slots else []
        return TrackerState(next_track_id=state.next_track_id, frame=state.frame), tracks

    def tracks_so_far(self, state: TrackerState, track_ids: Int[np.ndarray, " n"]) -> list[Track]:
        """Returns tracks that have not ended, as they are now, in the order of their ids."""
        if state.slots is None:
            return []
        return self._tracks(Slots(*_rows(state.slots, torch.isin(state.slots.track_id, torch.as_tensor(track_ids)))))

    def link(self, state: TrackerState, instances: Instances) -> tuple[Memory, Slots, Int[Tensor, " n"]]:
        """Matches the instances of a frame to slots.

        A slot with a track takes in an instance only if the instance is in sight, as in training, where an absent
        object leaves its row unchanged; some associations also take in a confident one whose mask is empty. A slot
        without a track takes in any instance that is matched to it.

        Returns:
            Memory and slots with the instances taken in, and the slot of each instance.
        """
        observed = self.association.observe(instances)
        if state.memory is None or state.slots is None:
            return self.association.start(observed), self._empty_slots(len(observed)), torch.arange(len(observed))
        memory, slots = self.association.advance(state.memory), state.slots
        slots = slots._replace(gap=slots.gap + 1)
        similarity = self.association.similarity(memory, observed)
        matched_slots, matched = map(torch.as_tensor, assign(similarity, self.config.association.gate))
        free = slots.track_id[matched_slots] == NO_TRACK
        in_sight = self._in_sight(instances)[matched] | free
        taken = in_sight | self._confident(instances)[matched] if self.association.takes_empty_masks else in_sight
        rows = matched_slots[taken]
        memory = _with_rows(memory, rows, self.association.update(_rows(memory, rows), observed[matched[taken]]))
        slots = slots._replace(gap=slots.gap.index_fill(0, matched_slots[in_sight], 0))

        slot_of = torch.full((len(observed),), -1).index_copy(0, matched, matched_slots)
        new = (slot_of < 0).nonzero()[:, 0]
        if len(new):
            slot_of[new] = len(slots.gap) + torch.arange(len(new))
            memory = tuple(map(torch.cat, zip(memory, self.association.start(observed[new]), strict=True)))
            slots = Slots(*map(torch.cat, zip(slots, self._empty_slots(len(new)), strict=True)))
        return memory, slots, slot_of

    def _in_sight(self, instances: Instances) -> Bool[Tensor, " n"]:
        return self._confident(instances) & torch.as_tensor(instances.masks.areas > 0)

    def _confident(self, instances: Instances) -> Bool[Tensor, " n"]:
        return instances.objectness >= self.config.objectness_threshold

    def _empty_slots(self, count: int) -> Slots:
        none = torch.full((count,), NO_TRACK)
        zero = torch.zeros(count, dtype=torch.long)
        width = self.vocabulary.embeddings.shape[1]
        sums = (torch.zeros(count), torch.zeros(count, width), torch.zeros(count), torch.zeros(count, 3))
        return Slots(zero, none, none, none, zero, *sums)

    def _tracks(self, slots: Slots) -> list[Track]:
        order = slots.track_id.argsort()
        slots = Slots(*_rows(slots, order[slots.track_id[order] != NO_TRACK]))
        objectness = slots.objectness_sum / slots.frames
        colours = slots.colour_sum / slots.area_sum[:, None]
        embeddings = F.normalize(slots.embedding_sum, dim=-1)
        probabilities, unknown = self.vocabulary.probabilities(embeddings), self.vocabulary.unknown(embeddings)
        scores, categories = (objectness[:, None] * probabilities).topk(min(self.top, probabilities.shape[1]))
        return [
            Track(
                track_id=int(slots.track_id[i]),
                top=self._named(scores[i], categories[i]),
                first_frame=int(slots.first_frame[i]),
                last_frame=int(slots.last_frame[i]),
                frames=int(slots.frames[i]),
                objectness=float(objectness[i]),
                embedding=embeddings[i].clone(),  # a view would be pickled with the storage of all tracks
                unknown=float(unknown[i]),
                colour=colours[i].clone(),
            )
            for i in range(len(objectness))
        ]

    def _named(self, scores: Float[Tensor, " k"], categories: Int[Tensor, " k"]) -> tuple[CategoryScore, ...]:
        pairs = zip(scores.tolist(), categories.tolist(), strict=True)
        return tuple(CategoryScore(self.vocabulary.names[index], score, index) for score, index in pairs)


def _rows(columns: tuple[Tensor, ...], index: Tensor) -> tuple[Tensor, ...]:
    return tuple(column[index] for column in columns)


def _with_rows(columns: tuple[Tensor, ...], index: Tensor, rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(column.index_copy(0, index, values) for column, values in zip(columns, rows, strict=True))
