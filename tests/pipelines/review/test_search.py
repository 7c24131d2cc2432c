import io
import threading
from pathlib import Path

import pytest
from PIL import Image

from pipelines.archive.tables import Results
from pipelines.models import load_light_model
from pipelines.review.catalogue import Filter
from pipelines.review.config import ReviewConfig
from pipelines.review.search import AbsentError
from pipelines.review.session import Review
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.files import Storage
from tests.pipelines.archive.exports import SEEN, put
from tests.pipelines.archive.labels import part_name


def test_tracks_like_a_track_and_like_a_text(review: Review) -> None:
    search = review.search
    assert search.state() == {"search_off": None, "similar_off": None}
    found = search.like_text(Filter(), "red striped star")
    assert found.cosines is not None
    assert len(found.rows) == len(found.cosines) == found.catalogue.size
    assert found.cosines.tolist() == sorted(found.cosines, reverse=True)
    best = int(found.rows[0])
    assert search.like_track(Filter(), best).rows[0] == best  # a track is most like itself
    category = found.catalogue.rows([best])[0]["category"]
    some = search.like_track(Filter(category=category), best).rows.tolist()
    assert {row["category"] for row in found.catalogue.rows(some)} == {category}
    with pytest.raises(AbsentError, match="like: there is no track 1000; load the page again"):
        search.like_track(Filter(), 1000)


def test_before_embeddings_and_model_are_there(labels: str) -> None:
    search = Review(ReviewConfig(labels=labels)).search
    assert search.model_off == "the model is being loaded"
    assert search.state()["similar_off"] == f"embeddings are being read: 0 of {search.embeddings.catalogue.size}"
    with pytest.raises(ValueError, match="^search: embeddings are being read: 0 of "):
        search.like_track(Filter(), 0)


def test_labels_of_another_model_cannot_be_searched(tmp_path: Path) -> None:
    """They can by similarity, for which embeddings are enough."""
    results = Results(Storage(str(tmp_path / "labels")))
    put(results, part_name(1), SEEN, model_fingerprint="m", config_fingerprint="c")
    search = Review(ReviewConfig(labels=results.storage.root)).search
    search.warm_up()
    assert search.model_off is not None
    assert search.model_off.startswith("checkpoint: all 3 videos in ")
    assert search.model_off.endswith(
        "were labelled with another model; give the checkpoint that they were labelled with"
    )
    with pytest.raises(ValueError, match="^search: checkpoint: all 3 videos"):
        search.like_text(Filter(), "red striped star")
    assert search.state()["similar_off"] is None


def test_what_could_not_be_loaded_is_loaded_later(labels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage of labels and model may be away for a while."""

    def fail(*_: object) -> None:
        raise OSError("the storage is away")

    review = Review(ReviewConfig(labels=labels))
    with monkeypatch.context() as patch:
        patch.setattr(Results, "row_groups", fail)
        patch.setattr("pipelines.review.search_model.load_light_model", fail)
        review.search.warm_up()
    assert review.search.state() == dict.fromkeys(("search_off", "similar_off"), "the storage is away")
    review.refresh()
    assert review.search.state() == dict.fromkeys(("search_off", "similar_off"))
    assert len(review.search.like_text(Filter(), "red striped star").rows)


def test_tracks_that_are_listed_again_while_a_text_is_embedded(review: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer waits for their embeddings."""
    model = review.search._loaded_model()

    def embed(text: str) -> object:
        threading.Timer(0.2, review._list_again().load).start()
        return vector

    vector = model.embed_text("red striped star")
    monkeypatch.setattr(model, "embed_text", embed)
    found = review.search.like_text(Filter(), "red striped star")
    assert found.catalogue is review.catalogue
    assert found.cosines is not None
    assert found.cosines.max() > 0.9


def test_an_image_in_an_archive_without_tracks(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path / "labels")))
    put(results, part_name(1), {"a": {}}, model_fingerprint=load_light_model(None).fingerprint)
    review = Review(ReviewConfig(labels=results.storage.root))
    review.warm_up()
    file = io.BytesIO()
    Image.fromarray(render(SceneConfig(frames=2), "novel", 0, 1).frames[0]).save(file, "PNG")
    assert review.find_like_image(Filter(), file.getvalue())["total"] == 0
