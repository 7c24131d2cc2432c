import torch

from openvis_model.track import CategoryScore, Track


def test_the_best_category_comes_first() -> None:
    top = (CategoryScore("star", 0.5, 7), CategoryScore("disc", 0.25, 3))
    track = Track(
        track_id=0,
        top=top,
        first_frame=1,
        last_frame=4,
        frames=3,
        objectness=0.75,
        embedding=torch.eye(9)[0],
        unknown=0.1,
        colour=torch.zeros(3),
    )
    assert (track.category, track.score) == ("star", 0.5)
    assert "embedding" not in repr(track)
