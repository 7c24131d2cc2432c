from dataclasses import replace

import pytest

from pipelines.metrics.track_naming import name_tracks, right_names, share_masks, top1
from tests.pipelines.metrics.open_vocabulary_cases import DISC, NAMES, STAR, STRIPED, TRUTH, predictions, world
from tests.pipelines.metrics.tracks import guess, strip, track


def test_a_track_is_one_whatever_it_is_called() -> None:
    named = name_tracks(TRUTH, predictions())
    assert [(each.video_id, each.category_id, each.score) for each in named.tracks] == [
        (1, STAR, 0.9),
        (1, 4, 0.7),
        (1, DISC, 0.75),
        (2, 5, 0.8),
    ]
    assert named.standing.tolist() == [0, 1, 3]
    assert named.nearest.tolist() == [0, 1, -1, 2]
    assert right_names(TRUTH, named).tolist() == [True, False, False]


def test_the_best_name_need_not_come_first_and_of_equal_ones_the_first_counts() -> None:
    masks = [strip(0, 20)]
    late = [guess(masks, 0.5, category=STRIPED), guess(masks, 0.6, category=STAR)]
    assert [(each.category_id, each.score) for each in name_tracks(TRUTH, late).tracks] == [(STAR, 0.6)]
    equal = [guess(masks, 0.5, category=STRIPED), guess(masks, 0.5, category=STAR)]
    assert [each.category_id for each in name_tracks(TRUTH, equal).tracks] == [STRIPED]


def test_equal_masks_of_two_videos_are_two_tracks() -> None:
    both = [guess([strip(0, 20)], video=1), guess([strip(0, 20)], video=2)]
    assert len(name_tracks(TRUTH, both).tracks) == 2


def test_masks_that_are_the_same_are_kept_once() -> None:
    shared = share_masks(predictions())
    assert shared[0].masks is shared[2].masks
    assert shared[1].masks is shared[4].masks
    assert len({id(each.masks) for each in shared}) == 4
    assert [vars(each) for each in shared] == [vars(each) for each in predictions()]


def test_first_names_and_their_words() -> None:
    """The star is right. Of the discs one is called striped, the other green and striped."""
    assert top1(TRUTH, name_tracks(TRUTH, predictions())) == pytest.approx(
        {
            "top1": 1 / 3,
            "matched": 1,
            "top1/matched": 1 / 3,
            "top1/colour": 2 / 3,
            "top1/texture": 1 / 3,
            "top1/shape": 1,
            "base/top1": 1,
            "base/matched": 1,
            "base/top1/matched": 1,
            "base/top1/colour": 1,
            "base/top1/texture": 1,
            "base/top1/shape": 1,
            "novel/top1": 0,
            "novel/matched": 1,
            "novel/top1/matched": 0,
            "novel/top1/colour": 1 / 2,
            "novel/top1/texture": 0,
            "novel/top1/shape": 1,
        }
    )


def test_what_is_not_found_is_not_right_but_its_words_do_not_count() -> None:
    numbers = top1(TRUTH, name_tracks(TRUTH, [guess([strip(0, 20)], category=STAR)]))
    assert numbers["top1"] == pytest.approx(1 / 3)
    assert numbers["matched"] == pytest.approx(1 / 3)
    assert numbers["top1/matched"] == numbers["top1/colour"] == 1
    assert (numbers["novel/top1"], numbers["novel/top1/matched"], numbers["novel/top1/shape"]) == (0, -1, -1)
    nothing = top1(world(), name_tracks(world(), []))
    assert set(nothing.values()) == {-1}
    unlisted = top1(TRUTH, name_tracks(TRUTH, [guess([strip(0, 20)], category=99)]))
    assert (unlisted["matched"], unlisted["top1"], unlisted["top1/colour"]) == (pytest.approx(1 / 3), 0, 0)


def test_names_of_other_lengths_have_no_attributes() -> None:
    truth = world(*TRUTH.tracks, names=(*NAMES[:4], "disc"))
    assert sorted(top1(truth, name_tracks(truth, predictions()))) == sorted(
        f"{part}{name}" for part in ("", "base/", "novel/") for name in ("top1", "matched", "top1/matched")
    )


def test_the_largest_overlap_goes_first_and_no_track_is_for_two_objects() -> None:
    truth = world(track([strip(0, 20)]), track([strip(10, 30)], number=2))
    wide, exact = guess([strip(0, 25)], 0.9), guess([strip(0, 20)], 0.1)
    assert name_tracks(truth, [wide]).standing.tolist() == [0, -1], "overlaps of 0.8 and 0.5"
    assert name_tracks(truth, [wide, exact]).standing.tolist() == [1, 0], "a half is enough"
    assert name_tracks(truth, [guess([strip(0, 24)]), exact]).standing.tolist() == [1, -1], "14 of 30 are not"
    assert name_tracks(truth, [guess([strip(0, 5)]), guess([strip(5, 25)])]).nearest.tolist() == [0, 0], "the first"
    assert name_tracks(truth, [guess([strip(25, 35)])]).nearest.tolist() == [1], "however little"


def test_crowds_are_not_counted_and_nothing_is_found_as_one() -> None:
    crowd = world(replace(TRUTH.tracks[0], crowd=True), *TRUTH.tracks[1:])
    named = name_tracks(crowd, predictions())
    assert (named.counted.tolist(), named.standing.tolist()) == ([False, True, True], [-1, 1, 3])
    assert top1(crowd, named)["top1"] == 0


def test_no_track_is_left_out() -> None:
    """The limit of YouTube-VIS, 100 in a video, would leave out the one that is right."""
    many = [guess([strip(200 + i, 201 + i)], 0.9) for i in range(150)]
    named = name_tracks(TRUTH, [*many, guess([strip(0, 20)], 0.1, category=99)])
    assert named.standing.tolist() == [150, -1, -1]
