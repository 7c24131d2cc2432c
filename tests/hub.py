"""A Hugging Face Hub on this machine: its cache as it lies on disk, a server, and what small repositories hold."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from pipelines.recipes.recipe import ClipPart, ProposalPart, Recipe
from tests.networks import OUT, TINY, TINY_BACKBONES

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROPOSALS, CLIP = "facebook/mask2former-swin-tiny-coco-instance", "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K"
PROPOSAL_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
PROPOSAL_WEIGHTS, CLIP_WEIGHTS = "model.safetensors", "open_clip_model.safetensors"

RECIPE = Recipe(
    proposals=ProposalPart(source=PROPOSALS, licence="CC-BY-NC-4.0"),
    clip=ClipPart(source="ViT-B-32/datacomp_xl_s13b_b90k", licence="MIT"),
    short_side=64,
)
"""A small model of the two repositories."""

SMALL_CLIP: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "patch_size": 32, "width": 32, "head_width": 16, "layers": 2},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
"""What `make_clip_small` makes of ViT-B-32: as wide as the instances that the stand-in for the model finds."""

Files = Mapping[str, bytes]


def make_clip_small(patch: pytest.MonkeyPatch) -> None:
    """Makes open_clip's ViT-B-32 small, in this process."""
    patch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", deepcopy(SMALL_CLIP))


def write_repositories(folder: Path) -> dict[str, Files]:
    """Returns the files of the two repositories, as published: small networks with random weights."""
    sizes = {"hidden_dim": 64, "feature_size": 64, "mask_feature_size": 64, "decoder_layers": 4}
    config = Mask2FormerConfig.from_dict(TINY | sizes | {"backbone_config": TINY_BACKBONES["swin"] | OUT})
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)  # under the names of published files
    weights = folder / PROPOSAL_WEIGHTS
    save_file(_as_in_2023(load_file(weights)), weights, metadata={"format": "pt"})
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.485, 0.456, 0.406]}')
    clip = open_clip.CLIP(**deepcopy(SMALL_CLIP)).state_dict()
    save_file({name: tensor.clone() for name, tensor in clip.items()}, folder / CLIP_WEIGHTS)
    return {
        PROPOSALS: {name: (folder / name).read_bytes() for name in PROPOSAL_FILES},
        CLIP: {CLIP_WEIGHTS: (folder / CLIP_WEIGHTS).read_bytes()},
    }


def _as_in_2023(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Files of Swins have a table that today's transformers computes, and lack a norm that it has but never uses."""
    state = {name: tensor for name, tensor in state.items() if ".encoder.swin.layernorm." not in name}
    tables = [name for name in state if name.endswith("relative_position_bias_table")]
    return state | {name.replace("bias_table", "index"): torch.zeros(16, 16, dtype=torch.long) for name in tables}


def recipe_for_workers(folder: Path, repositories: Mapping[str, Files]) -> Recipe:
    """Returns a recipe whose CLIP a file describes: in processes of Ray, open_clip's ViT-B-32 is not small."""
    (folder / CLIP_WEIGHTS).write_bytes(repositories[CLIP][CLIP_WEIGHTS])
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL_CLIP}))
    return replace(RECIPE, clip=ClipPart(source=str(folder / CLIP_WEIGHTS), licence="MIT"))


def write_cache(cache: Path, repositories: Mapping[str, Files]) -> None:
    """Writes repositories as huggingface_hub keeps what it has downloaded."""
    for repo, files in repositories.items():
        folder = cache / f"models--{repo.replace('/', '--')}"
        snapshot = folder / "snapshots" / COMMIT
        for each in (folder / "blobs", folder / "refs", snapshot):
            each.mkdir(parents=True, exist_ok=True)
        (folder / "refs/main").write_text(COMMIT)
        for name, content in files.items():
            blob = hashlib.sha256(content).hexdigest()
            (folder / "blobs" / blob).write_bytes(content)
            (snapshot / name).symlink_to(f"../../blobs/{blob}")


@contextmanager
def served(repositories: Mapping[str, Files]) -> Iterator[tuple[str, list[str]]]:
    """Serves repositories like the hub; gives the address and the list of requests."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            requests.append(f"{self.command} {self.path}")
            repo, _, rest = self.path[1:].partition("/resolve/")
            content = repositories.get(repo, {}).get(rest.partition("/")[2])
            self.send_response(200 if content is not None else 404)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound" if repo in repositories else "RepoNotFound")
            else:
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if with_body and content is not None:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use(patch: pytest.MonkeyPatch, cache: Path, endpoint: str | None) -> None:
    """Makes this process use a cache and an address of the hub; None is offline."""
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", endpoint is None)
    patch.setattr(constants, "ENDPOINT", endpoint or "https://huggingface.co")
    if endpoint:
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
