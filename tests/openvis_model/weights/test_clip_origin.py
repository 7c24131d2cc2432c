import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest

from openvis_model.clip import ClipConfig
from openvis_model.weights.clip_origin import ClipOrigin, origin_of_checkpoint, origin_of_file, origin_of_tag
from tests.openvis_model.weights.published_clips import small_clip

PLAIN = ("logit_scale", "text_projection", "visual.proj")
OPENAI = (*PLAIN, "input_resolution", "context_length", "vocab_size")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"weights")
    return tmp_path / "open_clip_model.safetensors"


def test_openai_files_tell_by_their_entries(file: Path) -> None:
    origin = origin_of_file(file, OPENAI, quick_gelu=None)
    assert origin.quick_gelu
    origin.check(ClipConfig(model="ViT-B-32-quickgelu"), "ViT-B-32.pt")
    with pytest.raises(
        ValueError, match=r"clip\.model: .*ViT-B-32\.pt.* with QuickGELU .*vocab_size.*use model 'ViT-B-32-quickgelu'"
    ):
        origin.check(ClipConfig(model="ViT-B-32"), "ViT-B-32.pt")
    with pytest.raises(ValueError, match=r"clip\.pixel_mean: .*need \(0\.48"):
        origin.check(ClipConfig(model="ViT-B-32-quickgelu", pixel_mean=(0.5, 0.5, 0.5)), "ViT-B-32.pt")


def test_tinyclip_tells_by_its_names(file: Path) -> None:
    assert not origin_of_file(file, ("_image_encoder.module.visual.proj",), quick_gelu=None).quick_gelu


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_the_config_of_the_hub_tells(file: Path, quick_gelu: bool) -> None:
    described = {"embed_dim": 512} | ({"quick_gelu": True} if quick_gelu else {})
    pixels = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    config = file.with_name("open_clip_config.json")
    config.write_text(json.dumps({"model_cfg": described, "preprocess_cfg": pixels}))
    origin = origin_of_file(file, PLAIN, quick_gelu=None)
    assert (origin.quick_gelu, origin.pixel_mean, origin.pixel_std) == (quick_gelu, (0.5,) * 3, (0.25,) * 3)
    config.write_text("{}")
    with pytest.raises(ValueError, match=r"open_clip_config\.json: cannot be read"):
        origin_of_file(file, PLAIN, quick_gelu=None)


def test_a_config_beside_another_file_tells_nothing(file: Path) -> None:
    file.with_name("open_clip_config.json").write_text(json.dumps({"model_cfg": {}}))
    with pytest.raises(ValueError, match="does not say"):
        origin_of_file(file.rename(file.with_name("mine.safetensors")), PLAIN, quick_gelu=None)


@pytest.mark.parametrize("address", ["https://host/clip/models/{}/ViT-B-32.pt", "https://host/vit-{:.8}.pt"])
def test_a_checksum_that_open_clip_knows_tells(address: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tag = {"url": address.format(hashlib.sha256(b"weights").hexdigest()), "quick_gelu": True}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: tag)
    assert origin_of_file(file, PLAIN, quick_gelu=None).quick_gelu
    file.write_bytes(b"other weights")
    with pytest.raises(ValueError, match="does not say"):
        origin_of_file(file, PLAIN, quick_gelu=None)


@pytest.mark.parametrize(
    ("checksum", "quick_gelu"),
    [
        ("40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", True),  # OpenAI's ViT-B/32
        (f"d867053b{0:056}", True),  # LAION-400M's ViT-B/32
        (f"af8dbd0c{0:056}", False),  # LAION-2B's ViT-B/32
    ],
)
def test_open_clip_knows_checksums(
    checksum: str, quick_gelu: bool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: SimpleNamespace(hexdigest=lambda: checksum))
    assert origin_of_file(file, PLAIN, quick_gelu=None).quick_gelu == quick_gelu


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_the_user_decides_where_nothing_tells(file: Path, quick_gelu: bool) -> None:
    with pytest.raises(ValueError, match=r"quick_gelu: .*does not say .*LAION-2B.*start\.clip_quick_gelu"):
        origin_of_file(file, PLAIN, quick_gelu=None)
    origin = origin_of_file(file, PLAIN, quick_gelu=quick_gelu)
    origin.check(small_clip(quick_gelu=quick_gelu), "file", quick_gelu)
    with pytest.raises(ValueError, match=rf"clip\.architecture\.quick_gelu: .*set it to {quick_gelu}"):
        origin.check(small_clip(quick_gelu=not quick_gelu), "file", quick_gelu)


def test_a_user_who_contradicts_is_told() -> None:
    origin = origin_of_tag(open_clip.get_pretrained_cfg("ViT-B-32", "openai"))
    with pytest.raises(ValueError, match=r"quick_gelu: got False, but weights 'openai' .* with QuickGELU"):
        origin.check(ClipConfig(model="ViT-B-32-quickgelu"), "openai", quick_gelu=False)


def test_remedies_name_models_that_exist() -> None:
    known = ClipOrigin(evidence="as told", quick_gelu=False)
    with pytest.raises(ValueError, match="use model 'ViT-L-14'"):
        known.check(ClipConfig(model="ViT-L-14-quickgelu"), "file")
    with pytest.raises(ValueError, match=r"give the model as clip\.architecture, with quick_gelu = True"):
        ClipOrigin(evidence="as told", quick_gelu=True).check(ClipConfig(model="ViT-B-16-plus-240"), "file")


def test_the_config_of_a_checkpoint_tells(checkpoint: Path) -> None:
    assert not origin_of_checkpoint(checkpoint).quick_gelu
    file = checkpoint / "config.json"
    content = json.loads(file.read_text())
    content["config"]["clip"]["architecture"]["quick_gelu"] = True
    file.write_text(json.dumps(content))
    assert origin_of_checkpoint(checkpoint).quick_gelu
    file.write_text("{}")
    with pytest.raises(ValueError, match="not a checkpoint folder"):
        origin_of_checkpoint(checkpoint)
