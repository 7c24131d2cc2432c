"""What a mask proposal network finds in frames (OpenVIS, Eq. 1)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of RGB, in [0, 1], that backbones were trained with."""


@dataclass(frozen=True)
class Proposals:
    """Class-agnostic proposals of T frames.

    Attributes:
        mask_logits: one mask per instance query at 1/4 of the working size.
        queries: Q_t, the instance queries after the decoder layer and its norm.
        objectness_logits: log-odds of object against no object.
        boxes: centre, width and height of each proposal, as parts of the frame's width and height, of networks that
            decode around them; None of others.
    """

    mask_logits: Float[Tensor, "T N h w"]
    queries: Float[Tensor, "T N C"]
    objectness_logits: Float[Tensor, "T N"]
    boxes: Float[Tensor, "T N 4"] | None = None

    @property
    def objectness(self) -> Float[Tensor, "T N"]:
        """1 - p(no object)."""
        return self.objectness_logits.sigmoid()


def collapse(class_logits: Float[Tensor, "*n classes"]) -> Float[Tensor, "*n"]:
    """Returns the log-odds of object: logsumexp over the classes minus the logit of "no object", the last one.

    Its sigmoid is exactly 1 - p(no object) of the softmax over all classes.
    """
    class_logits = class_logits.float()  # half floats would change objectness by 0.003, across thresholds
    return class_logits[..., :-1].logsumexp(dim=-1) - class_logits[..., -1]
