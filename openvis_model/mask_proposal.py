"""Open-world mask proposal: what the method asks of a network that finds masks (OpenVIS, Fig. 2a, Eq. 1).

`proposal_networks` lists the networks. Each is one of `transformers` behind `MaskProposalNetwork`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, PretrainedConfig, PreTrainedModel

from openvis_model.clip import check_names
from openvis_model.frames import to_pixels
from openvis_model.proposals import IMAGENET_MEAN, IMAGENET_STD, Proposals


@dataclass(frozen=True, kw_only=True)
class MaskProposalConfig:
    """Architecture of the mask proposal network.

    In JSON, the architecture stands under the network's name: `{"mask2former": {...}, "freeze_batch_norm": true}`.

    Attributes:
        network: its `model_type` in `transformers`.
        architecture: its `transformers` config as plain values, backbone included.
        freeze_batch_norm: whether batch norm keeps its pretrained statistics and scales, as Mask2Former's ResNet does.
        pixel_mean: mean of RGB, in [0, 1], that its weights were trained with.
        pixel_std: standard deviation of RGB, in the same scale.
        image_size: side of a square input, pixels; 0 takes the one of the architecture.
    """

    network: str
    architecture: dict[str, Any]
    freeze_batch_norm: bool = True
    pixel_mean: tuple[float, float, float] = IMAGENET_MEAN
    pixel_std: tuple[float, float, float] = IMAGENET_STD
    image_size: int = 0

    def __post_init__(self) -> None:
        if not all(value > 0 for value in self.pixel_std):
            raise ValueError(f"mask_proposal.pixel_std: expected more than 0, got {self.pixel_std}")
        if self.image_size < 0:
            raise ValueError(f"mask_proposal.image_size: expected pixels, or 0, got {self.image_size}")

    def build(self) -> PretrainedConfig:
        """Returns the `transformers` config."""
        return CONFIG_MAPPING[self.network].from_dict(self.architecture)

    @property
    def num_queries(self) -> int:
        """N, the number of instance queries."""
        return int(self.build().num_queries)

    def to_dict(self) -> dict[str, Any]:
        """Converts the config to plain values. Defaults that older checkpoints lack are left out."""
        values = asdict(self)
        optional = {name: values[name] for name in OPTIONAL if getattr(self, name) != getattr(type(self), name)}
        return {self.network: values["architecture"], "freeze_batch_norm": self.freeze_batch_norm} | optional


OPTIONAL = ("pixel_mean", "pixel_std", "image_size")


def by_field(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `MaskProposalConfig.to_dict` made by the names of the fields.

    Raises:
        ValueError: if the values hold none or several networks.
    """
    rest = {field.name for field in fields(MaskProposalConfig)} - {"network", "architecture"}
    networks = [name for name in values if name not in rest]
    if len(networks) != 1:
        raise ValueError(f"mask_proposal: expected one network and {sorted(rest)}, got {sorted(values)}")
    own = {name: value for name, value in values.items() if name in rest}
    return {"network": networks[0], "architecture": values[networks[0]]} | own


@dataclass(frozen=True)
class PretrainedProposals:
    """Weights of a proposal network, and the config that describes them."""

    config: MaskProposalConfig
    network: PreTrainedModel


class MaskProposalNetwork(nn.Module):
    """M_t, Q_t = Ψ(Φ(F_t), Q_0): N proposals for every frame, independently of other frames (OpenVIS, Eq. 1).

    Masks cover exactly the frame, whatever the network's input looks like: a square input holds the whole frame,
    stretched, or padded below or to its right, and masks lose the padding.

    Args:
        config: the architecture.
        short_side: working size of the frames, pixels; a square input has a size of its own.
        network: a network to use instead of one with random weights.

    Attributes:
        transformers_class: the network in `transformers`.
        queries: name of the weight that has a row for each query.
        any_side: whether the side of a square input may be another than the architecture's.
        num_queries: N.
    """

    transformers_class: ClassVar[type[PreTrainedModel]]
    queries: ClassVar[str]
    any_side: ClassVar[bool] = False

    def __init__(self, config: MaskProposalConfig, *, short_side: int, network: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.config = config
        self.short_side = short_side
        self.network = network or self.transformers_class(config.build())
        self.num_queries: int = self.network.config.num_queries
        self.register_buffer("mean", torch.tensor(config.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.pixel_std).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    @property
    @abstractmethod
    def query_width(self) -> int:
        """C, width of a query."""

    @property
    def side(self) -> int | None:
        """Side of the square input, pixels; None if the input has the shape of the frame."""
        return None

    @property
    @abstractmethod
    def size_divisor(self) -> int:
        """The sides of a resized frame are multiples of it, pixels."""

    @classmethod
    def check(cls, config: MaskProposalConfig) -> None:
        """Checks the plain values for `transformers`, which silently accepts unknown fields.

        Raises:
            ValueError: for a field that does not exist, or a value that `transformers` refuses or we do.
        """
        name = f"mask_proposal.{config.network}"
        check_names(config.architecture, field_names(cls.transformers_class.config_class), name)
        try:
            num_queries = config.num_queries
        except (StrictDataclassError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: transformers refuses its values, correct them: {error}") from error
        if num_queries < 1:
            raise ValueError(f"{name}.num_queries: expected at least 1, got {num_queries}")
        if config.image_size and not cls.any_side:
            raise ValueError(
                f"mask_proposal.image_size: got {config.image_size}, but the input of {config.network} has the size "
                "in its architecture; leave it out"
            )
        cls.check_architecture(config, name)

    @classmethod
    @abstractmethod
    def check_architecture(cls, config: MaskProposalConfig, name: str) -> None:
        """Checks what is particular to the network.

        Raises:
            ValueError: names the field, after `name`, the value and the remedy.
        """

    @abstractmethod
    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width to which a frame of this size is resized, pixels."""

    @abstractmethod
    def propose(self, pixels: Tensor, *, last_alone: bool) -> list[Proposals]:
        """Returns the proposals after every decoder layer, or after the last one alone, for normalised pixels."""

    @abstractmethod
    def backbone(self) -> nn.Module:
        """Returns the part with the learning rate of the backbone."""

    def untrained(self) -> list[nn.Parameter]:
        """Returns parameters that no loss reaches."""
        return []

    def anneal(self, progress: float) -> None:
        """Adapts the network to how much of a training is done, 0 to 1."""

    def forward(self, frames: Tensor) -> Proposals:
        """Returns the proposals of the last decoder layer.

        Args:
            frames: uint8 [T, H, W, 3], or what `to_pixels` made of them at `input_size`.

        Raises:
            ValueError: for frames that `check_frames` refuses.
        """
        return self._on_frames(frames, last_alone=True)[-1]

    def layers(self, frames: Tensor) -> list[Proposals]:
        """Returns the proposals after every decoder layer, the initial queries first, for deep supervision.

        Raises:
            ValueError: for frames that `check_frames` refuses.
        """
        return self._on_frames(frames, last_alone=False)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Returns all parameters except frozen batch norms and those that no loss reaches."""
        left_out = {parameter for norm in self._frozen_batch_norms() for parameter in norm.parameters()}
        left_out |= set(self.untrained())
        return [parameter for parameter in self.parameters() if parameter not in left_out]

    def train(self, mode: bool = True) -> "MaskProposalNetwork":
        """Switches to training or evaluation; frozen batch norms always keep their statistics."""
        super().train(mode)
        for norm in self._frozen_batch_norms():
            norm.eval()
        return self

    def _on_frames(self, frames: Tensor, *, last_alone: bool) -> list[Proposals]:
        pixels = to_pixels(frames, self.input_size)
        height, width = pixels.shape[-2:]
        if self.side is not None:
            pixels = F.pad(pixels, (0, self.side - width, 0, self.side - height))
        layers = self.propose((pixels - self.mean) / self.std, last_alone=last_alone)
        rows, columns = height / pixels.shape[-2], width / pixels.shape[-1]
        return [replace(layer, mask_logits=_upper_left(layer.mask_logits, rows, columns)) for layer in layers]

    def _frozen_batch_norms(self) -> list[nn.Module]:
        return [m for m in self.modules() if isinstance(m, nn.BatchNorm2d) and self.config.freeze_batch_norm]


def _upper_left(maps: Float[Tensor, "T N H W"], rows: float, columns: float) -> Float[Tensor, "T N h w"]:
    """Returns the part of maps that the frame covers, a share of their rows and columns."""
    return maps[..., : round(maps.shape[-2] * rows), : round(maps.shape[-1] * columns)]


def field_names(kind: type[PretrainedConfig]) -> set[str]:
    """Returns the fields that a `transformers` config accepts, including synonyms and what `to_dict` writes."""
    config = kind()
    return {*vars(config), *config.to_dict(), *config.attribute_map, "num_labels"}
