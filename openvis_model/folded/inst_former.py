"""The whole model at inference."""

from torch import nn

from openvis_model.frame_model import FrameModel
from openvis_model.rollout_tracker import RolloutTracker
from openvis_model.text_encoder import TextEncoder


class FoldedInstFormer(FrameModel):
    """The model for inference: what an `InstFormer` computes, from fewer operations. It cannot be trained or saved.

    Args:
        mask_proposal: frames to proposals.
        classifier: proposals to instance tokens.
        text_encoder: CLIP's text encoder.
        rollout_tracker: predicts tracking tokens.
        short_side: shorter side of the frames as the networks see them, pixels.
        fingerprint: hash of the config and the weights of the model before it was folded.
    """

    def __init__(
        self,
        mask_proposal: nn.Module,
        classifier: nn.Module,
        text_encoder: TextEncoder,
        rollout_tracker: RolloutTracker,
        *,
        short_side: int,
        fingerprint: str,
    ) -> None:
        super().__init__()
        self.mask_proposal, self.classifier = mask_proposal, classifier
        self.text_encoder, self.rollout_tracker = text_encoder, rollout_tracker
        self.short_side = short_side
        self.fingerprint = fingerprint
        self.eval().requires_grad_(False)

    def identity(self) -> str:
        """Returns the fingerprint of the model before it was folded."""
        return self.fingerprint
