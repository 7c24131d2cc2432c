"""Loads a checkpoint for inference, without the libraries that training needs."""

from pathlib import Path

from torch import nn

from openvis_model.folded.inst_clip import FoldedInstClip
from openvis_model.folded.inst_former import FoldedInstFormer
from openvis_model.folded.mask_proposal import FoldedMaskProposal
from openvis_model.options import InstClipConfig
from openvis_model.picture_encoder import PictureEncoder
from openvis_model.towers import VisionTowerConfig, is_timm
from openvis_model.weights.files import BUILT_IN, Stored, read_checkpoint
from openvis_model.weights.light_model import architecture_of, build_light_model
from openvis_model.weights.state_dicts import load_strictly


def load(checkpoint: str | Path | None = None) -> FoldedInstFormer:
    """Loads the model of a checkpoint folder for inference, or the built-in one, on the CPU.

    Args:
        checkpoint: folder written by `save_checkpoint`; None is the built-in model, which knows the words of the Shapes
            categories and no others.

    Raises:
        ValueError: names the file and what is wrong with it.
    """
    return build_folded_model(read_checkpoint(Path(BUILT_IN if checkpoint is None else checkpoint)))


def build_folded_model(stored: Stored) -> FoldedInstFormer:
    """Builds the model for inference of a checkpoint that has been read.

    Raises:
        ValueError: names what is wrong with the checkpoint.
    """
    light = build_light_model(stored)
    return FoldedInstFormer(
        _mask_proposal(stored),
        _classifier(stored),
        light.text_encoder,
        light.rollout_tracker,
        short_side=light.short_side,
        fingerprint=light.fingerprint,
    )


def load_picture_encoder(checkpoint: str | Path | None = None) -> PictureEncoder:
    """Loads what embeds pictures, of a checkpoint folder or the built-in model, on the CPU.

    Raises:
        ValueError: names the file and what is wrong with it.
    """
    stored = read_checkpoint(Path(BUILT_IN if checkpoint is None else checkpoint))
    classifier = _classifier(stored).eval().requires_grad_(False)
    return PictureEncoder(classifier, short_side=stored.config["short_side"])


def _mask_proposal(stored: Stored) -> nn.Module:
    """Builds a folded Mask2Former; other networks have no folded form and run as `transformers` has them."""
    config, state = stored.config["mask_proposal"], stored.states["mask_proposal"]
    short_side = stored.config["short_side"]
    if "mask2former" in config:
        pixels = {name: config[name] for name in ("pixel_mean", "pixel_std") if name in config}
        return FoldedMaskProposal(config["mask2former"], state, short_side=short_side, **pixels)
    from transformers.initialization import no_init_weights

    from openvis_model.config import InstFormerConfig  # takes seconds to import
    from openvis_model.proposal_networks import build_mask_proposal

    try:
        proposal = InstFormerConfig.from_dict(stored.config).mask_proposal
    except ValueError as error:
        raise ValueError(f"{stored.folder}/config.json: {error}") from error
    with no_init_weights():  # random numbers for 300 million weights take six seconds
        network = build_mask_proposal(proposal, short_side=short_side)
    load_strictly(network.network, state, source=f"{stored.folder}/mask_proposal.safetensors")
    return network


def _classifier(stored: Stored) -> nn.Module:
    clip, architecture = stored.config["clip"], architecture_of(stored.config["clip"])
    if stored.config["classifier"] == "inst_clip" and not is_timm(architecture):
        return FoldedInstClip(
            InstClipConfig(**stored.config["inst_clip"]),
            clip,
            VisionTowerConfig.of(architecture),
            state=stored.states["clip"],
            tokens=stored.states["inst_clip"],
            adapters=stored.states["adapter/adapter_model"],
            short_side=_classifier_side(stored),
        )
    return _trained_classifier(stored)


def _classifier_side(stored: Stored) -> int:
    side: int = stored.config.get("classifier_short_side") or stored.config["short_side"]
    return side


def _trained_classifier(stored: Stored) -> nn.Module:
    """Builds a classifier that has no folded form as it is trained, with its adapters merged."""
    from openvis_model.clip import ClipConfig, build_clip
    from openvis_model.crop_clip import CropClip
    from openvis_model.inst_clip import InstClip
    from openvis_model.weights.inst_clip import load_inst_clip

    clip, short_side = stored.config["clip"], _classifier_side(stored)
    lists = {name: tuple(clip[name]) for name in ("words", "pixel_mean", "pixel_std")}
    model = build_clip(ClipConfig(**clip | lists))
    load_strictly(model, stored.states["clip"], source=f"{stored.folder}/clip.safetensors")
    if stored.config["classifier"] == "crop_clip":
        return CropClip(model.visual, short_side=short_side)
    N = max(len(tokens) for tokens in stored.states["inst_clip"].values())
    config = InstClipConfig(**stored.config["inst_clip"])
    classifier = InstClip(config, model.visual, num_queries=N, short_side=short_side)
    load_inst_clip(classifier, stored.states, stored.folder)
    classifier.merge_adapters()
    return classifier
