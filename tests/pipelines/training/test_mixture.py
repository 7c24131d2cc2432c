from collections import Counter

import numpy as np
import pytest

from openvis_model.training.training_clip import TrainingClip
from pipelines.training.checks import open_training_data
from pipelines.training.clips import sample
from pipelines.training.data import TrainingData, TrainingDataConfig
from pipelines.training.mixture import Mixture, place
from tests.pipelines.datasets.training_sets import (
    image_document,
    lvis_document,
    video_document,
    write_images,
    write_json,
    write_videos,
)


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingData]:
    """Videos and images of base categories alone, and images of LVIS, which has another one; one weighs 4, 1 and 3."""
    folder = tmp_path_factory.mktemp("data")
    write_videos(folder)
    write_images(folder)
    write_images(folder / "train2017")
    documents = {"videos": video_document(), "coco": image_document(), "lvis": lvis_document()}
    documents["coco"]["categories"] = [{"id": 7, "name": "reddish"}, {"id": 11, "name": "blue box"}]
    weights = {"videos": 4.0, "coco": 1.0, "lvis": 3.0}
    return {
        name: open_training_data(
            TrainingDataConfig(
                annotations=write_json(folder / f"{name}.json", document),
                format="ytvis" if name == "videos" else "coco",
                height=64,
                width=96,
                weight=weights[name],
            )
        )
        for name, document in documents.items()
    }


@pytest.fixture(scope="module")
def mixture(data_sets: dict[str, TrainingData]) -> Mixture:
    return Mixture.of([*data_sets.values()])


def same(one: TrainingClip, other: TrainingClip) -> bool:
    return (
        one.seed == other.seed and np.array_equal(one.frames, other.frames) and np.array_equal(one.masks, other.masks)
    )


def test_a_name_has_one_place_whichever_data_sets_have_it(mixture: Mixture) -> None:
    assert mixture.names == ("red box", "blue box", "reddish", "odd thing")
    assert [rows.tolist() for rows in mixture.rows] == [[0, 1], [2, 1], [0, 3, 1]]


def test_names_compete_with_those_of_their_own_data_set(mixture: Mixture) -> None:
    red, blue, reddish, odd = range(4)
    expected: dict[tuple[int, int], set[int]] = {
        (0, red): {red, blue},
        (0, blue): {red, blue},
        (1, reddish): {reddish, blue},
        (1, blue): {reddish, blue},
        # Image 5 of LVIS has no odd thing, and may have other blue boxes; image 6 has red boxes, no more is known.
        (2, red): {odd},
        (2, blue): {red, odd},
    }
    seen = set()
    for number in range(32):
        position, own_number = place(number, [4, 1, 3])
        clip, own = mixture.sample(number), sample(mixture.data_sets[position], own_number)
        assert same(clip, own)
        assert clip.exhaustive == own.exhaustive == (position < 2)
        names = mixture.data_sets[position].names
        assert [mixture.names[row] for row in clip.categories] == [names[row] for row in own.categories]
        assert clip.rivals is not None
        for category, rivals in zip(clip.categories.tolist(), clip.rivals, strict=True):
            found = set(np.flatnonzero(rivals).tolist())
            assert found == expected[position, category] or (position, category, found) == (2, red, set())
            seen.add((position, category, len(found)))
    assert len(seen) == len(expected) + 1


def test_one_data_set_is_as_it_is(data_sets: dict[str, TrainingData]) -> None:
    mixture, data = Mixture.of([data_sets["videos"]]), data_sets["videos"]
    assert mixture.names == data.names
    for number in range(4):
        clip, own = mixture.sample(number), sample(data, number)
        assert same(clip, own)
        assert (clip.rivals, clip.categories.tolist()) == (None, own.categories.tolist())


def test_the_share_of_each_is_its_weight() -> None:
    # Half of 8 to the first; of the other half a quarter to the second. Each begins with its sample 0.
    places = [place(number, [4, 1, 3]) for number in range(16)]
    assert Counter(position for position, _ in places) == {0: 8, 1: 2, 2: 6}
    for position, count in ((0, 8), (1, 2), (2, 6)):
        assert [number for each, number in places if each == position] == list(range(count))


@pytest.mark.parametrize("weights", [(1.0,), (0.1, 0.2, 0.7), (1e-3, 1.0), (1 / 3, 2 / 3, 1.0, 0.01), (5.0, 1e6)])
def test_every_data_set_shows_its_samples_in_order_and_none_twice(weights: tuple[float, ...]) -> None:
    seen = [0] * len(weights)
    for number in range(3000):
        position, own_number = place(number, weights)
        assert own_number == seen[position]
        seen[position] += 1
        for weight, count in zip(weights, seen, strict=True):
            assert abs(count - (number + 1) * weight / sum(weights)) < len(weights)


def test_far_on_it_is_still_exact() -> None:
    far = 10**15
    places = [place(number, [0.1, 0.2, 0.7]) for number in range(far, far + 1000)]
    for position in range(3):
        numbers = [number for each, number in places if each == position]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
