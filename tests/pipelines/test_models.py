from pathlib import Path

import pytest
import torch

from openvis_model.weights import fingerprint, save_checkpoint
from pipelines import s3
from pipelines.models import load_model
from tests.pipelines.conftest import Put
from tests.pipelines.s3_server import Proxy


def test_the_built_in_model_is_the_same_everywhere() -> None:
    torch.manual_seed(5)
    first = load_model(None)
    torch.manual_seed(6)
    state = torch.get_rng_state()
    assert fingerprint(load_model(None)) == fingerprint(first)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_checkpoint_is_loaded(tmp_path: Path) -> None:
    model = load_model(None)
    expected = save_checkpoint(model, tmp_path / "checkpoint")
    assert fingerprint(load_model(str(tmp_path / "checkpoint"))) == expected
    with pytest.raises(ValueError, match="not a checkpoint folder"):
        load_model(str(tmp_path))


def test_a_checkpoint_on_s3_is_loaded(bucket: str, proxy: Proxy, put: Put, tmp_path: Path) -> None:
    """By the files that it is made of; what else lies there is not even fetched."""
    expected = save_checkpoint(load_model(None), tmp_path / "checkpoint")
    for file in (tmp_path / "checkpoint").rglob("*"):
        if file.is_file():
            s3.upload(file, f"{bucket}/my model/{file.relative_to(tmp_path / 'checkpoint')}")
    for name in ("optimizer.pt", "code.pkl", "../other.json", "a/b.json"):
        put(f"{bucket}/my model/{name}", b"evil")
    proxy.requests.clear()
    assert fingerprint(load_model(f"{bucket}/my model/")) == expected
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
