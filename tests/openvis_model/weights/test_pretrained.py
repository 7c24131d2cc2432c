import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from open_clip import CLIP
from safetensors.torch import load, load_file, save_file

from openvis_model.clip import ClipConfig, build_clip
from openvis_model.config import mini
from openvis_model.weights.pretrained import _models_of, described, load_clip
from tests import hub
from tests.clips import TOWERS
from tests.clips import small_clip as timm_clip
from tests.hub import CLIP_WEIGHTS, Files
from tests.openvis_model.weights.published_clips import (
    openai_state,
    random_clip,
    small_clip,
    state_of,
    tinyclip_state,
    write_openai_archive,
)
from tests.words import WORDS

QUICK, PLAIN = small_clip(quick_gelu=True), small_clip(quick_gelu=False)


def write_safetensors(clip: CLIP, file: Path) -> None:
    save_file(state_of(clip), file)


def write_state(clip: CLIP, file: Path) -> None:
    torch.save(state_of(clip), file)


def write_checkpoint(clip: CLIP, file: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in state_of(clip).items()}
    torch.save({"epoch": 32, "name": "run", "state_dict": state, "optimizer": {"state": {}}}, file)


def write_openai_state(clip: CLIP, file: Path) -> None:
    torch.save(openai_state(clip), file)


def write_tinyclip(clip: CLIP, file: Path) -> None:
    torch.save({"epoch": 25, "state_dict": tinyclip_state(clip)}, file)


@pytest.mark.parametrize(
    ("write", "config", "quick_gelu"),
    [
        (write_safetensors, PLAIN, False),
        (write_state, QUICK, True),
        (write_checkpoint, PLAIN, False),
        (write_tinyclip, PLAIN, None),
        (write_openai_state, QUICK, None),
        (write_openai_archive, QUICK, None),
    ],
)
def test_clip_from_a_published_file(write, config: ClipConfig, quick_gelu: bool | None, tmp_path: Path) -> None:
    file = tmp_path / ("clip.safetensors" if write is write_safetensors else "clip.pt")
    source = random_clip(config)
    expected = state_of(source)
    write(source, file)
    loaded = load_clip(config, file, quick_gelu=quick_gelu)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in expected.items())
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded.eval().encode_image(image), source.encode_image(image))


def test_a_file_of_another_model_is_told_in_a_line(tmp_path: Path) -> None:
    """Which names and shapes differ would be hundreds."""
    small = PLAIN.architecture
    larger = {**small, "vision_cfg": {**small["vision_cfg"], "layers": 3, "patch_size": 8}}
    save_file(random_clip(PLAIN).state_dict(), tmp_path / "small.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with torch.device("meta"):
        large = build_clip(ClipConfig(model="ViT-L-14")).state_dict()
    assert "ViT-L-14" in _models_of(described(large))
    sizes = "patches of 16 pixels, 1 layers of width 32, and for texts 2 layers of width 16"
    for file, found in (
        ("small", f"{sizes}; give the model that it holds"),
        ("other", "no two towers of a CLIP; give the weights of one"),
    ):
        with pytest.raises(ValueError, match=f"; the file has {found}") as error:
            load_clip(ClipConfig(architecture=larger), tmp_path / f"{file}.safetensors", quick_gelu=False)
        assert "than clip.architecture: expected patches of 8 pixels, 3 layers of width 32, and" in str(error.value)
        assert len(str(error.value)) < 500


@pytest.mark.parametrize("kind", TOWERS)
def test_clips_of_timm_from_a_file(kind: str, tmp_path: Path) -> None:
    """They have no QuickGELU; the scale may have a dimension, and EVA-02's text tower the names of plain CLIPs."""
    config = timm_clip(kind, tmp_path / "tokenizer")
    source = build_clip(config).state_dict()
    state = {name.removeprefix("text.") if kind == "eva02" else name: tensor for name, tensor in source.items()}
    save_file(state | {"logit_scale": state["logit_scale"][None]}, tmp_path / "clip.safetensors")
    loaded = load_clip(config, tmp_path / "clip.safetensors").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in source.items())
    with pytest.raises(ValueError, match=r"quick_gelu: got True, .* without QuickGELU \(its vision transformer"):
        load_clip(config, tmp_path / "clip.safetensors", quick_gelu=True)


@pytest.mark.parametrize("write", [write_openai_state, write_openai_archive])
def test_openai_files_never_run_with_gelu(write, tmp_path: Path) -> None:
    write(random_clip(QUICK), tmp_path / "ViT-B-32.pt")
    with pytest.raises(ValueError, match=r"clip\.architecture\.quick_gelu: .*ViT-B-32\.pt.*with QuickGELU.*to True"):
        load_clip(PLAIN, tmp_path / "ViT-B-32.pt")


@pytest.mark.parametrize("config", [QUICK, PLAIN])
def test_other_files_never_run_with_an_activation_that_nobody_chose(config: ClipConfig, tmp_path: Path) -> None:
    write_state(random_clip(PLAIN), tmp_path / "laion.pt")
    with pytest.raises(ValueError, match=r"quick_gelu: .*laion\.pt does not say"):
        load_clip(config, tmp_path / "laion.pt")


def test_a_checkpoint_folder_never_runs_with_another_activation(checkpoint: Path) -> None:
    config = mini(WORDS).clip
    expected = load_file(checkpoint / "clip.safetensors")["text_projection"]
    quick = replace(config, architecture=config.architecture | {"quick_gelu": True})
    for weights in (checkpoint, checkpoint / "clip.safetensors"):
        assert torch.equal(load_clip(config, weights).state_dict()["text_projection"], expected)
        with pytest.raises(ValueError, match=r"clip\.architecture\.quick_gelu: .*config\.json says"):
            load_clip(quick, weights)


def test_no_code_of_an_archive_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_openai_archive(random_clip(QUICK), tmp_path / "ViT-B-32.pt")
    for loader in (torch.jit, torch):
        monkeypatch.setattr(loader, "load", lambda *_, **__: pytest.fail("torch loaded the program"))
    load_clip(QUICK, tmp_path / "ViT-B-32.pt")


def test_clip_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = state_of(random_clip(PLAIN))
    state["visual.extra"] = torch.zeros(1)
    state["module.logit_bias"] = torch.zeros(1)
    state["text_projection"] = torch.zeros(3, 3)
    del state["logit_scale"]
    save_file(state, tmp_path / "clip.safetensors")
    with pytest.raises(
        ValueError, match=r"missing: logit_scale; unexpected: logit_bias, visual\.extra; .*projection \[3, 3\]"
    ):
        load_clip(PLAIN, tmp_path / "clip.safetensors", quick_gelu=False)


@pytest.mark.parametrize("prefix", ["", "_image_encoder."])
def test_names_that_become_one_are_refused(prefix: str, tmp_path: Path) -> None:
    state = {f"{prefix}{name}": weight for name, weight in state_of(random_clip(PLAIN)).items()}
    torch.save(state | {"module.visual.proj": state[f"{prefix}visual.proj"] + 1}, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"module\.visual\.proj is there under another name too"):
        load_clip(PLAIN, tmp_path / "clip.pt", quick_gelu=None if prefix else False)


def test_clip_pickles_with_code_are_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harmed",))

    torch.save({"state_dict": Harm()}, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"clip\.pt is refused, and nothing in it was run: it needs `"):
        load_clip(PLAIN, tmp_path / "clip.pt")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [b"", b"PK no zip", b"PK\3\4 no zip", pickle.dumps([1])])
def test_other_clip_files_are_refused_with_a_safe_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"clip weights .*clip\.pt (holds no weights|cannot be read)") as error:
        load_clip(PLAIN, tmp_path / "clip.pt")
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        ("ViT-B-32", "openai", "with QuickGELU.*use model 'ViT-B-32-quickgelu'"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "neither a file, .* nor a tag"),
        ("ViT-B-32", "nowhere", "neither a file, .*, nor a tag of 'ViT-B-32'; choose from its tags .*openai"),
    ],
)
def test_tags_that_do_not_fit_are_refused_before_any_download(
    model: str, weights: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openvis_model.weights.pretrained.fetch_clip", lambda _: pytest.fail("downloaded"))
    with pytest.raises(ValueError, match=message):
        load_clip(ClipConfig(model=model), weights)


def test_a_tag_is_read_from_the_cache_of_the_hub(offline: Path, repositories: dict[str, Files]) -> None:
    state = load(repositories[hub.CLIP][CLIP_WEIGHTS])
    clip = load_clip(ClipConfig(model="ViT-B-32"), "datacomp_xl_s13b_b90k")
    assert torch.equal(clip.state_dict()["text_projection"], state["text_projection"])
