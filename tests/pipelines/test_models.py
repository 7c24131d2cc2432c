import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.mask import encode, iou

from openvis_model.inst_former import InstFormer
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import Vocabulary
from openvis_model.weights.checkpoint import load_checkpoint, save_checkpoint
from openvis_model.weights.files import BUILT_IN
from pipelines.models import (
    embed,
    load_light_model,
    load_model,
    load_picture_encoder,
    load_vocabulary,
    vocabulary_fingerprint,
)
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage import s3
from tests.clips import small_model
from tests.pipelines.archive.archives import write_star
from tests.pipelines.storage.put import Put
from tests.pipelines.storage.s3_server import Proxy


def test_the_built_in_model_finds_and_names_objects_of_novel_categories() -> None:
    """Clips that it was not trained on, of categories that its proposals never saw."""
    model = load_model(None)
    names = [category.name for category in CATEGORIES]
    vocabulary = embed_vocabulary(Vocabulary.from_lines(names), model.text_encoder)
    found = right = objects = 0
    for index in range(8):
        clip = render(SceneConfig(frames=1), "novel", 7, index)
        (instances,) = model(torch.from_numpy(clip.frames))
        masks = [{"size": instances.masks.size, "counts": counts} for counts in instances.masks.counts]
        best = (instances.instance_tokens @ vocabulary.embeddings.T).argmax(1).tolist()
        for mask, category in zip(clip.masks[:, 0], clip.categories, strict=True):
            if mask.any():
                truth = encode(np.asfortranarray(mask.astype(np.uint8)))
                overlap = iou(masks, [truth], [0])[:, 0]
                objects += 1
                found += overlap.max() > 0.5
                right += overlap.max() > 0.5 and best[overlap.argmax()] == category
    assert found / objects > 0.6
    assert right / found > 0.5  # of 1,000 names


def test_the_built_in_model_is_small() -> None:
    assert sum(file.stat().st_size for file in BUILT_IN.rglob("*")) < 25_000_000


def test_a_checkpoint_is_loaded(tmp_path: Path) -> None:
    expected = save_checkpoint(load_checkpoint(BUILT_IN), tmp_path / "checkpoint")
    assert load_model(str(tmp_path / "checkpoint")).fingerprint == expected
    with pytest.raises(ValueError, match="not a checkpoint folder"):
        load_model(str(tmp_path))


def test_a_checkpoint_on_s3_is_loaded(bucket: str, proxy: Proxy, put: Put, tmp_path: Path) -> None:
    """By the files that it is made of; what else lies there is not even fetched."""
    expected = save_checkpoint(load_checkpoint(BUILT_IN), tmp_path / "checkpoint")
    for file in (tmp_path / "checkpoint").rglob("*"):
        if file.is_file():
            s3.upload(file, f"{bucket}/my model/{file.relative_to(tmp_path / 'checkpoint')}")
    for name in ("optimizer.pt", "code.pkl", "../other.json", "a/b.json"):
        put(f"{bucket}/my model/{name}", b"evil")
    proxy.requests.clear()
    assert load_model(f"{bucket}/my model/").fingerprint == expected
    assert load_light_model(f"{bucket}/my model").fingerprint == expected
    fetched = {
        path.rpartition("/")[2] for method, path in proxy.requests if method == "GET" and "list-type" not in path
    }
    assert {"config.json", "clip.safetensors", "adapter_model.safetensors"} < fetched
    assert not fetched & {"optimizer.pt", "code.pkl", "other.json", "b.json"}
    s3.remove(f"{bucket}/my model/clip.safetensors")
    with pytest.raises(ValueError, match=f"{bucket}/my model/clip.safetensors: cannot be read as safetensors"):
        load_model(f"{bucket}/my model")
    with pytest.raises(ValueError, match=f"{bucket}/none: not a checkpoint folder"):
        load_model(f"{bucket}/none")
    with pytest.raises(ValueError, match="checkpoint: s3://no-such-bucket/a/: there is no such bucket"):
        load_model("s3://no-such-bucket/a")


def test_a_checkpoint_on_s3_brings_its_tokenizer(bucket: str, tmp_path: Path) -> None:
    expected = save_checkpoint(InstFormer(small_model("siglip", tmp_path / "tokenizer")), tmp_path / "checkpoint")
    for file in (tmp_path / "checkpoint").rglob("*.*"):
        s3.upload(file, f"{bucket}/model/{file.relative_to(tmp_path / 'checkpoint')}")
    shutil.rmtree(tmp_path / "tokenizer")
    assert load_light_model(f"{bucket}/model").fingerprint == expected


def test_a_vocabulary_on_s3_is_read(bucket: str, put: Put) -> None:
    uri = put(f"{bucket}/my names.txt", "cat, kitten\ncafé\n".encode())
    assert load_vocabulary(uri) == Vocabulary((("cat", "kitten"), ("café",)))
    assert load_vocabulary(put(f"{bucket}/names.json", b'[["cat, wild"]]')) == Vocabulary((("cat, wild",),))
    with pytest.raises(ValueError, match=f"^{bucket}/twice.txt: vocabulary: 'cat' stands twice"):
        load_vocabulary(put(f"{bucket}/twice.txt", b"cat\ncat\n"))
    with pytest.raises(ValueError, match=f"^vocabulary: {bucket}/absent.txt: "):
        load_vocabulary(f"{bucket}/absent.txt")


def test_a_vocabulary_on_s3_has_its_pictures_beside_it(bucket: str, put: Put, tmp_path: Path) -> None:
    write_star(tmp_path)
    for name in ("star.png", "star_mask.png"):
        put(f"{bucket}/my pictures/{name}", (tmp_path / name).read_bytes())
    uri = put(f"{bucket}/names.txt", b"dog\nmine: my pictures/star.png mask my pictures/star_mask.png\n")
    vocabulary = load_vocabulary(uri)
    (tmp_path / "names.txt").write_text("dog\nmine: star.png mask star_mask.png\n")
    assert vocabulary.identity == load_vocabulary(str(tmp_path / "names.txt")).identity
    for line, message in (
        (b"mine: absent.png", f"^{bucket}/names.txt: line 1: {bucket}/absent.png: cannot read {bucket}/absent.png"),
        (b"mine: names.png", f"^{bucket}/names.txt: line 1: {bucket}/names.png: is not a readable picture"),
        (b"mine: my.gif", f"^{bucket}/names.txt: line 1: 'my.gif' is neither a picture"),
    ):
        put(f"{bucket}/names.png", b"no")
        with pytest.raises(ValueError, match=message):
            load_vocabulary(put(uri, line))


def test_what_pictures_show_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    """Their bytes, boxes and masks, not their names."""
    write_star(tmp_path)
    (tmp_path / "other.png").write_bytes((tmp_path / "star.png").read_bytes())

    def fingerprint(line: str) -> str:
        (tmp_path / "names.txt").write_text(line)
        return vocabulary_fingerprint(load_vocabulary(str(tmp_path / "names.txt")))

    part = " box 1 2 30 40"
    lines = (
        "mine",
        "mine: star.png",
        f"mine: star.png{part}",
        "mine: star.png mask star_mask.png",
        "mine: star_mask.png",
    )
    assert len(set(map(fingerprint, lines))) == len(lines)
    assert fingerprint(f"mine: other.png{part}") == fingerprint(f"mine: star.png{part}")
    assert fingerprint(f"mine: star.png{part}") != fingerprint(f"yours: star.png{part}")


def test_the_vision_tower_is_loaded_for_exemplars_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = load_picture_encoder
    monkeypatch.setattr(
        "pipelines.models.load_picture_encoder", lambda checkpoint: loaded.append(1) or load(checkpoint)
    )
    write_star(tmp_path)
    model = load_light_model(None)
    for line, times in (
        ("red plain star", 0),
        ("mine: star.png", 1),
        ("red plain star\nmine: star.png, star_mask.png", 1),
    ):
        loaded.clear()
        (tmp_path / "names.txt").write_text(line)
        embed(load_vocabulary(str(tmp_path / "names.txt")), model, None)
        assert len(loaded) == times


def test_how_synonyms_are_scored_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    """That of the mean is the one that older archives have."""
    file = tmp_path / "names.txt"
    file.write_text("cat, kitten\ndog\n")
    mean, best = load_vocabulary(str(file)), load_vocabulary(str(file), "best")
    assert (mean.synonyms, best.synonyms) == ("mean", "best")
    assert vocabulary_fingerprint(mean) == hashlib.sha256(b"(('cat', 'kitten'), ('dog',))").hexdigest()
    assert vocabulary_fingerprint(best) != vocabulary_fingerprint(mean)
