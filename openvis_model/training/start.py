"""Where a training starts: from a preset with pretrained weights or from a checkpoint, with ablations of either."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from openvis_model.config import InstFormerConfig, mini, paper
from openvis_model.inst_former import InstFormer
from openvis_model.tokenizer import Tokenizer
from openvis_model.training.config import StartConfig
from openvis_model.vocabulary import prompt_words
from openvis_model.weights.checkpoint import load_checkpoint
from openvis_model.weights.pretrained import load_clip, load_mask2former


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
            base = mini(prompt_words(names)) if config.preset == "mini" else paper(config.backbone)
            return _build(_ablated(base, config), config)
        model = load_checkpoint(config.checkpoint)
        ablated = _ablated(model.config, config)
        if ablated == model.config and config.clip is config.mask2former is None:
            return model
        start = replace(
            config,
            clip=config.clip or config.checkpoint,
            mask2former=config.mask2former or config.checkpoint,
        )
        variant = _build(ablated, start, model.text_encoder.tokenizer)
        same_classifier = (ablated.classifier, ablated.inst_clip) == (model.config.classifier, model.config.inst_clip)
        if same_classifier and config.clip is None:
            variant.classifier.load_state_dict(model.classifier.state_dict())
        if ablated.rollout_tracker == model.config.rollout_tracker:
            variant.rollout_tracker.load_state_dict(model.rollout_tracker.state_dict())
        return variant


def _ablated(base: InstFormerConfig, config: StartConfig) -> InstFormerConfig:
    fields = {name: getattr(config, name) for name in ("classifier", "inst_clip", "rollout_tracker")}
    return replace(base, **{name: value for name, value in fields.items() if value is not None})


def _build(config: InstFormerConfig, start: StartConfig, tokenizer: Tokenizer | None = None) -> InstFormer:
    clip = mask2former = None
    if start.clip is not None:
        clip = load_clip(config.clip, start.clip, quick_gelu=start.clip_quick_gelu)
    if start.mask2former is not None:
        folder = Path(start.mask2former)
        is_checkpoint = (folder / "mask_proposal.safetensors").is_file()
        mask2former = load_checkpoint(folder).mask_proposal.mask2former if is_checkpoint else load_mask2former(folder)
    return InstFormer(config, clip=clip, mask2former=mask2former, tokenizer=tokenizer)
