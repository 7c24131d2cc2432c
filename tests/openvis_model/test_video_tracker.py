import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from openvis_model.inst_former import InstFormer
from openvis_model.instances import Instances
from openvis_model.options import (
    AssociationConfig,
    AssociationKind,
    RolloutTrackerConfig,
    TokenKind,
    VideoTrackerConfig,
)
from openvis_model.rle import RleMasks
from openvis_model.rollout_tracker import RolloutTracker
from openvis_model.track import CategoryScore, Track
from openvis_model.video_tracker import NO_TRACK, TrackedFrame, TrackerState, VideoTracker
from openvis_model.vocabulary import VocabularyEmbedding

# Class probabilities of the tokens (1, 0) and (0, 1) are (3/4, 1/4) and (1/4, 3/4).
VOCABULARY = VocabularyEmbedding(("a", "b"), torch.eye(2), logit_scale=1.0986123)
AXES = torch.eye(6)


def frame(*queries: int, objectness: float | list[float] = 0.9, token: int = 0, area: int = 4) -> Instances:
    """Instances whose queries are unit vectors of these axes, so that equal axes match."""
    n = len(queries)
    levels = torch.tensor(objectness).expand(n)
    masks = RleMasks((9, 9), (b"",) * n, np.full(n, area), np.tile([0, 0, 2, 2], (n, 1)))
    index = torch.tensor(queries, dtype=torch.long)
    colours = 20.0 * torch.arange(3).expand(n, 3)
    return Instances(levels, torch.eye(2)[token].expand(n, 2), AXES[list(queries)], index, colours, masks)


def queries(*rows: tuple[float, float]) -> Instances:
    """Instances with these queries."""
    return replace(frame(*range(len(rows))), queries=torch.tensor(rows, dtype=torch.float32))


def box(x: int) -> Instances:
    """One instance, 10 × 10 pixels from column x on."""
    seen = frame(0)
    return replace(seen, masks=replace(seen.masks, boxes=np.array([[x, 0, 10, 10]])))


def tracker(**fields: object) -> VideoTracker:
    association = AssociationConfig(kind="hungarian", token="query", min_similarity=0.5)
    return VideoTracker(VideoTrackerConfig(**{"association": association} | fields), VOCABULARY)


def run(video: list[Instances], model: VideoTracker) -> tuple[list[TrackedFrame], list[Track]]:
    state, tracked = TrackerState(), []
    for index, seen in enumerate(video):
        state, result = model.step(state, index, seen)
        tracked.append(result)
    last = model.finish(state)[1]
    return tracked, [track for result in tracked for track in result.ended] + last


def ids(tracked: list[TrackedFrame]) -> list[list[int]]:
    return [result.track_ids.tolist() for result in tracked]


def test_tracks_follow_their_objects_whatever_the_order() -> None:
    tracked, tracks = run([frame(0, 1), frame(1, 0), frame(0, 2, 1)], tracker())
    assert ids(tracked) == [[0, 1], [1, 0], [0, 2, 1]]
    assert [(t.track_id, t.first_frame, t.last_frame, t.frames) for t in tracks] == [
        (0, 0, 2, 3),
        (1, 0, 2, 3),
        (2, 2, 2, 1),
    ]


def test_a_gap_is_bridged_up_to_max_gap() -> None:
    video = [frame(0), frame(), frame(), frame(0)]
    assert ids(run(video, tracker(max_gap=2))[0]) == [[0], [], [], [0]]
    tracked, tracks = run(video, tracker(max_gap=1))
    assert ids(tracked) == [[0], [], [], [1]]
    assert [t.track_id for t in tracked[2].ended] == [0]  # as soon as it has ended
    assert [(t.first_frame, t.last_frame) for t in tracks] == [(0, 0), (3, 3)]


@pytest.mark.parametrize(("probe", "track"), [((0.6, 0.8), 0), ((0.28, 0.96), 1)])
def test_momentum_over_three_frames_by_hand(probe: tuple[float, float], track: int) -> None:
    """Seen at (1, 0), then (0.8, 0.6): the row is (0.86, 0.42), of length 0.957.

    Its cosine with (0.6, 0.8) is 0.890, where without update it were 0.6; with (0.28, 0.96) it is 0.673, where the last
    token's were 0.8. The gate is 0.7.
    """
    model = tracker(association=AssociationConfig(kind="momentum", token="query", min_similarity=0.7))
    assert ids(run([queries((1, 0)), queries((0.8, 0.6)), queries(probe)], model)[0]) == [[0], [0], [track]]


def test_rollout_history_over_three_frames_by_hand() -> None:
    """h_t = tanh(T_t - 4 h_(t-1)), tokens (1, 0) and (0.6, 0.8).

    h_0 = (0.762, 0), h_1 = tanh(0.6 - 3.046, 0.8) = (-0.985, 0.664): its cosine with (-1, 0) is 0.829. Without h_0 it
    were tanh(0.6, 0.8) = (0.537, 0.664) and -0.629, without any update -1.
    """
    rollout = RolloutTracker(RolloutTrackerConfig(kind="rnn", token="query"), 2)
    with torch.no_grad():
        rollout.predictor.weight_ih.copy_(torch.eye(2))
        rollout.predictor.weight_hh.copy_(-4 * torch.eye(2))
        rollout.predictor.bias_ih.zero_()
        rollout.predictor.bias_hh.zero_()
    model = VideoTracker(VideoTrackerConfig(), VOCABULARY, rollout)
    assert ids(run([queries((1, 0)), queries((0.6, 0.8)), queries((-1, 0), (0, -1))], model)[0]) == [[0], [0], [0, 1]]


def test_sort_follows_motion_through_a_gap() -> None:
    """4 pixels a frame: after a gap the box does not overlap with the last one, 12 pixels back."""
    video = [box(0), box(4), box(8), box(12), frame(), frame(), box(24)]
    model = tracker(association=AssociationConfig(kind="sort"))
    assert ids(run(video, model)[0]) == [[0], [0], [0], [0], [], [], [0]]


@pytest.mark.parametrize("kind", ["hungarian", "momentum", "iou", "sort"])
def test_an_unrelated_object_does_not_take_over_a_track(kind: AssociationKind) -> None:
    """By default: object A, nobody, then object B elsewhere that looks different."""
    first, other = box(0), replace(box(40), queries=AXES[[1]])
    model = tracker(association=AssociationConfig(kind=kind, token="query"))
    assert ids(run([first, frame(), other], model)[0]) == [[0], [], [1]]


def test_with_all_queries_kept_the_number_of_slots_stays() -> None:
    """Two of three instances are below the threshold at any time, for longer than max_gap."""
    model = tracker(association=AssociationConfig(kind="hungarian", token="query", min_similarity=-1), max_gap=2)
    state, seen = TrackerState(), []
    for index, bright in enumerate([0, 1, 1, 1, 1, 0, 2]):
        levels = [0.9 if query == bright else 0.1 for query in range(3)]
        state, result = model.step(state, index, frame(0, 1, 2, objectness=levels))
        assert state.slots is not None
        assert len(state.slots.gap) == 3
        seen.append((result.track_ids[bright], [(t.track_id, t.frames) for t in result.ended]))
    assert seen == [(0, []), (1, []), (1, []), (1, [(0, 1)]), (1, []), (2, []), (3, [])]
    assert [(t.track_id, t.frames) for t in model.finish(state)[1]] == [(1, 4), (2, 1), (3, 1)]


def test_a_track_out_of_sight_keeps_its_memory() -> None:
    """A slot with a track takes in only what is in sight, one without takes in whatever is matched to it."""
    model = tracker(association=AssociationConfig(kind="hungarian", token="query", min_similarity=-1))
    assert ids(run([frame(0), frame(1, objectness=0.1), frame(1, 0)], model)[0]) == [[0], [NO_TRACK], [1, 0]]
    state, _ = model.step(TrackerState(), 0, frame(0, objectness=0.1))
    state, _ = model.step(state, 1, frame(1, objectness=0.1))
    assert state.memory is not None
    assert torch.equal(state.memory[0], AXES[[1]])


def test_a_pickled_track_holds_no_other_tracks() -> None:
    vocabulary = VocabularyEmbedding(tuple(map(str, range(500))), torch.randn(500, 2), 1.0)
    many = replace(frame(*range(6)), instance_tokens=torch.randn(6, 500))
    tracks = run([many], VideoTracker(tracker().config, replace(vocabulary, embeddings=torch.randn(500, 500))))[1]
    assert len(pickle.dumps(tracks[3])) < 2 * 500 * 4  # bytes: an embedding of 500 float32 and little else


def test_with_all_queries_kept_objectness_says_when_a_track_is_alive() -> None:
    """Benchmark runs hand over all N instances of every frame; those below the threshold belong to no track."""
    levels = [[0.9, 0.1], [0.1, 0.1], [0.1, 0.9], [0.9, 0.9]]
    video = [frame(0, 1, objectness=level) for level in levels]
    tracked, tracks = run(video, tracker(max_gap=2))
    assert ids(tracked) == [[0, NO_TRACK], [NO_TRACK, NO_TRACK], [NO_TRACK, 1], [0, 1]]
    assert [t.frames for t in tracks] == [2, 2]
    tracked, _ = run(video, tracker(max_gap=1))
    assert ids(tracked)[3] == [2, 1]  # the slot of query 0 was empty for too long and begins a new track


def test_an_empty_mask_is_not_seen() -> None:
    tracked, tracks = run([frame(0, area=0), frame(0)], tracker())
    assert ids(tracked) == [[NO_TRACK], [0]]
    assert tracks[0].first_frame == 1


@pytest.mark.parametrize(("token", "track"), [("query", 0), ("instance_query", 1)])
def test_queries_of_an_empty_mask_by_hand(token: TokenKind, track: int) -> None:
    """Seen at (1, 0), then with an empty mask at (0.8, 0.6), then seen at (0.28, 0.96), a cosine of 0.8 to the second.

    The cosine to the first is 0.28, or 0.64 beside equal instance tokens; the gate is 0.7.
    """
    first, empty, last = queries((1, 0)), queries((0.8, 0.6)), queries((0.28, 0.96))
    empty = replace(empty, masks=replace(empty.masks, areas=np.zeros(1, np.int64)))
    model = tracker(association=AssociationConfig(kind="hungarian", token=token, min_similarity=0.7))
    assert ids(run([first, empty, last], model)[0]) == [[0], [NO_TRACK], [track]]


def test_a_track_whose_masks_stay_empty_ends() -> None:
    """Its slot takes in the queries, but it is out of sight."""
    tracked, _ = run([frame(0), *[frame(0, area=0)] * 3, frame(0)], tracker(max_gap=2))
    assert ids(tracked) == [[0], [NO_TRACK], [NO_TRACK], [NO_TRACK], [1]]
    assert [track.track_id for track in tracked[3].ended] == [0]


@pytest.mark.parametrize(("kind", "weight"), [("hungarian", 1.0), ("momentum", 0.7)])
def test_benchmark_runs_link_queries_as_minvis_and_ov2seg_do(kind: AssociationKind, weight: float) -> None:
    """Both match all queries of a frame with one running embedding per slot, whatever their masks and lengths."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(6, 4))
    video = [(base + rng.normal(size=(6, 4))) * rng.uniform(1, 9, (6, 1)) for _ in range(12)]
    areas = rng.integers(0, 2, (12, 6))
    running, slots = video[0], [np.arange(6)]
    for now in video[1:]:
        units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (running, now)]
        query_of = linear_sum_assignment(1 - units[0] @ units[1].T)[1]
        running = weight * now[query_of] + (1 - weight) * running
        slots.append(query_of.argsort())
    association = AssociationConfig(kind=kind, token="query", min_similarity=-1)
    model = tracker(association=association, objectness_threshold=0.0, max_gap=12)
    frames = [
        replace(queries(*rows.tolist()), masks=RleMasks((9, 9), (b"",) * 6, area, np.zeros((6, 4), np.int64)))
        for rows, area in zip(video, areas, strict=True)
    ]
    tracked = ids(run(frames, model)[0])
    seen = [(slot[i], tracked[t][i]) for t, slot in enumerate(slots) for i in range(6) if areas[t, i]]
    assert len(set(seen)) == len(dict(seen)) == len({track for _, track in seen}) == 6
    assert all(tracked[t][i] == NO_TRACK for t in range(12) for i in range(6) if not areas[t, i])


def test_scores_and_embedding_by_hand() -> None:
    """Objectness 0.8 with token (1, 0), then 0.6 with token (0, 1).

    Mean objectness 0.7, embedding (0.8, 0.6); with a logit scale of ln 3 its probabilities are as 3^0.8 to 3^0.6, that
    is 0.5547 and 0.4453; scores: 0.7 · 0.5547 = 0.3883 and 0.7 · 0.4453 = 0.3117.
    """
    _, tracks = run([frame(0, objectness=0.8), frame(), frame(0, objectness=0.6, token=1)], tracker())
    assert tracks[0].objectness == pytest.approx(0.7)
    assert tracks[0].embedding.tolist() == pytest.approx([0.8, 0.6])
    expected = (CategoryScore("a", pytest.approx(0.3883, abs=1e-4), 0), ("b", pytest.approx(0.3117, abs=1e-4), 1))
    assert tracks[0].top == expected


def test_colour_by_hand() -> None:
    """The mean over all pixels: 4 of colour (0, 20, 40), 12 of (80, 60, 40)."""
    large = replace(frame(0, area=12), colours=torch.tensor([[80.0, 60.0, 40.0]]))
    (track,) = run([frame(0), frame(), large], tracker())[1]
    assert track.colour.tolist() == pytest.approx([60, 50, 40])


def test_a_track_lists_at_most_top_categories() -> None:
    (track,) = run([frame(0, token=1)], VideoTracker(tracker().config, VOCABULARY, top=1))[1]
    assert [(best.category, best.category_id) for best in track.top] == [("b", 1)]
    with pytest.raises(ValueError, match="top: expected at least 1, got 0"):
        VideoTracker(tracker().config, VOCABULARY, top=0)


def test_tracks_so_far_are_those_that_would_end_now() -> None:
    model, state = tracker(max_gap=2), TrackerState()
    for index, seen in enumerate([frame(0, 1, objectness=[0.8, 0.6]), frame(1), frame(2, 1)]):
        state, result = model.step(state, index, seen)
        ended = {track.track_id: track for track in model.finish(state)[1]}
        for track in model.tracks_so_far(state, result.track_ids):
            other = ended[track.track_id]
            assert (track.track_id, track.top, track.frames) == (other.track_id, other.top, other.frames)
    assert [track.track_id for track in model.tracks_so_far(state, np.array([2, 1]))] == [1, 2]
    assert model.tracks_so_far(TrackerState(), np.array([0])) == []


def test_frames_without_objects_give_no_tracks() -> None:
    tracked, tracks = run([frame(), frame(), frame()], tracker())
    assert ids(tracked) == [[], [], []]
    assert tracks == []


def test_state_can_be_carried_through_a_pickle_between_any_two_frames() -> None:
    generator = torch.Generator().manual_seed(3)
    video = [frame(*torch.randperm(6, generator=generator)[: 1 + i % 5].tolist()) for i in range(12)]
    model = tracker(max_gap=1)
    whole, tracks = run(video, model)
    state, chunked, ended = TrackerState(), [], []
    for index, seen in enumerate(video):
        state = pickle.loads(pickle.dumps(state))
        state, result = model.step(state, index, seen)
        chunked.append(result)
        ended += result.ended
    ended += model.finish(state)[1]
    assert ids(chunked) == ids(whole)
    assert [t.track_id for t in ended] == [t.track_id for t in tracks]
    assert [t.top for t in ended] == [t.top for t in tracks]
    assert all(torch.equal(a.embedding, b.embedding) for a, b in zip(ended, tracks, strict=True))


def test_a_shot_cut_ends_tracks_and_ids_go_on() -> None:
    model = tracker()
    state, _ = model.step(TrackerState(), 0, frame(0, 1))
    state, tracks = model.finish(state)
    assert [t.track_id for t in tracks] == [0, 1]
    _, result = model.step(state, 1, frame(0, 1))
    assert result.track_ids.tolist() == [2, 3]


def test_memory_does_not_grow_with_the_video() -> None:
    """Every frame shows other objects; the state holds only those of the last max_gap + 1 frames."""
    model = tracker(max_gap=3)
    state = TrackerState()
    for index in range(50):
        state, _ = model.step(state, index, frame(index % 6))
        assert state.slots is not None
        assert len(state.slots.gap) <= 4
    assert state.next_track_id == 50


def test_rollout_tracks_with_the_models_tracker(mini_model, vocabulary, frames) -> None:
    """The untrained tracker still gives a one-to-one linking of all queries in every frame."""
    config = VideoTrackerConfig(association=AssociationConfig(min_similarity=-1), objectness_threshold=0.0)
    found = [replace(seen, masks=replace(seen.masks, areas=seen.masks.areas + 1)) for seen in mini_model(frames)]
    tracked, tracks = run(found, VideoTracker(config, vocabulary, mini_model.rollout_tracker))
    assert all(sorted(result.track_ids) == list(range(16)) for result in tracked)
    assert len(tracks) == 16


def test_rollout_tracks_with_queries_alone(mini_config, vocabulary, frames) -> None:
    """Table 6's tracking token without I_t: the tracker is as wide as a query."""
    model = InstFormer(replace(mini_config, rollout_tracker=RolloutTrackerConfig(token="query"))).eval()
    found = model(frames[:2])
    assert model.rollout_tracker.width == found[0].queries.shape[1]
    config = VideoTrackerConfig(association=AssociationConfig(min_similarity=-1), objectness_threshold=0.0)
    tracked, _ = run(found, VideoTracker(config, vocabulary, model.rollout_tracker))
    assert [len(result.track_ids) for result in tracked] == [16, 16]


def test_frames_out_of_order_are_refused() -> None:
    model = tracker()
    state, _ = model.step(TrackerState(), 4, frame(0))
    with pytest.raises(ValueError, match="expected one after 4, got 4"):
        model.step(state, 4, frame(0))


def test_parts_of_different_models_are_refused(mini_model, vocabulary) -> None:
    with pytest.raises(ValueError, match="vocabulary: embedded in 128 dimensions, instances in 2"):
        VideoTracker(tracker().config, vocabulary).step(TrackerState(), 0, frame(0))
    rollout = VideoTracker(VideoTrackerConfig(), VOCABULARY, mini_model.rollout_tracker)
    with pytest.raises(ValueError, match="rollout_tracker: made for tracking tokens of width 192, got 8"):
        rollout.step(TrackerState(), 0, frame(0))
