from pipelines.datasets.annotations import GroundTruth, Mask


def test_masks_with_the_same_pixels_are_equal() -> None:
    """Predictions that share their masks are found by it."""
    assert {(Mask(2, 3, b"06"),), (Mask(2, 3, b"06"),)} == {(Mask(2, 3, b"06"),)}
    assert Mask(2, 3, b"06") != Mask(3, 2, b"06")


def test_a_ground_truth_has_no_warnings_of_its_own() -> None:
    assert GroundTruth(path="", sha256="", videos=(), categories=(), tracks=()).warnings == {}
