"""What a model is put together from. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Licences = Literal["any", "permissive"]

PERMISSIVE = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT")
"""Licences, by their SPDX names, that allow commercial use."""

UNTRAINED: Mapping[str, Any] = {"tracker": {"association": {"kind": "hungarian", "token": "query"}}}
"""Options of `jobs.label` for a model whose rollout tracker is not trained."""


@dataclass(frozen=True, kw_only=True)
class ProposalPart:
    """Weights of a proposal network.

    Attributes:
        source: repository on the Hugging Face Hub (owner/name), or a path, local or in the cloud: a transformers
            folder, or detectron2's file.
        revision: commit, branch or tag of a repository, null is its main branch; the commit that was fetched is kept in
            the checkpoint.
        licence: licence of the weights, by its SPDX name.
        megabytes: size of the download, 10⁶ bytes.
    """

    source: str
    revision: str | None = None
    licence: str = "unknown"
    megabytes: int = 0


@dataclass(frozen=True, kw_only=True)
class ClipPart:
    """Weights of a CLIP.

    Attributes:
        source: MODEL/TAG of open_clip, or a path, local or in the cloud: a file, or a checkpoint folder.
        model: model of open_clip that a file holds; null if open_clip_config.json lies beside it.
        quick_gelu: whether a file was trained with QuickGELU; null if it tells by itself.
        licence: licence of the weights, by its SPDX name.
        megabytes: size of the download, 10⁶ bytes.
    """

    source: str
    model: str | None = None
    quick_gelu: bool | None = None
    licence: str = "unknown"
    megabytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model.

    Attributes:
        proposals: the proposal network.
        clip: the CLIP.
        short_side: working size: shorter side of the frames as both networks see them, pixels.
        label: options of `jobs.label` that suit it, such as thresholds; given ones win. By default, queries are linked
            as MinVIS does it, since no rollout tracker has been trained.

    Raises:
        ValueError: for a working size below 32 pixels.
    """

    proposals: ProposalPart
    clip: ClipPart
    short_side: int = 384
    label: Mapping[str, Any] = field(default_factory=lambda: UNTRAINED)

    def __post_init__(self) -> None:
        if self.short_side < 32:
            raise ValueError(f"short_side: expected at least 32 pixels, got {self.short_side}")

    @property
    def megabytes(self) -> int:
        """Size of the downloads, and about that of the checkpoint, 10⁶ bytes."""
        return self.proposals.megabytes + self.clip.megabytes

    def identity(self) -> dict[str, Any]:
        """Returns what the weights depend on, as plain values."""
        proposals, clip = self.proposals, self.clip
        return {
            "proposals": [proposals.source, proposals.revision or "main"],
            "clip": [clip.source, clip.model, clip.quick_gelu],
            "short_side": self.short_side,
        }

    def parts(self) -> dict[str, ProposalPart | ClipPart]:
        """Returns the parts by what they are called."""
        return {"proposals": self.proposals, "clip": self.clip}

    def restricted(self) -> list[str]:
        """Returns what is not known to be under a permissive licence, in words."""
        return [
            f"the licence of {name} ({part.source}) is {part.licence}"
            for name, part in self.parts().items()
            if part.licence not in PERMISSIVE
        ]


def check_licences(recipe: Recipe, allowed: Licences) -> None:
    """Checks that no part has a licence that the user excludes.

    Raises:
        ValueError: names the parts and their licences.
    """
    if allowed == "permissive" and (restricted := recipe.restricted()):
        raise ValueError(
            f"licence: {' and '.join(restricted)}, and only {', '.join(PERMISSIVE)} are known to be permissive; "
            "choose other weights (jobs.make_checkpoint --list), or leave --licence out"
        )
