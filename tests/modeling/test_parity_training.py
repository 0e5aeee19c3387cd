"""Losses, matches and gradients equal those recorded from the published code (parity/README.md)."""

import numpy as np
import parity_cases
import parity_models
import pytest
import torch

import mask2former.maskformer_model  # noqa: F401  (registers the meta architecture)
from detectron2.structures import Instances

VARIANTS = [
    ("r50_training", "main"),
    ("r50_training", "one_empty"),
    ("r50_training", "all_empty"),
    ("swin_training", "main"),
    ("swin_training", "one_empty"),
    ("maskformer_v1_training", "main"),
    ("semask_training", "main"),
    ("semask_training", "one_empty"),
    ("ibs_training_points", "main"),
    ("ibs_training_points", "one_empty"),
    ("ibs_training_points", "no_things"),
    ("ibs_training_dense", "main"),
    ("ibs_training_dense", "no_things"),
]


def training_inputs(case: str, variant: str) -> list[dict]:
    inputs = parity_cases.arrays(case, "inputs")
    batch = []
    for i in range(2):
        image = torch.from_numpy(inputs[f"image_{i}"])
        instances = Instances(tuple(image.shape[-2:]))
        instances.gt_classes = torch.from_numpy(inputs[f"{variant}/labels_{i}"])
        instances.gt_masks = torch.from_numpy(inputs[f"{variant}/masks_{i}"])
        batch.append({"image": image, "instances": instances})
        if f"{variant}/sem_seg_{i}" in inputs:
            batch[-1]["sem_seg"] = torch.from_numpy(inputs[f"{variant}/sem_seg_{i}"]).long()
    return batch


class Step:
    """One training step with everything that was recorded of it."""

    def __init__(self, case: str, variant: str) -> None:
        model = parity_models.model(case).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # as in the recordings; SeMask has a rate of its own
        criterion = model.criterion
        self.matches, self.points = [], []

        match_layers = criterion.matcher.match_layers

        def keep_matches(*args):
            self.matches = match_layers(*args)
            return self.matches

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand", parity_cases.deterministic_rand)
            patch.setattr(criterion.matcher, "match_layers", keep_matches)
            module = "mask2former.modeling.criterion"
            uncertain = criterion_module().get_uncertain_point_coords_with_randomness

            def keep_points(*args):
                self.points.append(uncertain(*args))
                return self.points[-1]

            patch.setattr(f"{module}.get_uncertain_point_coords_with_randomness", keep_points)
            self.losses = model(training_inputs(case, variant))
            self.total = sum(self.losses.values())
            self.total.backward()
        self.weights = criterion.weight_dict
        self.gradients = {name: p.grad for name, p in model.named_parameters()}


def criterion_module():
    import mask2former.modeling.criterion as module

    return module


@pytest.fixture(scope="module")
def step():
    done = {}

    def step(case: str, variant: str) -> Step:
        if (case, variant) not in done:
            done[case, variant] = Step(case, variant)
        return done[case, variant]

    return step


@pytest.mark.parametrize(("case", "variant"), VARIANTS)
def test_losses(step, case, variant):
    facts = parity_cases.facts(case, f"outputs_{variant}")
    result = step(case, variant)
    assert set(result.losses) == set(facts["losses_weighted"])
    for name, expected in facts["losses_weighted"].items():
        assert result.losses[name].item() == pytest.approx(expected, rel=1e-4, abs=1e-6), name
    for name, expected in facts["losses_unweighted"].items():
        unweighted = result.losses[name].item() / result.weights[name]
        assert unweighted == pytest.approx(expected, rel=1e-4, abs=1e-6), name
    assert result.total.item() == pytest.approx(facts["total"], rel=1e-4)


@pytest.mark.parametrize(("case", "variant"), VARIANTS)
def test_matches_are_exactly_those_of_the_original(step, case, variant):
    recorded = parity_cases.arrays(case, f"outputs_{variant}")
    matches = step(case, variant).matches
    names = ["final"] + [f"aux{i}" for i in range(len(matches) - 1)]
    for name, pairs in zip(names, matches, strict=True):
        for image, (query, target) in enumerate(pairs):
            key = f"match_{name}_img{image}"
            assert query.tolist() == recorded[f"{key}_pred"].tolist()
            assert target.tolist() == recorded[f"{key}_gt"].tolist()


@pytest.mark.parametrize(("case", "variant"), VARIANTS)
def test_loss_points_are_those_of_the_original(step, case, variant):
    recorded = parity_cases.arrays(case, f"outputs_{variant}")
    for call, points in enumerate(step(case, variant).points):
        expected = recorded[f"points_call{call}"]
        assert points.shape == expected.shape
        for row, expected_row in zip(points.tolist(), expected.tolist()):
            assert set(map(tuple, row)) == set(map(tuple, expected_row))


@pytest.mark.parametrize(("case", "variant"), VARIANTS)
def test_gradients(step, case, variant):
    gradients = step(case, variant).gradients
    facts = parity_cases.facts(case, f"outputs_{variant}")
    largest = max(facts["grad_norms"].values())
    for name, expected in facts["grad_norms"].items():
        norm = gradients[name].norm().item()
        assert norm == pytest.approx(expected, rel=1e-2, abs=1e-6 * largest), name
    for key, expected in parity_cases.arrays(case, f"outputs_{variant}").items():
        if key.startswith("grad/"):
            tolerance = 1e-2 * np.abs(expected).max() + 1e-9
            actual = gradients[key.removeprefix("grad/")].numpy()
            np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=key)
