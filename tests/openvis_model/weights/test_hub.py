import errno
import io
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load

from openvis_model.weights import hub as hub_module
from openvis_model.weights.hub import commit_of, fetch, fetch_clip, fetch_network
from openvis_model.weights.pretrained_proposals import load_mask_proposal
from tests import hub
from tests.hub import CLIP, CLIP_WEIGHTS, COMMIT, PROPOSAL_WEIGHTS, PROPOSALS, Files

TAG = open_clip.get_pretrained_cfg("ViT-B-32", "datacomp_xl_s13b_b90k")


def test_weights_are_fetched_once_into_the_usual_cache(
    repositories: dict[str, Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub.served(repositories) as (endpoint, requests):
        hub.use(monkeypatch, tmp_path, endpoint)
        folder, clip = fetch_network(PROPOSALS, "main"), fetch_clip(TAG)
    assert sum(request.startswith("GET") and "/resolve/" in request for request in requests) == 4
    assert not any("bin" in request for request in requests)
    assert folder == tmp_path / f"models--{PROPOSALS.replace('/', '--')}" / "snapshots" / COMMIT
    assert (folder / PROPOSAL_WEIGHTS).read_bytes() == repositories[PROPOSALS][PROPOSAL_WEIGHTS]
    assert clip.read_bytes() == repositories[CLIP][CLIP_WEIGHTS]
    assert commit_of(clip) == COMMIT
    hub.use(monkeypatch, tmp_path, None)
    assert (fetch_network(PROPOSALS, "main"), fetch_clip(TAG)) == (folder, clip)
    assert commit_of(tmp_path / "mine.safetensors") == ""


def test_a_repository_without_safetensors_is_read_without_running_its_pickle(
    repositories: dict[str, Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, pickled = repositories[PROPOSALS], io.BytesIO()
    torch.save(load(files[PROPOSAL_WEIGHTS]), pickled)
    kept = {name: content for name, content in files.items() if name != PROPOSAL_WEIGHTS}
    with hub.served({PROPOSALS: kept | {"pytorch_model.bin": pickled.getvalue()}}) as (endpoint, _):
        hub.use(monkeypatch, tmp_path, endpoint)
        network = load_mask_proposal(fetch_network(PROPOSALS, "main")).network
    state, published = network.state_dict(), load(files[PROPOSAL_WEIGHTS])
    assert torch.equal(state["class_predictor.weight"], published["class_predictor.weight"])


def refuse(error: Exception) -> Callable[..., str]:
    def download(*_: object, **__: object) -> str:
        raise error

    return download


def test_a_missing_file_is_named_with_what_to_do(offline: Path) -> None:
    folder = offline / f"models--{PROPOSALS.replace('/', '--')}"
    (folder / "snapshots" / COMMIT / PROPOSAL_WEIGHTS).unlink()
    (folder / "blobs/0.incomplete").touch()
    with pytest.raises(ValueError, match=f"^{PROPOSALS}: model.safetensors cannot be fetched: it is not in") as error:
        fetch_network(PROPOSALS, "main")
    text = str(error.value)
    assert str(folder) in text
    assert "a download of it was broken off" in text
    assert "HF_HUB_OFFLINE is set" in text
    assert f"hf download {PROPOSALS}" in text
    assert "jobs.make_checkpoint" in text
    with pytest.raises(ValueError, match="some/clip: open_clip_model.safetensors cannot be fetched: it is not in"):
        fetch_clip({"hf_hub": "some/clip/"})


def test_a_file_that_is_cut_off_is_named_with_what_to_do(
    offline: Path, repositories: dict[str, Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = offline.glob(f"*/snapshots/{COMMIT}/{CLIP_WEIGHTS}")
    content = file.resolve()
    content.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"^{CLIP}: {file.name} is cut off .*; remove {content} and run it again"):
        fetch_clip(TAG)
    content.unlink()
    with hub.served(repositories) as (endpoint, _):
        hub.use(monkeypatch, offline, endpoint)
        assert fetch_clip(TAG).read_bytes() == repositories[CLIP][CLIP_WEIGHTS]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, r"http://127.0.0.1:\d+/some/model does not exist or is private; .*HF_TOKEN"),
        ({"some/model": {"config.json": b"{}"}}, "preprocessor_config.json .* has no such file at revision"),
        (
            {"some/model": {"config.json": b"{}", "processor_config.json": b"{}"}},
            "model.safetensors .* has no such file at revision",
        ),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    files: dict[str, Files], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub.served(files) as (endpoint, _):
        hub.use(monkeypatch, tmp_path, endpoint)
        with pytest.raises(ValueError, match=expected):
            fetch_network("some/model", "main")


def test_a_full_disk_and_a_broken_network_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.use(monkeypatch, tmp_path, "http://127.0.0.1:9")
    for error, expected in (
        (OSError(errno.ENOSPC, "No space left on device"), f"no space is left in {tmp_path}; .*HF_HUB_CACHE"),
        (RuntimeError("proxy says no"), "proxy says no; check network, proxy, HF_ENDPOINT"),
    ):
        monkeypatch.setattr(hub_module, "hf_hub_download", refuse(error))
        with pytest.raises(ValueError, match=f"some/model: config.json cannot be fetched: {expected}"):
            fetch("some/model", ("config.json",), "main")
    monkeypatch.setattr(open_clip, "download_pretrained", refuse(RuntimeError("the checksum does not match")))
    with pytest.raises(ValueError, match=r"https://x/y\.pt: cannot be fetched \(the checksum does not match\); fetch"):
        fetch_clip({"url": "https://x/y.pt"})
