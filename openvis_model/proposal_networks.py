"""The mask proposal networks that there are."""

from transformers import PreTrainedModel

from openvis_model.eomt import Eomt
from openvis_model.mask2former import Mask2Former
from openvis_model.mask_proposal import MaskProposalConfig, MaskProposalNetwork
from openvis_model.rf_detr import RfDetr

NETWORKS: dict[str, type[MaskProposalNetwork]] = {
    "mask2former": Mask2Former,
    "eomt": Eomt,
    "rf_detr": RfDetr,
}
"""By their `model_type` in `transformers`."""


def check_mask_proposal(config: MaskProposalConfig) -> None:
    """Checks the config of a network.

    Raises:
        ValueError: names what is unknown or refused.
    """
    if config.network not in NETWORKS:
        raise ValueError(f"mask_proposal: unknown network {config.network!r}; choose from {tuple(NETWORKS)}")
    NETWORKS[config.network].check(config)


def build_mask_proposal(
    config: MaskProposalConfig, *, short_side: int, network: PreTrainedModel | None = None
) -> MaskProposalNetwork:
    """Builds a network, with random weights or around one of `transformers`."""
    return NETWORKS[config.network](config, short_side=short_side, network=network)
