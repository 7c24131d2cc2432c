"""EoMT as a mask proposal network: a plain ViT whose last blocks also see the queries (Kerssies et al. 2025)."""

from math import gcd

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import EomtForUniversalSegmentation

from openvis_model.mask_proposal import MaskProposalConfig, MaskProposalNetwork
from openvis_model.proposals import Proposals, collapse

ANNEALING_POWER = 0.9
"""Exponent with which the original training anneals attention masks."""


class Eomt(MaskProposalNetwork):
    """Class logits are collapsed to object against no object. Its own preprocessing pads a frame to a square.

    In a block with attention masks, a query attends to the patches of its mask alone. Training anneals them away, one
    block after the other, so that inference is a plain ViT. `attn_mask_probs` are the blocks' shares of masked queries
    and part of the weights: 1 in a new network, 0 after a whole training.
    """

    transformers_class = EomtForUniversalSegmentation
    queries = "query.weight"
    _known: tuple[Tensor, int, list[float]] | None = None

    @property
    def query_width(self) -> int:
        """C, width of a query."""
        return int(self.network.config.hidden_size)

    @property
    def side(self) -> int:
        """Side of the square input, pixels; positions are learned for each of its patches."""
        return int(self.network.config.image_size)

    @property
    def size_divisor(self) -> int:
        """The fewest pixels that are a whole number of logits of a mask: 4 with patches of 16 pixels."""
        mask_side = self.network.grid_size[0] * 2**self.network.config.num_upscale_blocks
        return self.side // gcd(self.side, mask_side)

    @classmethod
    def check_architecture(cls, config: MaskProposalConfig, name: str) -> None:
        """Checks that the input is a square of whole patches, and that blocks see the queries.

        Raises:
            ValueError: names what differs.
        """
        built = config.build()
        if not (isinstance(built.image_size, int) and isinstance(built.patch_size, int)):
            raise ValueError(
                f"{name}: image_size and patch_size: expected a number of pixels each, got {built.image_size} and "
                f"{built.patch_size}"
            )
        if built.image_size % built.patch_size:
            raise ValueError(
                f"{name}.image_size: expected a multiple of patch_size ({built.patch_size}), got {built.image_size}"
            )
        if not 1 <= built.num_blocks <= built.num_hidden_layers:
            raise ValueError(
                f"{name}.num_blocks: expected 1 to num_hidden_layers ({built.num_hidden_layers}), got "
                f"{built.num_blocks}"
            )

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the size of the frame in the square, whose side the longer one has."""
        scale = self.side / max(height, width)
        rows, columns = (max(1, round(side * scale / self.size_divisor)) for side in (height, width))
        return rows * self.size_divisor, columns * self.size_divisor

    def propose(self, pixels: Tensor, *, last_alone: bool) -> list[Proposals]:
        """Returns the proposals before each block that sees the queries, and after the last one."""
        network = self.network
        first = len(network.layers) - network.config.num_blocks
        shares = self._shares()
        layers: list[Proposals] = []
        hidden = network.embeddings(pixels)
        for block in network.layers[:first]:
            hidden = block(hidden)
        hidden = torch.cat([network.query.weight.expand(len(hidden), -1, -1), hidden], dim=1)
        for block, share in zip(network.layers[first:], shares, strict=True):
            mask = None
            if share or not last_alone:
                layers.append(self._read(hidden))
            if share:
                mask = self._attention_mask(layers[-1].mask_logits, hidden, share)
            hidden = block(hidden, mask)
        return [*layers, self._read(hidden)]

    def backbone(self) -> nn.Module:
        """Returns the ViT."""
        return nn.ModuleList([self.network.embeddings, self.network.layers, self.network.layernorm])

    @torch.no_grad()
    def anneal(self, progress: float) -> None:
        """Lowers the shares of masked queries: of B blocks, block i loses its masks in part i + 1 of B + 2 parts."""
        shares = self.network.attn_mask_probs
        parts = progress * (len(shares) + 2) - 1 - torch.arange(len(shares), device=shares.device)
        shares.copy_(torch.minimum(shares, (1 - parts.clamp(0, 1)) ** ANNEALING_POWER))

    def _shares(self) -> list[float]:
        """Returns the blocks' shares of masked queries; waits for the device only if they may have changed."""
        shares: Tensor = self.network.attn_mask_probs
        if shares.is_inference():  # has no version, by which a change in place would be noticed
            return list(shares.tolist())
        if self._known is None or self._known[0] is not shares or self._known[1] != shares._version:
            self._known = (shares, shares._version, shares.tolist())
        return self._known[2]

    def _read(self, hidden: Float[Tensor, "T tokens C"]) -> Proposals:
        normed = self.network.layernorm(hidden)
        mask_logits, class_logits = self.network.predict(normed)
        return Proposals(mask_logits, normed[:, : self.num_queries], collapse(class_logits))

    @torch.no_grad()
    def _attention_mask(
        self, mask_logits: Float[Tensor, "T N h w"], hidden: Float[Tensor, "T tokens C"], share: float
    ) -> Float[Tensor, "T 1 tokens tokens"]:
        """Returns what is added to attention scores: -inf where a query looks outside its mask.

        Training draws which queries are masked. Inference, where results must not be random, masks all or none.
        """
        start = self.num_queries + self.network.embeddings.num_prefix_tokens
        outside = F.interpolate(mask_logits, size=self.network.grid_size, mode="bilinear").flatten(2) <= 0
        if self.training:
            outside &= (torch.rand(outside.shape[:2], device=outside.device) <= share)[..., None]
        elif share < 0.5:
            outside[:] = False
        scores = hidden.new_zeros(len(hidden), 1, hidden.shape[1], hidden.shape[1])
        scores[:, 0, : self.num_queries, start:].masked_fill_(outside, float("-inf"))
        return scores
