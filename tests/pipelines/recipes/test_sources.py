import json
from pathlib import Path

import pytest

from openvis_model.config import InstFormerConfig
from openvis_model.inst_former import InstFormer
from openvis_model.weights.checkpoint import save_checkpoint
from openvis_model.weights.pretrained import load_clip
from openvis_model.weights.pretrained_proposals import load_mask_proposal
from pipelines.recipes.recipe import ClipPart, ProposalPart
from pipelines.recipes.sources import local_clip, local_proposals
from tests import hub
from tests.hub import CLIP_WEIGHTS, COMMIT, PROPOSAL_FILES, PROPOSALS, SMALL_CLIP, Files
from tests.pipelines.storage.put import Put

HUB_CONFIG = json.dumps({"model_cfg": SMALL_CLIP, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}})


def test_proposals_come_from_the_hub_a_path_or_s3(
    offline: Path, repositories: dict[str, Files], bucket: str, put: Put
) -> None:
    with local_proposals(ProposalPart(source=PROPOSALS)) as fetched:
        assert fetched.revision == COMMIT
        with local_proposals(ProposalPart(source=str(fetched.path))) as local:
            assert (local.path, local.revision) == (fetched.path, "")
    for name, content in {**repositories[PROPOSALS], "code.py": b"evil"}.items():
        put(f"{bucket}/network/{name}", content)
    with local_proposals(ProposalPart(source=f"{bucket}/network")) as copied:
        assert sorted(file.name for file in copied.path.iterdir()) == sorted(PROPOSAL_FILES)
        load_mask_proposal(copied.path)
    assert not copied.path.exists()


@pytest.mark.parametrize("where", ["here", "on s3"])
def test_a_clip_comes_with_its_description(
    where: str, offline: Path, repositories: dict[str, Files], bucket: str, put: Put, tmp_path: Path
) -> None:
    content = repositories[hub.CLIP][CLIP_WEIGHTS]
    if where == "here":
        (tmp_path / CLIP_WEIGHTS).write_bytes(content)
        (tmp_path / "open_clip_config.json").write_text(HUB_CONFIG)
        source = str(tmp_path / CLIP_WEIGHTS)
    else:
        source = put(f"{bucket}/clip/{CLIP_WEIGHTS}", content)
        put(f"{bucket}/clip/open_clip_config.json", HUB_CONFIG.encode())
    for given in (source, source.removesuffix(f"/{CLIP_WEIGHTS}")):
        with local_clip(ClipPart(source=given)) as clip:
            assert (clip.config.architecture, clip.config.pixel_mean) == (SMALL_CLIP, (0.5, 0.5, 0.5))
            load_clip(clip.config, clip.weights)


def test_a_clip_comes_from_a_tag_a_file_or_a_checkpoint(
    offline: Path, repositories: dict[str, Files], mini_model: InstFormer, mini_config: InstFormerConfig, tmp_path: Path
) -> None:
    with local_clip(ClipPart(source="ViT-B-32/datacomp_xl_s13b_b90k")) as clip:
        assert (clip.config.model, clip.weights, clip.revision) == ("ViT-B-32", "datacomp_xl_s13b_b90k", COMMIT)
    save_checkpoint(mini_model, tmp_path / "checkpoint")
    for source in (tmp_path / "checkpoint", tmp_path / "checkpoint/clip.safetensors"):
        with local_clip(ClipPart(source=str(source))) as clip:
            assert clip.config == mini_config.clip
            load_clip(clip.config, clip.weights)
    (tmp_path / "mine.safetensors").write_bytes(repositories[hub.CLIP][CLIP_WEIGHTS])
    with local_clip(ClipPart(source=str(tmp_path / "mine.safetensors"), model="ViT-B-32")) as clip:
        load_clip(clip.config, clip.weights, quick_gelu=False)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a/b/c", "clip: a/b/c is neither a path nor MODEL/TAG of open_clip; correct it"),
        ("ViT-B-32/datacom", "clip: ViT-B-32 has no weights 'datacom'; choose from openai, .*datacomp_xl_s13b_b90k"),
        (__file__, "clip_model: which model of open_clip is .*test_sources.py"),
        ("s3://no-such-bucket/a.pt", "clip: s3://no-such-bucket/: there is no such bucket"),
    ],
)
def test_a_clip_that_cannot_be_found_is_named(source: str, message: str, bucket: str) -> None:
    with pytest.raises(ValueError, match=message), local_clip(ClipPart(source=source)):
        pass


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("weights/final/model.pkl", "proposals: weights/final/model.pkl is neither a path nor a repository of the hub"),
        ("some/network", "some/network: config.json cannot be fetched"),
    ],
)
def test_proposals_that_cannot_be_found_are_named(source: str, message: str, offline: Path) -> None:
    with pytest.raises(ValueError, match=message), local_proposals(ProposalPart(source=source)):
        pass
