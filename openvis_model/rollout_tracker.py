"""The rollout tracker: predicts each track's tracking token in the next frame (OpenVIS, Eq. 5 and 6)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openvis_model.options import RolloutTrackerConfig


class RolloutTracker(nn.Module):
    """T^A_t = R(T_{t-1}, h_{t-1}): one recurrent layer over the tokens of each track (OpenVIS, Eq. 5).

    Args:
        config: kind of predictor.
        width: E, the width of a tracking token.
    """

    def __init__(self, config: RolloutTrackerConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.predictor: nn.Module
        match config.kind:
            case "rnn":
                self.predictor = nn.RNNCell(width, width)
            case "gru":
                self.predictor = nn.GRUCell(width, width)
            case "linear":
                self.predictor = nn.Linear(width, width)
            case "mlp":
                self.predictor = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    @property
    def hidden_width(self) -> int:
        """H, the width of the hidden state: 0 for a predictor without memory."""
        return self.width if isinstance(self.predictor, nn.RNNCellBase) else 0

    def initial_state(self, tracks: int) -> Float[Tensor, "tracks H"]:
        """Returns the hidden state, zero, of tracks without history."""
        return next(self.parameters()).new_zeros(tracks, self.hidden_width)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Returns all parameters."""
        return list(self.parameters())

    def forward(
        self, tokens: Float[Tensor, "n E"], hidden: Float[Tensor, "n H"]
    ) -> tuple[Float[Tensor, "n E"], Float[Tensor, "n H"]]:
        """Returns the rollout tokens of the next frame and the new hidden state, given the tokens of one frame."""
        if self.hidden_width:
            hidden = self.predictor(tokens, hidden)
            return hidden, hidden
        return self.predictor(tokens), hidden


def rollout_loss(
    tracker: RolloutTracker,
    tokens: Float[Tensor, "B T N E"],
    candidates: Bool[Tensor, "B T N"],
    token_index: Int[Tensor, "B T O"],
    present: Bool[Tensor, "B T O"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Computes the predictive tracking loss (OpenVIS, Eq. 6): a rollout token must be closest to its object's token.

    The loss of a prediction is a cross-entropy over the cosines of the rollout token with all candidates of the frame,
    divided by the temperature; every candidate but the object's own token is a negative. While absent, a track keeps
    its last prediction and hidden state, as in inference. Objects without history make no prediction. The mean is over
    predictions. The computation is float32 even under autocast.

    Args:
        tracker: the network to train.
        tokens: tracking tokens of B clips of T frames, at least 2. Those that are no candidates may hold anything.
        candidates: which tokens take part; False for padding.
        token_index: which token of each frame belongs to each of the O objects; it must be a candidate.
        present: whether the object is in the frame; False for padding, whose index means nothing.
        temperature: divides the cosines; greater than 0.

    Returns:
        The mean loss; zero, with a graph, if no object appears twice.

    Raises:
        ValueError: for a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature: expected more than 0, got {temperature}; 0.1 is a common choice")
    with torch.autocast(tokens.device.type, enabled=False):
        tokens = tokens.float().masked_fill(~candidates[..., None], 0)
        own = tokens.take_along_dim(token_index[..., None], dim=2)
        clips, frames, objects, _ = own.shape
        state = tracker.initial_state(clips * objects)
        prediction = tokens.new_zeros(clips * objects, tracker.width)
        seen = torch.zeros_like(present[:, 0])
        total, count = tokens.new_zeros(()), tokens.new_zeros(())
        for t in range(frames):
            visible = present[:, t]
            if t:
                rollout = F.normalize(prediction.view(clips, objects, -1), dim=-1)
                cosine = rollout @ F.normalize(tokens[:, t], dim=-1).mT
                logits = (cosine / temperature).masked_fill(~candidates[:, t, None], torch.finfo(cosine.dtype).min)
                log_probability = logits.log_softmax(-1).take_along_dim(token_index[:, t, :, None], dim=-1)[..., 0]
                predicted = visible & seen
                total = total - log_probability.masked_fill(~predicted, 0).sum()
                count = count + predicted.sum()
            next_prediction, next_state = tracker(own[:, t].flatten(0, 1), state)
            update = visible.flatten()[:, None]
            prediction = torch.where(update, next_prediction, prediction)
            state = torch.where(update, next_state, state)
            seen = seen | visible
        return total / count.clamp(min=1)
