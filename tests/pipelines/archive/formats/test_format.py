from pipelines.archive.formats.format import Losses
from pipelines.archive.formats.video_labels import VideoLabels


def video(name: str) -> VideoLabels:
    return VideoLabels(row={"video_id": name}, tracks={}, masks=[], frames=[])


def test_losses_name_the_first_tracks_and_count_the_others() -> None:
    losses = Losses()
    losses.add("holes are filled", video("a"), [7])
    losses.add("boxes", video("a"), [0, 1])
    assert losses.lines() == ("holes are filled: 1 track (a/7)", "boxes: 2 tracks (a/0, a/1)")
    losses.add("boxes", video("b"), range(3))
    assert losses.lines()[1] == "boxes: 5 tracks (a/0, a/1, b/0, …)"
    losses.add("boxes", video("c"), [])
    assert losses.lines()[1] == "boxes: 5 tracks (a/0, a/1, b/0, …)"
