import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from openvis_model.config import mini
from openvis_model.inst_former import InstFormer
from openvis_model.proposal_networks import NETWORKS
from openvis_model.training.config import (
    Candidates,
    InstanceObjectiveConfig,
    SetCriterionConfig,
    TrackingObjectiveConfig,
)
from openvis_model.training.objectives import (
    InstanceObjective,
    TrackingObjective,
    most_shown,
    predictions,
    presence,
    targets,
)
from openvis_model.training.set_criterion import SetCriterion, SetLosses
from openvis_model.training.training_clip import TrainingClip
from openvis_model.vocabulary import prompt_words
from openvis_model.weights.checkpoint import load_checkpoint
from tests.clips import small_model
from tests.networks import with_proposals
from tests.words import NAMES as NAMED

NAMES = ("red star", "blue disc", "green ring")
POINTS = SetCriterionConfig(num_points=64)


@pytest.fixture
def model() -> InstFormer:
    torch.manual_seed(0)
    return InstFormer(mini(prompt_words(NAMES)))


def clip(seed: int, shown: list[list[int]], frames: int = 3) -> TrainingClip:
    """`shown` says for each object in which frames it is; objects are squares side by side."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((len(shown), frames, 64, 96), dtype=bool)
    for number, times in enumerate(shown):
        masks[number, times, 8:40, 30 * number : 30 * number + 24] = True
    return TrainingClip(
        frames=rng.integers(0, 256, (frames, 64, 96, 3), dtype=np.uint8),
        masks=masks,
        categories=np.arange(len(shown)) % len(NAMES),
        seed=seed,
    )


def test_every_name_of_the_data_set_has_its_row(model: InstFormer) -> None:
    """A name that begins with # is not a comment: later classes would train on the next one's name."""
    names = ("red star", "#blue disc", "green ring, red", "Red star")
    embeddings = InstanceObjective(model, names, InstanceObjectiveConfig()).embeddings
    plain = InstanceObjective(model, ("red star", "blue disc", "green ring red"), InstanceObjectiveConfig()).embeddings
    assert torch.allclose(embeddings, plain[[0, 1, 2, 0]], atol=1e-6)


CLIPS = [clip(1, [[0, 1, 2], [0, 2]]), clip(2, [[1]]), clip(3, [])]


def test_presence_and_targets_of_a_clip() -> None:
    assert presence(CLIPS[0]).tolist() == [[True, True, True], [True, False, True]]
    assert [tuple(masks.shape) for masks in targets(CLIPS[0])] == [(2, 64, 96), (1, 64, 96), (2, 64, 96)]
    assert [len(masks) for masks in targets(CLIPS[2])] == [0, 0, 0]


def test_predictions_need_an_object_seen_before() -> None:
    assert predictions(presence(CLIPS[0])) == 3
    assert predictions(presence(CLIPS[1])) == 0
    assert predictions(presence(CLIPS[2])) == 0


def test_counts_of_stage_1(model: InstFormer) -> None:
    objective = InstanceObjective(model, NAMES, InstanceObjectiveConfig())
    # 5 masks, 1 and none; of 16 queries a frame the unmatched ones weigh 0.1
    expected = [6, 6 + 0.1 * (9 * 16 - 6), 9, 6]
    assert objective.counts(CLIPS).tolist() == pytest.approx(expected)


def test_counts_of_federated_clips(model: InstFormer) -> None:
    objective = InstanceObjective(model, NAMES, InstanceObjectiveConfig())
    clips = [replace(CLIPS[0], exhaustive=False), CLIPS[1]]
    # 5 masks in 3 frames, whose unmatched queries weigh 0.01; 1 in 3 frames, where they weigh 0.1
    expected = [6, 5 + 0.01 * (3 * 16 - 5) + 1 + 0.1 * (3 * 16 - 1), 6, 6]
    assert objective.counts(clips).tolist() == pytest.approx(expected)


def test_losses_of_federated_clips_among_others(model: InstFormer) -> None:
    """Without rivals a name costs nothing; with fewer it costs less, and unmatched queries weigh less."""
    objective = InstanceObjective(model, NAMES, InstanceObjectiveConfig(criterion=POINTS)).eval()
    counts = objective.counts(CLIPS)

    def losses(**changes: Any) -> dict[str, float]:
        clips = [replace(CLIPS[0], **changes), *CLIPS[1:]]
        return {name: value.item() for name, value in objective(clips, counts).items()}

    def rivals(*columns: int) -> np.ndarray:
        return np.isin(np.arange(len(NAMES)), columns)[None].repeat(2, 0)

    whole, other = losses(), objective(CLIPS[1:], counts)["classification"].item()
    assert losses(rivals=rivals(0, 1, 2)) == whole
    assert losses(rivals=rivals())["classification"] == pytest.approx(other, rel=1e-4)
    assert other < losses(rivals=rivals(2))["classification"] < whole["classification"]
    federated = losses(exhaustive=False)
    assert federated.pop("objectness") < whole.pop("objectness")
    assert federated == whole


def test_a_clip_that_is_matched_as_a_whole_has_no_more_objects_than_queries(
    model: InstFormer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in the fewest frames are left out, of the counts as well."""
    monkeypatch.setattr(model.mask_proposal, "num_queries", 2)
    crowded = clip(1, [[0], [0, 1, 2], [1], [1, 2]])
    kept = most_shown(crowded, 2)
    assert kept.categories.tolist() == crowded.categories[[1, 3]].tolist()
    assert presence(kept).sum(1).tolist() == [3, 2]
    assert most_shown(kept, 2) is kept
    objective = InstanceObjective(model, NAMES, InstanceObjectiveConfig(matching="clip"))
    assert objective.counts([crowded]).tolist() == objective.counts([kept]).tolist()
    assert objective.counts([crowded])[3] == 5


@pytest.mark.parametrize("kind", ["instances", "tracking"])
def test_losses_and_gradients_of_parts_add_up(model: InstFormer, kind: str) -> None:
    model = copy.deepcopy(model)
    objective = (
        InstanceObjective(model, NAMES, InstanceObjectiveConfig(criterion=POINTS))
        if kind == "instances"
        else TrackingObjective(model, TrackingObjectiveConfig(criterion=POINTS))
    )
    objective.eval()  # batch norm of this small backbone would tie the clips of a batch together
    total = objective.counts(CLIPS)
    parameters = [parameter for group in objective.parameter_groups().values() for parameter in group]
    whole = objective(CLIPS, total)
    gradients = torch.autograd.grad(sum(whole.values()), parameters)
    parts = [objective([one], total) for one in CLIPS]
    summed = [
        sum(gradient)
        for gradient in zip(*(torch.autograd.grad(sum(part.values()), parameters) for part in parts), strict=True)
    ]
    for name, value in whole.items():
        assert sum(part[name].item() for part in parts) == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name
    largest = max(float(gradient.abs().max()) for gradient in gradients)
    for one, other in zip(gradients, summed, strict=True):
        assert (one - other).abs().max() < 1e-3 * largest


def test_stage_1_trains_everything_that_it_says_and_nothing_else(model: InstFormer) -> None:
    objective = InstanceObjective(model, NAMES, InstanceObjectiveConfig(criterion=POINTS))
    groups = objective.parameter_groups()
    assert set(groups) == {"backbone", "proposals", "inst_clip"}
    grouped = {id(parameter) for group in groups.values() for parameter in group}
    assert grouped == {id(parameter) for parameter in objective.parameters() if parameter.requires_grad}
    losses = objective(CLIPS, objective.counts(CLIPS))
    assert set(losses) == {"objectness", "mask", "dice", "margin", "classification"}
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for group in groups.values() for parameter in group)


@pytest.mark.parametrize("network", NETWORKS)
def test_both_stages_train_with_each_proposal_network(network: str) -> None:
    model = with_proposals(mini(prompt_words(NAMES)), network)
    objective = InstanceObjective(model, NAMES, InstanceObjectiveConfig(criterion=POINTS)).train()
    objective.advance(0.4)
    losses = objective(CLIPS, objective.counts(CLIPS))
    sum(losses.values()).backward()
    groups = objective.parameter_groups()
    assert set(groups) == {"backbone", "proposals", "inst_clip"}
    assert all(parameter.grad is not None for group in groups.values() for parameter in group)
    assert all(parameter.grad.isfinite().all() for group in groups.values() for parameter in group)

    objective.zero_grad(set_to_none=True)
    sum(objective(CLIPS[2:], objective.counts(CLIPS[2:])).values()).backward()  # without objects
    assert all(parameter.grad is not None for group in groups.values() for parameter in group)

    tracking = TrackingObjective(model, TrackingObjectiveConfig(criterion=POINTS)).train()
    tracking.advance(0.4)
    loss = tracking(CLIPS, tracking.counts(CLIPS))["tracking"]
    loss.backward()
    assert loss > 0
    assert all(parameter.grad is not None for parameter in tracking.parameter_groups()["rollout_tracker"])


def test_classification_does_not_reach_the_proposals(model: InstFormer) -> None:
    objective = InstanceObjective(model, NAMES, InstanceObjectiveConfig(criterion=POINTS))
    objective(CLIPS[:1], objective.counts(CLIPS[:1]))["classification"].backward()
    assert all(parameter.grad is None for parameter in model.mask_proposal.parameters())
    assert model.classifier.instance_tokens.grad is not None


def test_no_loss_of_stage_1_reaches_the_rollout_tracker(model: InstFormer) -> None:
    """So nothing but the tracking loss can train it, and Table 6's row without that loss has no training."""
    objective = InstanceObjective(model, NAMES, InstanceObjectiveConfig(criterion=POINTS))
    model.requires_grad_(True)
    sum(objective(CLIPS[:1], objective.counts(CLIPS[:1])).values()).backward()
    assert all(parameter.grad is None for parameter in model.rollout_tracker.parameters())


def test_clips_may_be_matched_as_a_whole(model: InstFormer) -> None:
    config = InstanceObjectiveConfig(criterion=POINTS, classification_weight=0, matching="clip")
    objective = InstanceObjective(model, NAMES, config)
    matched: list[list[dict[int, int]]] = []  # per clip and frame, the query of each object

    class Criterion(SetCriterion):
        def __call__(self, *layers: Any, objects: Any, **options: Any) -> SetLosses:
            result = super().__call__(*layers, objects=objects, **options)
            frames = zip(result.matches, objects, strict=True)
            matched.append(
                [dict(zip(shown[match[1]].tolist(), match[0].tolist(), strict=True)) for match, shown in frames]
            )
            return result

    objective.criterion = Criterion(POINTS)
    losses = objective(CLIPS, objective.counts(CLIPS))
    assert all(loss.isfinite() for loss in losses.values())
    assert [[sorted(frame) for frame in clip] for clip in matched] == [[[0, 1], [0], [0, 1]], [[], [0], []], [[]] * 3]
    first, middle, last = matched[0]
    assert first == last
    assert middle == {0: first[0]}


def test_weights_of_zero_leave_losses_out(model: InstFormer) -> None:
    config = InstanceObjectiveConfig(criterion=POINTS, margin_weight=0, classification_weight=0)
    objective = InstanceObjective(model, NAMES, config)
    assert set(objective(CLIPS, objective.counts(CLIPS))) == {"objectness", "mask", "dice"}
    assert set(objective.parameter_groups()) == {"backbone", "proposals"}
    assert not any(parameter.requires_grad for parameter in model.classifier.parameters())


def test_proposals_may_stay_as_they_are(model: InstFormer) -> None:
    """Batch norms, too; the names are then learned alone."""
    config = InstanceObjectiveConfig(criterion=POINTS, train_proposals=False)
    objective = InstanceObjective(model, NAMES, config).train()
    before = copy.deepcopy(model.mask_proposal.state_dict())
    losses = objective(CLIPS, objective.counts(CLIPS))
    assert set(losses) == {"classification"}
    losses["classification"].backward()
    groups = objective.parameter_groups()
    assert set(groups) == {"inst_clip"}
    assert {id(each) for each in groups["inst_clip"]} == {id(each) for each in model.parameters() if each.requires_grad}
    assert all(each.grad is not None for each in groups["inst_clip"])
    assert all(torch.equal(value, before[name]) for name, value in model.mask_proposal.state_dict().items())


def test_something_is_trained(model: InstFormer) -> None:
    with pytest.raises(ValueError, match="train_proposals: with a classification_weight of 0, it must be true"):
        InstanceObjectiveConfig(classification_weight=0, train_proposals=False)
    crops = InstFormer(replace(model.config, classifier="crop_clip"))
    with pytest.raises(ValueError, match="train_proposals: must be true, because this model's classifier is not"):
        InstanceObjective(crops, NAMES, InstanceObjectiveConfig(train_proposals=False))


def test_each_matched_query_learns_its_objects_name(model: InstFormer) -> None:
    """The loss of the last decoder layer's matches, worked out one instance at a time."""
    objective = InstanceObjective(model, NAMES, InstanceObjectiveConfig(criterion=POINTS, classification_weight=1))
    objective.eval()
    one = CLIPS[0]
    loss = objective([one], objective.counts([one]))["classification"].item()
    frames = torch.from_numpy(one.frames)
    layers = model.mask_proposal.layers(frames)
    found = objective.criterion(
        [layer.mask_logits for layer in layers],
        [layer.objectness_logits for layer in layers],
        targets(one),
        generator=torch.Generator().manual_seed(one.seed),
    )
    expected, count = 0.0, 0
    for t, match in enumerate(found.matches):
        present = np.flatnonzero(presence(one)[:, t])
        for query, number in zip(match.query_index, match.object_index, strict=True):
            masks = layers[-1].mask_logits[t : t + 1, query : query + 1]
            token = model.classifier(frames[t : t + 1], masks, query.view(1, 1))[0, 0]
            logits = objective.logit_scale * objective.embeddings @ token
            expected -= logits.log_softmax(0)[one.categories[present[number]]].item()
            count += 1
    assert count == 5
    assert loss == pytest.approx(expected / count, rel=1e-4)


@pytest.mark.parametrize("candidates", get_args(Candidates))
def test_each_object_has_the_token_of_the_query_matched_to_it(model: InstFormer, candidates: Candidates) -> None:
    objective = TrackingObjective(model, TrackingObjectiveConfig(candidates=candidates, criterion=POINTS))
    aligned = objective.aligned_tokens(CLIPS)
    assert aligned.tokens.shape == (3, 3, 16 if candidates == "all" else 2, model.rollout_tracker.width)
    assert aligned.present[0].T.tolist() == presence(CLIPS[0]).tolist()
    assert not aligned.present[2].any()
    proposals = model.mask_proposal(torch.from_numpy(CLIPS[0].frames))
    generator = torch.Generator().manual_seed(CLIPS[0].seed)
    every = model(torch.from_numpy(CLIPS[0].frames))
    for t, (instances, masks) in enumerate(zip(every, targets(CLIPS[0]), strict=True)):
        found = instances.tracking_tokens("instance_query")
        match = objective.criterion.match(
            proposals.mask_logits[t], proposals.objectness_logits[t], masks.float(), generator
        )
        own = aligned.tokens[0, t, aligned.token_index[0, t, aligned.present[0, t]]]
        torch.testing.assert_close(own[match.object_index], found[match.query_index], rtol=0, atol=1e-4)
        if candidates == "all":
            torch.testing.assert_close(aligned.tokens[0, t], found, rtol=0, atol=1e-4)
            assert aligned.candidates[0, t].all()
        else:
            assert torch.equal(aligned.candidates[0, t], aligned.present[0, t])


def test_a_clip_with_one_object_teaches_the_tracker(model: InstFormer) -> None:
    """Its negatives are the 15 other queries of each frame; among annotated objects alone it has none."""
    one = [clip(1, [[0, 1, 2]])]
    objectives = {
        candidates: TrackingObjective(model, TrackingObjectiveConfig(candidates=candidates, criterion=POINTS))
        for candidates in get_args(Candidates)
    }
    losses = {name: objective(one, objective.counts(one))["tracking"] for name, objective in objectives.items()}
    weights = model.rollout_tracker.trainable_parameters()
    gradients = {name: torch.autograd.grad(loss, weights) for name, loss in losses.items()}
    assert all(gradient.any() for gradient in gradients["all"])
    assert losses["annotated"] == 0
    assert not any(gradient.any() for gradient in gradients["annotated"])

    tokens, _, token_index, _ = objectives["all"].aligned_tokens(one)
    own = [tokens[0, t, token_index[0, t]] for t in range(3)]
    first, hidden = model.rollout_tracker(own[0], model.rollout_tracker.initial_state(1))
    second, _ = model.rollout_tracker(own[1], hidden)
    expected = sum(
        torch.nn.functional.cross_entropy(
            torch.nn.functional.cosine_similarity(prediction, tokens[0, t])[None] / 0.1, token_index[0, t]
        )
        for t, prediction in ((1, first), (2, second))
    )
    assert losses["all"].item() == pytest.approx(expected.item() / 2, rel=1e-4)


@pytest.mark.parametrize("kind", ["pe", "siglip"])
def test_both_stages_learn_with_other_kinds_of_clip(kind: str, tmp_path: Path) -> None:
    """Losses fall within a few steps on two clips, and CLIP's text tower stays as it was."""
    model = InstFormer(small_model(kind, tmp_path))
    clip_before = {name: p.clone() for name, p in model.named_parameters() if name.startswith("text_encoder.")}
    instances = _descend(InstanceObjective(model, NAMED, InstanceObjectiveConfig(criterion=POINTS)), CLIPS[:2])
    tracking = _descend(TrackingObjective(model, TrackingObjectiveConfig(criterion=POINTS)), CLIPS[:2])
    assert instances[-1] < instances[0]
    assert InstanceObjective(model, NAMED, InstanceObjectiveConfig()).logit_bias == (-10 if kind == "siglip" else None)
    assert tracking[-1] < tracking[0]
    assert all(torch.equal(model.get_parameter(name), p) for name, p in clip_before.items())


def _descend(objective: InstanceObjective | TrackingObjective, clips: list[TrainingClip]) -> list[float]:
    """The loss of names or tracks in each of four steps."""
    objective.train()
    groups = [{"params": parameters} for parameters in objective.parameter_groups().values()]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    losses = []
    for _ in range(4):
        values = objective(clips, objective.counts(clips))
        loss = sum(values.get(name, torch.zeros(())) for name in ("classification", "tracking"))
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        sum(values.values()).backward()
        optimizer.step()
    return losses


def test_stage_2_trains_the_tracker_alone(model: InstFormer) -> None:
    objective = TrackingObjective(model, TrackingObjectiveConfig(criterion=POINTS))
    objective(CLIPS, objective.counts(CLIPS))["tracking"].backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient
    assert all(name.startswith("rollout_tracker.") for name in with_gradient)


def test_saved_objectives_are_checkpoints(model: InstFormer, tmp_path: Path) -> None:
    InstanceObjective(model, NAMES, InstanceObjectiveConfig()).save(tmp_path / "one")
    TrackingObjective(load_checkpoint(tmp_path / "one"), TrackingObjectiveConfig()).save(tmp_path / "two")
    assert (tmp_path / "two" / "config.json").is_file()
