"""Where a training starts: from a preset with pretrained weights or from a checkpoint, with ablations of either."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from openvis_model.config import InstFormerConfig, mini, paper
from openvis_model.inst_former import InstFormer
from openvis_model.mask_proposal import PretrainedProposals
from openvis_model.tokenizer import Tokenizer
from openvis_model.training.config import StartConfig
from openvis_model.vocabulary import prompt_words
from openvis_model.weights.checkpoint import load_checkpoint
from openvis_model.weights.pretrained import load_clip
from openvis_model.weights.pretrained_proposals import load_mask_proposal


def start_model(config: StartConfig, names: Sequence[str]) -> InstFormer:
    """Builds the model to train, in eval mode; the same config gives the same weights.

    Args:
        config: where to start.
        names: the training vocabulary; the CLIP of the preset `mini` knows only its words.

    Raises:
        ValueError: for weights that are missing, damaged, or of another model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.checkpoint is None:
            base = mini(prompt_words(names)) if config.preset == "mini" else paper(config.backbone or "resnet50")
            return _build(_ablated(base, config), config)
        model = load_checkpoint(config.checkpoint)
        ablated = _ablated(model.config, config)
        if ablated == model.config and config.clip is config.mask_proposal is None:
            return model
        start = replace(
            config,
            clip=config.clip or config.checkpoint,
            mask_proposal=config.mask_proposal or config.checkpoint,
        )
        variant = _build(ablated, start, model.text_encoder.tokenizer)
        _check_sizes(model, variant)
        same_classifier = (ablated.classifier, ablated.inst_clip) == (model.config.classifier, model.config.inst_clip)
        if same_classifier and config.clip is None:
            variant.classifier.load_state_dict(model.classifier.state_dict())
        if ablated.rollout_tracker == model.config.rollout_tracker:
            variant.rollout_tracker.load_state_dict(model.rollout_tracker.state_dict())
        return variant


def _check_sizes(model: InstFormer, variant: InstFormer) -> None:
    """Checks that another proposal network fits what the checkpoint has learned of its queries.

    Raises:
        ValueError: names both sizes.
    """
    for name in ("num_queries", "query_width"):
        own, other = getattr(model.mask_proposal, name), getattr(variant.mask_proposal, name)
        if own != other:
            raise ValueError(
                f"start.mask_proposal: its {name} is {other}, that of start.checkpoint {own}; start from a preset"
            )


def _ablated(base: InstFormerConfig, config: StartConfig) -> InstFormerConfig:
    fields = {name: getattr(config, name) for name in ("classifier", "inst_clip", "rollout_tracker")}
    return replace(base, **{name: value for name, value in fields.items() if value is not None})


def _build(config: InstFormerConfig, start: StartConfig, tokenizer: Tokenizer | None = None) -> InstFormer:
    clip = proposals = None
    if start.clip is not None:
        clip = load_clip(config.clip, start.clip, quick_gelu=start.clip_quick_gelu)
    if start.mask_proposal is not None:
        proposals = _load_proposals(Path(start.mask_proposal))
        if start.backbone is None:
            config = replace(config, mask_proposal=proposals.config)
    return InstFormer(config, clip=clip, proposals=proposals, tokenizer=tokenizer)


def _load_proposals(path: Path) -> PretrainedProposals:
    if not (path / "mask_proposal.safetensors").is_file():
        return load_mask_proposal(path)
    mask_proposal = load_checkpoint(path).mask_proposal
    return PretrainedProposals(mask_proposal.config, mask_proposal.network)
