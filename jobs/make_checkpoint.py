"""Puts a model together from published weights of a proposal network and of a CLIP, without any training.

python -m jobs.make_checkpoint --list
python -m jobs.make_checkpoint --model mask2former-swin-tiny --output checkpoints/tiny
python -m jobs.make_checkpoint --proposals model_final_3c8ec9.pkl --clip ViT-B-16/datacomp_xl_s13b_b90k --output mine

The folder is for --checkpoint of the other jobs. The exit code is 0, 1 if it failed, 2 for bad input,
75 if it was interrupted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jobs.command import run_job, start
from jobs.options import read_config
from jobs.recipes import origin_line, read_recipe, recipe_names
from pipelines.recipes.recipe import ClipPart, Licences, ProposalPart, Recipe, check_licences


@dataclass(frozen=True, kw_only=True)
class MakeCheckpointConfig:
    """A model put together.

    Attributes:
        output: the checkpoint folder, local or in the cloud; it must not exist.
        model: name of a recipe; instead of proposals and clip.
        proposals: weights of a proposal network: a repository on the Hugging Face Hub (owner/name), or a path, local or
            in the cloud, of a transformers folder or of detectron2's file.
        revision: commit, branch or tag of the repository; null is its main branch.
        clip: weights of a CLIP: MODEL/TAG of open_clip, or a path, local or in the cloud, of a file or a checkpoint
            folder.
        clip_model: model of open_clip that the file of a CLIP holds; null if open_clip_config.json lies beside it.
        clip_quick_gelu: whether the file was trained with OpenAI's activation, QuickGELU; null if it tells by itself.
        short_side: working size: shorter side of the frames as both networks see them, pixels; null is that of the
            recipe, or 384.
        licence: licences that the weights may have: `any`, or `permissive` ones, which allow commercial use. Those of
            your own proposals and clip are unknown, so they count as not permissive.
        list: print the recipes, their licences and sizes instead.
    """

    output: str | None = None
    model: str | None = None
    proposals: str | None = None
    revision: str | None = None
    clip: str | None = None
    clip_model: str | None = None
    clip_quick_gelu: bool | None = None
    short_side: int | None = None
    licence: Licences = "any"
    list: bool = False

    def recipe(self) -> Recipe:
        """Returns what the model is put together from.

        Raises:
            ValueError: too little is given, or too much.
        """
        if self.model is not None:
            for name in ("proposals", "revision", "clip", "clip_model", "clip_quick_gelu"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name}: got {getattr(self, name)!r}, but the recipe {self.model} has its own; leave one of "
                        f"--model and --{name} out"
                    )
            recipe = read_recipe(self.model)
        elif self.proposals and self.clip:
            recipe = Recipe(
                proposals=ProposalPart(source=self.proposals, revision=self.revision),
                clip=ClipPart(source=self.clip, model=self.clip_model, quick_gelu=self.clip_quick_gelu),
            )
        else:
            raise ValueError("model: missing; give the name of a recipe (--list shows them), or proposals and clip")
        return recipe if self.short_side is None else replace(recipe, short_side=self.short_side)


_USE = """\
Label videos with one of them: python -m jobs.label --input videos/ --output labels/ --vocabulary names.txt --model NAME
The first use fetches its weights. --licence permissive refuses those that do not allow commercial use."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("make_checkpoint", lambda: _make(arguments), interrupted="nothing is written")


def _make(arguments: Sequence[str] | None) -> int:
    config = read_config("make_checkpoint", __doc__, MakeCheckpointConfig, arguments)
    if config.list:
        print(table())
        return 0
    recipe = config.recipe()
    if config.output is None:
        raise ValueError("output: missing; give the folder of the checkpoint")
    check_licences(recipe, config.licence)

    from pipelines.recipes.build import make_checkpoint

    make_checkpoint(recipe, config.output)
    print(origin_line(config.output))
    return 0


def table() -> str:
    """Returns a line for each recipe, with its parts, licences and size, and how to use one."""
    rows = [("--model", "download", "short side", "proposals", "their licence", "CLIP", "its licence")]
    for name in recipe_names():
        recipe = read_recipe(name)
        size, side = f"{recipe.megabytes / 1000:.1f} GB", f"{recipe.short_side} pixels"
        parts = [text for part in (recipe.proposals, recipe.clip) for text in (part.source, part.licence)]
        rows.append((name, size, side, *parts))  # type: ignore[arg-type]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", _USE])


if __name__ == "__main__":
    start(main)
