import pytest
import torch

from openvis_model.mask_proposal import MaskProposalConfig
from openvis_model.proposal_networks import NETWORKS, build_mask_proposal, check_mask_proposal
from tests.networks import TINY_PROPOSALS


def test_there_is_a_small_one_of_each() -> None:
    assert TINY_PROPOSALS.keys() == NETWORKS.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_each_is_behind_the_protocol(name: str) -> None:
    config = TINY_PROPOSALS[name]
    check_mask_proposal(config)
    network = build_mask_proposal(config, short_side=64).eval()
    frames = torch.randint(0, 256, (2, 48, 80, 3), dtype=torch.uint8)
    with torch.inference_mode():
        proposals, layers = network(frames), network.layers(frames)
        alone = network(frames[1:])
    assert (network.num_queries, network.query_width) == (7, 32) == (config.num_queries, proposals.queries.shape[-1])
    assert network.side in (None, 64)
    assert all(side % network.size_divisor == 0 for side in network.input_size(48, 80))
    assert len(layers) > 1
    assert torch.equal(layers[-1].mask_logits, proposals.mask_logits)
    assert (alone.mask_logits[0] - proposals.mask_logits[1]).abs().max() < 1e-4
    trained, backbone = set(network.trainable_parameters()), set(network.backbone().parameters())
    assert backbone & trained
    assert trained - backbone


def test_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown network 'detr'; choose from \('mask2former', 'eomt', 'rf_detr'\)"):
        check_mask_proposal(MaskProposalConfig(network="detr", architecture={}))
