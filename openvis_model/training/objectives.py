"""The objectives of the two training stages (OpenVIS, "Training"): clips in, weighted losses out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openvis_model.inst_former import InstFormer
from openvis_model.instances import tracking_tokens
from openvis_model.proposals import Proposals
from openvis_model.rollout_tracker import rollout_loss
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.training.config import InstanceObjectiveConfig, TrackingObjectiveConfig
from openvis_model.training.losses import classification_loss, margin_loss
from openvis_model.training.set_criterion import Match, SetCriterion
from openvis_model.training.training_clip import TrainingClip
from openvis_model.vocabulary import Vocabulary
from openvis_model.weights.checkpoint import save_checkpoint


class InstanceObjective(nn.Module):
    """Stage 1: proposals and InstCLIP.

    The classification loss has no gradient through the masks that guide InstCLIP, so proposals stay class-agnostic.

    Args:
        model: the model to train; InstCLIP and the proposal network become trainable.
        names: the training vocabulary.
        config: the losses.

    Raises:
        ValueError: for names that the model's CLIP cannot read, or a classifier without anything to train if
            proposals are not trained.
    """

    def __init__(self, model: InstFormer, names: Sequence[str], config: InstanceObjectiveConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.criterion = SetCriterion(config.criterion)
        model.train_only(1)
        self.classifies = config.classification_weight > 0 and bool(model.classifier.trainable_parameters())
        if not self.classifies:
            model.classifier.requires_grad_(False)
        if not config.train_proposals:
            if not self.classifies:
                raise ValueError("train_proposals: must be true, because this model's classifier is not trained")
            model.mask_proposal.requires_grad_(False)
        vocabulary = embed_vocabulary(Vocabulary.of_dataset(names), model.text_encoder)
        self.register_buffer("embeddings", vocabulary.embeddings, persistent=False)
        self.embeddings: Tensor
        self.logit_scale, self.logit_bias = vocabulary.logit_scale, vocabulary.logit_bias

    def counts(self, clips: Sequence[TrainingClip]) -> Float[Tensor, "4"]:
        """Counts masks, weights of the objectness loss, frames, and matched queries of these clips."""
        queries, clips = self.model.mask_proposal.num_queries, self._matchable(clips)
        frames = [(int(count), clip.exhaustive) for clip in clips for count in presence(clip).sum(0)]
        weight = sum(self.criterion.presence_weight(count, queries, exhaustive=whole) for count, whole in frames)
        objects = [count for count, _ in frames]
        return torch.tensor([sum(objects), weight, len(objects), sum(min(count, queries) for count in objects)])

    def forward(self, clips: Sequence[TrainingClip], normalisers: Float[Tensor, "4"]) -> dict[str, Tensor]:
        """Computes the losses "objectness", "mask", "dice", "margin" and "classification" of B clips of T frames.

        A proposal network with boxes has the loss "box", too; one that is not trained has none of these, which leaves
        "classification". Each is a weighted sum over these clips, divided by its normaliser.

        Args:
            clips: clips of one size and length.
            normalisers: `counts` of all clips that the gradient is averaged over.

        Raises:
            ValueError: if training has diverged.
        """
        num_masks, presence_weight, num_frames, num_matched = normalisers.clamp(min=1e-6).tolist()
        clips = self._matchable(clips)
        frames = stack_frames(clips, self.embeddings.device)
        network, trained = self.model.mask_proposal, self.config.train_proposals
        layers = network.layers(frames) if trained else [network(frames)]
        losses: dict[str, Tensor] = {}
        matches: list[Match] = []
        length = len(clips[0].frames)
        for index, clip in enumerate(clips):
            own = slice(index * length, (index + 1) * length)
            result = self.criterion(
                [layer.mask_logits[own] for layer in layers],
                [layer.objectness_logits[own] for layer in layers],
                targets(clip),
                boxes=[layer.boxes[own] for layer in layers if layer.boxes is not None] or None,
                generator=torch.Generator().manual_seed(clip.seed),
                num_masks=num_masks,
                presence_weight=presence_weight,
                exhaustive=clip.exhaustive,
                objects=shown_objects(clip) if self.config.matching == "clip" else None,
            )
            matches += result.matches
            for name, value in result.losses.items() if trained else ():
                losses[name] = losses.get(name, value.new_zeros(())) + value
        last = layers[-1]
        if self.config.margin_weight and trained:
            margin = margin_loss(last.queries, self.config.margin) * len(frames) / num_frames
            losses["margin"] = self.config.margin_weight * margin
        if self.classifies:
            tokens, categories, rivals = self._instance_tokens(frames, last, matches, clips)
            loss = classification_loss(tokens, self.embeddings, categories, self.logit_scale, rivals, self.logit_bias)
            losses["classification"] = self.config.classification_weight * loss * len(tokens) / num_matched
        return losses

    def _matchable(self, clips: Sequence[TrainingClip]) -> Sequence[TrainingClip]:
        """Returns clips whose objects can all have a query of their own where a clip is matched as a whole."""
        most = self.model.mask_proposal.num_queries
        return clips if self.config.matching == "frame" else [most_shown(clip, most) for clip in clips]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the trainable parameters of the backbone, the rest of the proposal network, and InstCLIP."""
        proposal, classifier = self.model.mask_proposal, self.model.classifier
        backbone = set(proposal.backbone().parameters())
        trained = proposal.trainable_parameters() if self.config.train_proposals else []
        groups = {
            "backbone": [parameter for parameter in trained if parameter in backbone],
            "proposals": [parameter for parameter in trained if parameter not in backbone],
            "inst_clip": classifier.trainable_parameters() if self.classifies else [],
        }
        return {name: parameters for name, parameters in groups.items() if parameters}

    def train(self, mode: bool = True) -> "InstanceObjective":
        """Switches to training or evaluation; proposals that are not trained are always those of inference."""
        super().train(mode)
        self.model.mask_proposal.train(mode and self.config.train_proposals)
        return self

    def advance(self, progress: float) -> None:
        """Anneals what the proposal network does in training alone."""
        self.model.mask_proposal.anneal(progress)

    def save(self, folder: Path) -> None:
        """Writes the whole model as a checkpoint folder."""
        save_checkpoint(self.model, folder)

    def _instance_tokens(
        self, frames: Tensor, proposals: Proposals, matches: Sequence[Match], clips: Sequence[TrainingClip]
    ) -> tuple[Float[Tensor, "M D"], Int[Tensor, "M"], Bool[Tensor, "M K"]]:
        """Embeds the matched queries, and returns their instance tokens, categories and rival names.

        Instance tokens do not attend to each other, so the unmatched queries need not be embedded.
        """
        device = frames.device
        most = max(len(match.query_index) for match in matches)
        query_index = torch.zeros(len(matches), most, dtype=torch.long, device=device)
        valid = torch.zeros(len(matches), most, dtype=torch.bool, device=device)
        categories, rivals = [], []
        shown_objects = [(clip, np.flatnonzero(shown)) for clip in clips for shown in presence(clip).T]
        for row, (match, (clip, shown)) in enumerate(zip(matches, shown_objects, strict=True)):
            query_index[row, : len(match.query_index)] = match.query_index
            valid[row, : len(match.query_index)] = True
            objects = shown[match.object_index.cpu().numpy()]
            categories.append(torch.from_numpy(clip.categories[objects]))
            rivals.append(
                torch.ones(len(objects), len(self.embeddings), dtype=torch.bool)
                if clip.rivals is None
                else torch.from_numpy(clip.rivals[objects])
            )
        frame_index = torch.arange(len(frames), device=device)[:, None]
        mask_logits = proposals.mask_logits[frame_index, query_index].detach()
        tokens = self.model.classifier(frames, mask_logits, query_index)
        return tokens[valid], torch.cat(categories).to(device), torch.cat(rivals).to(device)


class AlignedTokens(NamedTuple):
    """Arguments of `rollout_loss` for B clips of T frames; O is the largest number of objects in a clip, at least 1.

    `tokens` are the candidates of each frame and padding, `token_index` says which one is matched to each object, and
    `present` in which frames there is one.
    """

    tokens: Float[Tensor, "B T N E"]
    candidates: Bool[Tensor, "B T N"]
    token_index: Int[Tensor, "B T O"]
    present: Bool[Tensor, "B T O"]


class TrackingObjective(nn.Module):
    """Stage 2: the rollout tracker alone, on tokens of the frozen model (Eq. 6).

    Args:
        model: the model to train; its rollout tracker becomes trainable.
        config: the loss.
    """

    def __init__(self, model: InstFormer, config: TrackingObjectiveConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.criterion = SetCriterion(config.criterion)
        model.train_only(2)

    def counts(self, clips: Sequence[TrainingClip]) -> Float[Tensor, "1"]:
        """Counts the predictions: appearances of an object after its first."""
        return torch.tensor([float(sum(predictions(presence(clip)) for clip in clips))])

    def forward(self, clips: Sequence[TrainingClip], normalisers: Float[Tensor, "1"]) -> dict[str, Tensor]:
        """Computes the loss "tracking" of B clips of T frames: the sum over predictions, divided by `normalisers`.

        Args:
            clips: clips of one size and length.
            normalisers: `counts` of all clips that the gradient is averaged over.
        """
        aligned = self.aligned_tokens(clips)
        loss = rollout_loss(self.model.rollout_tracker, *aligned, temperature=self.config.temperature)
        count = sum(predictions(shown.T.cpu().numpy()) for shown in aligned.present)
        return {"tracking": loss * count / normalisers.clamp(min=1e-6)[0]}

    @torch.no_grad()
    def aligned_tokens(self, clips: Sequence[TrainingClip]) -> AlignedTokens:
        """Returns the tracking tokens that are the candidates of Eq. 6, and which of them belong to which object.

        InstCLIP embeds the candidates alone.
        """
        device = next(self.model.parameters()).device
        frames = stack_frames(clips, device)
        proposals = self.model.mask_proposal(frames)
        matched, present = self._matched_queries(clips, proposals)
        shape = matched.shape[:2]
        if self.config.candidates == "all":
            num_queries = proposals.queries.shape[1]
            query_index = torch.arange(num_queries, device=device).expand(*shape, num_queries)
            candidates, token_index = torch.ones_like(query_index, dtype=torch.bool), matched
        else:
            query_index, candidates = matched, present
            token_index = torch.arange(matched.shape[2], device=device).expand_as(matched)
        frame_index = torch.arange(len(frames), device=device)[:, None]
        query_index = query_index.flatten(0, 1)
        instance_tokens = self.model.classifier(frames, proposals.mask_logits[frame_index, query_index], query_index)
        queries = proposals.queries[frame_index, query_index]
        kind = self.model.config.rollout_tracker.token
        tokens = tracking_tokens(instance_tokens.float(), queries.float(), kind).unflatten(0, shape)
        return AlignedTokens(tokens, candidates, token_index, present)

    def _matched_queries(
        self, clips: Sequence[TrainingClip], proposals: Proposals
    ) -> tuple[Int[Tensor, "B T O"], Bool[Tensor, "B T O"]]:
        """Returns the query matched to each annotated object, and in which frames there is one."""
        device = proposals.queries.device
        length, most = len(clips[0].frames), max(1, *(len(clip.masks) for clip in clips))
        query_index = torch.zeros(len(clips), length, most, dtype=torch.long, device=device)
        present = torch.zeros(query_index.shape, dtype=torch.bool, device=device)
        for b, clip in enumerate(clips):
            generator = torch.Generator().manual_seed(clip.seed)
            for t, (masks, shown) in enumerate(zip(targets(clip), presence(clip).T, strict=True)):
                match = self.criterion.match(
                    proposals.mask_logits[b * length + t].float(),
                    proposals.objectness_logits[b * length + t].float(),
                    masks.to(device).float(),
                    generator,
                )
                objects = torch.from_numpy(np.flatnonzero(shown)).to(device)[match.object_index]
                query_index[b, t, objects] = match.query_index
                present[b, t, objects] = True
        return query_index, present

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the trainable parameters."""
        return {"rollout_tracker": self.model.rollout_tracker.trainable_parameters()}

    def advance(self, progress: float) -> None:
        """Changes nothing: all but the rollout tracker is frozen."""

    def save(self, folder: Path) -> None:
        """Writes the whole model as a checkpoint folder."""
        save_checkpoint(self.model, folder)


def stack_frames(clips: Sequence[TrainingClip], device: torch.device) -> Tensor:
    """Concatenates the frames of all clips, uint8 [B·T, H, W, 3]."""
    return torch.from_numpy(np.concatenate([clip.frames for clip in clips])).to(device)


def presence(clip: TrainingClip) -> Bool[np.ndarray, "O T"]:
    """Returns whether each object is in each frame."""
    shown: np.ndarray = np.any(clip.masks, axis=(2, 3))
    return shown


def most_shown(clip: TrainingClip, most: int) -> TrainingClip:
    """Returns a clip with `most` of its objects, those in the most frames; itself if it has no more."""
    if len(clip.masks) <= most:
        return clip
    kept = np.sort(np.argsort(-presence(clip).sum(1), kind="stable")[:most])
    rivals = None if clip.rivals is None else clip.rivals[kept]
    return replace(clip, masks=clip.masks[kept], categories=clip.categories[kept], rivals=rivals)


def targets(clip: TrainingClip) -> list[Bool[Tensor, "M H W"]]:
    """Returns, per frame, the masks of the objects that are in it."""
    return [torch.from_numpy(clip.masks[shown, t]) for t, shown in enumerate(presence(clip).T)]


def shown_objects(clip: TrainingClip) -> list[Int[Tensor, "M"]]:
    """Returns, per frame, which objects of the clip are in it."""
    return [torch.from_numpy(np.flatnonzero(shown)) for shown in presence(clip).T]


def predictions(shown: Bool[np.ndarray, "O T"]) -> int:
    """Counts the appearances of objects after their first, each of which the tracker predicts."""
    return int((shown.sum(1) - 1).clip(0).sum())
