import shutil
from pathlib import Path
from typing import Any

import pytest

from openvis_model.exemplars import TrackExemplar
from openvis_model.vocabulary import Vocabulary
from openvis_model.weights.light_model import LightModel
from pipelines.archive.additions import Additions
from pipelines.archive.config import RelabelConfig, SearchConfig
from pipelines.archive.exemplars import read_tracks
from pipelines.archive.relabel import relabel
from pipelines.archive.search import search
from pipelines.archive.tables import Results
from pipelines.models import load_light_model, load_vocabulary, vocabulary_fingerprint
from pipelines.storage.files import Storage
from tests.pipelines.archive.archives import label_archive, write_star
from tests.pipelines.archive.labels import part_name
from tests.pipelines.review.archives import embedding, put_video

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def model() -> LightModel:
    return load_light_model(None)


@pytest.fixture
def folder(archive: Path, tmp_path: Path) -> Path:
    """`names.txt` with a tenth of the names, of which none is a red striped star, and a picture of one."""
    write_star(tmp_path)
    words = (archive / "some.txt").read_text()
    (tmp_path / "names.txt").write_text(f"{words}\nmy star: star.png mask star_mask.png\n")
    return tmp_path


def tracks(labels: str | Path) -> dict[str, list[dict[str, Any]]]:
    """Tracks by the name of their video's file."""
    results = Results(Storage(str(labels)))
    files = {row["video_id"]: Path(row["uri"]).stem for row in results.read("videos").to_pylist()}
    rows = results.read("tracks").sort_by([("video_id", "ascending"), ("track_id", "ascending")]).to_pylist()
    return {file: [row for row in rows if row["video_id"] == video] for video, file in files.items()}


def track_of_star(labels: str | Path) -> dict[str, Any]:
    return max(tracks(labels)["star"], key=lambda row: row["objectness"] * row["frames"])


@pytest.mark.nightly
def test_a_category_of_one_picture_finds_its_object_among_words(archive: Path, folder: Path) -> None:
    """In labelling; relabelling says the same. Other objects keep their names."""
    label_archive(archive, folder / "labels", str(folder / "names.txt"), input=str(archive / "videos/[0s]*.mp4"))
    found, by_words = tracks(folder / "labels"), tracks(archive / "some")
    assert track_of_star(folder / "labels")["category"] == "my star"
    assert found.keys() == {"0", "star"}
    assert [row["category"] for row in found["0"]] == [row["category"] for row in by_words["0"]]

    options = {"labels": str(archive / "all"), "vocabulary": str(folder / "names.txt")}
    summary = relabel(RelabelConfig(output=str(folder / "relabelled"), **options))
    assert (summary.videos, summary.failures) == (5, {})
    renamed = tracks(folder / "relabelled")
    for file, rows in found.items():
        assert [row["category"] for row in rows] == [row["category"] for row in renamed[file]]
        assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in renamed[file]], abs=1e-3)
    assert label_archive(archive, folder / "relabelled", str(folder / "names.txt")).skipped == 5
    (folder / "star.png").write_bytes((folder / "star_mask.png").read_bytes())
    with pytest.raises(ValueError, match="output: .* has videos labelled with another vocabulary"):
        relabel(RelabelConfig(output=str(folder / "relabelled"), **options))


def test_a_track_is_an_exemplar(archive: Path, folder: Path) -> None:
    """Of the archive that is relabelled, without a word; and of another one, among words."""
    star = track_of_star(archive / "some")
    other = next(row for file, rows in tracks(archive / "some").items() if file != "star" for row in rows)
    first, second = (f"track: {row['video_id']}/{row['track_id']}" for row in (star, other))
    (folder / "names.txt").write_text(f"my star: {first}\nthing: {second}")
    relabel(
        RelabelConfig(labels=str(archive / "some"), output=str(folder / "alone"), vocabulary=str(folder / "names.txt"))
    )
    assert track_of_star(folder / "alone")["category"] == "my star"

    shutil.copytree(archive / "some", folder / "labels")
    words = (archive / "some.txt").read_text()
    (folder / "names.txt").write_text(f"{words}\nmy star: {first} of labels")
    relabel(
        RelabelConfig(labels=str(archive / "all"), output=str(folder / "mixed"), vocabulary=str(folder / "names.txt"))
    )
    assert track_of_star(folder / "mixed")["category"] == "my star"


@pytest.mark.parametrize("part", [" mask star_mask.png", " box 16 28 40 40"])
def test_a_picture_finds_what_it_shows(archive: Path, folder: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = search(SearchConfig(labels=str(archive / "some"), image=f"star.png{part}", top=3))
    assert Path(found.hits[0].uri).name == "star.mp4"
    assert found.hits[0].similarity > 0.05 + max(hit.similarity for hit in found.hits if "star" not in hit.uri)


def test_a_track_finds_itself(archive: Path) -> None:
    star = track_of_star(archive / "some")
    wanted = f"track: {star['video_id']}/{star['track_id']}"
    found = search(SearchConfig(labels=str(archive / "some"), image=wanted, top=1))
    assert (found.hits[0].video_id, found.hits[0].track_id) == (star["video_id"], star["track_id"])
    assert found.hits[0].similarity == pytest.approx(1)


def test_what_is_wrong_with_a_picture_is_told(archive: Path, folder: Path) -> None:
    labels = str(archive / "some")
    for image, message in (
        ("cup", "^image: 'cup' is neither a picture"),
        ("absent.png", r"^image: absent.png: cannot read absent.png \(.*\); correct the path"),
        (f"{folder}/star.png box 100 0 100 10", "^image: .*: the box is not within the picture, which is 128 x 96"),
        ("track: absent/1", f"^image: track: absent/1: there is no video absent in {labels}; correct its id"),
    ):
        with pytest.raises(ValueError, match=message):
            search(SearchConfig(labels=labels, image=image))
    for options in ({}, {"text": "red star", "image": "star.png"}):
        with pytest.raises(ValueError, match="^text, image: .* given; give one of the two"):
            SearchConfig(labels=labels, **options)


def test_bad_tracks_are_told(archive: Path, tmp_path: Path, model: LightModel) -> None:
    star = track_of_star(archive / "some")
    video, track = star["video_id"], star["track_id"]

    def read(text: str, labels: str | None = str(archive / "some"), fingerprint: str = model.fingerprint) -> Vocabulary:
        return read_tracks(Vocabulary.from_lines(["dog", f"mine: {text}"]), fingerprint, labels)

    assert read(f"track: {video}/{track}").identity == read(f"track: {video}/{track} of {archive}/some").identity
    for arguments, message in (
        ((f"track: {video}/999",), r"^line 2: track: .*/999: the video has no track 999 in .*, it has tracks 0 to \d+"),
        (("track: absent/0",), "^line 2: track: absent/0: there is no video absent in .*some; correct its id"),
        ((f"track: {video}/{track}", None), r"^line 2: .*: of which archive\? Write track: .* of ARCHIVE"),
        ((f"track: {video}/{track} of {tmp_path}",), f"^line 2: .*: {tmp_path} has no labels; give the output"),
        (
            (f"track: {video}/{track}", str(archive / "some"), "of another"),
            "^line 2: .*: was labelled with another model",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            read(*arguments)


def test_a_track_that_a_reviewer_added_is_an_exemplar(tmp_path: Path, model: LightModel) -> None:
    results = Results(Storage(str(tmp_path)))
    put_video(results, part_name(1), "v", "v.mp4", {0: ("red striped star", 0.9, [0])}, [0.0])
    (video,), (track,) = (results.read(table).to_pylist() for table in ("videos", "tracks"))
    masks, other = results.read("masks"), embedding("blue dotted moon")
    added = Additions(results.storage).add({**track, "embedding": other}, masks, video, "0s: point 1 1", "ann")
    stale = Additions(results.storage).add(track, masks, video | {"config_fingerprint": "old"}, "0s: point 1 1", "ann")

    def read(track_id: int) -> TrackExemplar:
        (exemplar,) = read_tracks(
            Vocabulary.from_lines([f"mine: track: v/{track_id}"]), model.fingerprint, str(tmp_path)
        ).shown
        assert isinstance(exemplar, TrackExemplar)
        return exemplar

    assert read(added).embedding == pytest.approx(other)
    for absent in (stale, 3):
        with pytest.raises(ValueError, match=f"the video has no track {absent} in .*, it has tracks 0 to 0; correct"):
            read(absent)


def test_the_fingerprint_is_that_of_the_embedding(archive: Path, folder: Path, model: LightModel) -> None:
    rows = tracks(archive / "some")["0"][:2]
    prints = set()
    for row in rows:
        (folder / "names.txt").write_text(f"mine: track: {row['video_id']}/{row['track_id']}")
        vocabulary = read_tracks(load_vocabulary(str(folder / "names.txt")), model.fingerprint, str(archive / "some"))
        prints.add(vocabulary_fingerprint(vocabulary))
    assert len(prints) == 2
