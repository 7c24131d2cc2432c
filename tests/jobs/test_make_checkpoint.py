from pathlib import Path

import pytest

from jobs.make_checkpoint import main
from jobs.recipes import recipe_names
from openvis_model.weights.folded_model import load
from tests.hub import COMMIT, PROPOSALS
from tests.jobs.in_process import run

TINY = "mask2former-swin-tiny"


def test_recipes_are_listed_with_licences_and_sizes() -> None:
    listed = run(main, "--list")
    assert listed.returncode == 0
    header, *rows = listed.stdout.splitlines()
    assert [row.split()[0] for row in rows] == recipe_names()
    assert header.split()[:3] == ["model", "proposals", "licence"]
    (tiny,) = [row.split() for row in rows if row.startswith(TINY)]
    assert tiny[2:] == ["CC-BY-NC-4.0", "ViT-B-32/datacomp_xl_s13b_b90k", "MIT", "795", "384"]


def test_a_recipe_and_its_parts_make_the_same_model(offline: Path, tmp_path: Path) -> None:
    made = run(main, "--model", TINY, "--output", tmp_path / "made")
    assert (made.returncode, "No fine-tuning has been done" in made.stdout) == (0, True), made.stderr
    network = offline / f"models--{PROPOSALS.replace('/', '--')}/snapshots/{COMMIT}"
    clip = "ViT-B-32/datacomp_xl_s13b_b90k"
    assert run(main, "--proposals", network, "--clip", clip, "--output", tmp_path / "parts").returncode == 0
    larger = ("--model", TINY, "--short_side", "480", "--output", tmp_path / "larger")
    assert run(main, *larger).returncode == 0
    models = [load(tmp_path / name) for name in ("made", "parts", "larger")]
    assert models[0].fingerprint == models[1].fingerprint != models[2].fingerprint
    assert models[2].short_side == 480


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "model: missing; give the name of a recipe (--list shows them), or proposals and clip"),
        (["--model", TINY], "output: missing"),
        (["--model", TINY, "--clip", "a"], "model: has its own proposals and clip"),
        (["--model", "mask2former", "--output", "x"], "there is no recipe 'mask2former'; did you mean"),
        (["--model", TINY, "--output", "x", "--licence", "permissive"], "licence of proposals"),
        (["--proposals", "a", "--clip", "b", "--output", "x"], "proposals: a is neither a path nor a repository"),
        (["--proposals", ".", "--clip", "b", "--output", "x"], "clip: b is neither a path nor MODEL/TAG of open_clip"),
        (["--proposals", __file__, "--clip", __file__, "--output", "x"], "clip_model: which model"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], expected: str, offline: Path) -> None:
    refused = run(main, *arguments)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("make_checkpoint: error: ")
    assert expected in line


def test_another_architecture_in_a_folder_is_named(offline: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    refused = run(main, "--proposals", tmp_path, "--clip", "ViT-B-32/datacomp_xl_s13b_b90k", "--output", tmp_path / "x")
    assert refused.returncode == 2
    assert f"{tmp_path}/config.json: model_type: unknown value 'sam'" in refused.stderr
