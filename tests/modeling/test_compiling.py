"""MODEL.COMPILE and SOLVER.COMPILE: one graph a part, the same numbers, no recompile per size."""

import copy
import logging
import pickle

import parity_models
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from detectron2.modeling import build_model
from detectron2.structures import Instances
from mask2former.maskformer_model import build_criterion
from mask2former.modeling.compiling import compile_for_inference, compile_for_training
from mask2former.modeling.errors import CompilerError, NonFiniteCostError
from mask2former.modeling.fast_inference import prepare_for_inference
from mask2former.modeling.mask_predictions import MaskPredictions
from mask2former.modeling.postprocessing import segment

# Heights and widths of images, and of outputs. (Convolutions of less than 20480 values run another
# kernel, hence in another graph; with the channels of a tiny model, images may not be tiny, too.)
SIZES = [(224, 256), (230, 330), (340, 225), (256, 224), (288, 352)]
OUTPUTS = [(224, 256), (97, 201), (300, 180), (64, 50), (288, 352)]


@pytest.fixture(autouse=True)
def no_graphs_of_other_tests():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def counted(monkeypatch):
    """Compiles a model and gives a list that counts the graphs of each part, network first."""

    def apply(compile_model, model, **options) -> list[CompileCounterWithBackend]:
        counters = []

        def compile_counted(function, *, backend, fullgraph):
            counters.append(CompileCounterWithBackend(backend))
            return original(function, backend=counters[-1], fullgraph=fullgraph)

        original = torch.compile
        with monkeypatch.context() as patch:
            patch.setattr(torch, "compile", compile_counted)
            # Graph breaks are errors.
            compile_model(model, backend="aot_eager", fullgraph=True, **options)
        return counters

    return apply


def image(size: tuple[int, int], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *size), generator=generator).float()


def ground_truth(size: tuple[int, int], count: int, seed: int = 0) -> Instances:
    generator = torch.Generator().manual_seed(seed)
    rows = (torch.arange(size[0]) * 6 // size[0])[:, None]
    columns = torch.arange(size[1]) * 5 // size[1]
    masks = (torch.rand(count, 6, 5, generator=generator) > 0.6)[:, rows, columns]
    labels = torch.randint(0, 7, (count,), generator=generator)
    return Instances(size, gt_classes=labels, gt_masks=masks)


def batch(size: tuple[int, int], counts: tuple[int, ...]) -> list[dict]:
    return [
        {"image": image(size, seed), "instances": ground_truth(size, count, seed)}
        for seed, count in enumerate(counts)
    ]


def step(model, inputs: list[dict]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(0)
    model.zero_grad()
    losses = model(inputs)
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_step(actual, expected) -> None:
    for got, wanted in zip(actual, expected):
        assert set(got) == set(wanted)
        largest = max(value.abs().max().item() for value in wanted.values())
        for name, value in wanted.items():
            torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-4 * largest, msg=name)


def assert_same_segments(actual: dict, expected: dict) -> None:
    torch.testing.assert_close(actual["sem_seg"], expected["sem_seg"], rtol=1e-4, atol=1e-5)
    # A graph may round otherwise: where scores are equal to the last bit, a pixel may fall elsewhere.
    different = actual["panoptic_seg"][0] != expected["panoptic_seg"][0]
    assert different.float().mean() <= 1e-4
    assert actual["panoptic_seg"][1] == expected["panoptic_seg"][1]
    got, wanted = actual["instances"], expected["instances"]
    torch.testing.assert_close(got.scores, wanted.scores, rtol=0, atol=1e-5)
    assert torch.equal(got.pred_classes, wanted.pred_classes)
    # A graph may round otherwise: a pixel whose score is 0.5 to the last bit falls on either side.
    assert (got.pred_masks != wanted.pred_masks).float().mean() <= 1e-5
    assert torch.equal(got.pred_boxes.tensor, wanted.pred_boxes.tensor)


def small_model(case: str):
    """Few layers, random weights: symbolic sizes are slow to trace."""
    options = ["MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1, "MODEL.MASK_FORMER.DEC_LAYERS", 3]
    if case.startswith("r50"):
        options += ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]
    else:
        options += ["MODEL.SWIN.DEPTHS", [1, 2, 1, 1]]
    torch.manual_seed(0)
    return build_model(parity_models.config(case, *options)).eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "resized_in_graph"), [("r50_panoptic", False), ("swin_panoptic", True)]
)
def test_inference_at_five_sizes_is_two_graphs_a_part(case, resized_in_graph, counted):
    model = small_model(case)
    compiled = copy.deepcopy(model)
    counters = counted(compile_for_inference, compiled, postprocessing=True)
    if resized_in_graph:
        compiled.segment.resize = True
    for size, (height, width) in zip(SIZES, OUTPUTS):
        record = {"image": image(size), "height": height, "width": width}
        with torch.no_grad():
            assert_same_segments(compiled([record])[0], model([record])[0])
    assert len(counters) == 2
    assert all(1 <= count <= 2 for count in (counter.frame_count for counter in counters))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["r50_panoptic", "swin_panoptic"])
def test_training_at_five_sizes_is_two_graphs_a_part(case, counted):
    model = small_model(case).train()
    compiled = copy.deepcopy(model)
    counters = counted(compile_for_training, compiled)
    # More segments than queries, none in an image, one in an image.
    for size, counts in zip(SIZES, [(3, 5), (4, 1), (0, 20), (1, 1), (2, 7)]):
        inputs = batch(size, counts)
        assert_same_step(step(compiled, inputs), step(model, inputs))
    assert len(counters) == 2
    assert all(1 <= count <= 2 for count in (counter.frame_count for counter in counters))


class Criterion(nn.Module):
    """Just the criterion of a model, for predictions made up."""

    def __init__(self, case: str = "r50_panoptic", *options) -> None:
        super().__init__()
        self.criterion = build_criterion(parity_models.config(case, *options))

    def forward(self, size: tuple[int, int], counts: tuple[int, ...]):
        generator = torch.Generator().manual_seed(1)
        images = len(counts)

        def leaf(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).requires_grad_()

        leaves = {"features": leaf(images, 8, size[0] // 4, size[1] // 4)}
        layers = []
        for i in range(3):
            leaves |= {f"logits {i}": leaf(images, 6, 8), f"embed {i}": leaf(images, 6, 8)}
            prediction = MaskPredictions(
                pred_logits=leaves[f"logits {i}"],
                mask_embed=leaves[f"embed {i}"],
                mask_features=leaves["features"],
            )
            layers.append(prediction)
        outputs = layers.pop()
        outputs["aux_outputs"] = layers
        targets = []
        for seed, count in enumerate(counts):
            truth = ground_truth(size, count, seed)
            targets.append({"labels": truth.gt_classes, "masks": truth.gt_masks})
        torch.manual_seed(0)
        losses = self.criterion(outputs, targets)
        gradients = torch.autograd.grad(sum(losses.values()), list(leaves.values()))
        return losses, dict(zip(leaves, gradients))


def test_losses_and_gradients_are_the_same_and_one_graph_fits_any_numbers_of_segments(counted):
    module, compiled = Criterion(), Criterion()
    compiled.register_parameter("device", nn.Parameter(torch.zeros(())))
    (counter,) = counted(compile_for_training, compiled)
    # More segments than the six queries, one, none.
    for counts in [(3, 2), (9, 1), (0, 4), (1, 1), (5, 6)]:
        for actual, expected in zip(compiled((64, 96), counts), module((64, 96), counts)):
            assert set(actual) == set(expected)
            for name, value in expected.items():
                torch.testing.assert_close(actual[name], value, rtol=0, atol=1e-7, msg=name)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_inductor_agrees_with_the_model():
    model = small_model("r50_panoptic")
    compiled = copy.deepcopy(model)
    compile_for_inference(compiled, fullgraph=True, postprocessing=True)
    record = {"image": image((64, 96)), "height": 100, "width": 90}
    with torch.no_grad():
        assert_same_segments(compiled([record])[0], model([record])[0])


@pytest.mark.slow
def test_inductor_makes_the_criterion_a_graph():
    module, compiled = Criterion(), Criterion()
    compiled.register_parameter("device", nn.Parameter(torch.zeros(())))
    compile_for_training(compiled, fullgraph=True)
    losses, gradients = compiled((64, 96), (3, 2))
    expected, _ = module((64, 96), (3, 2))
    # It draws other points, so losses on points are only about the same.
    assert set(losses) == set(expected)
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=0.3), name
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("counts", [(0, 0), (1, 0)])
def test_a_batch_of_one_or_no_segment_works(counts):
    module, compiled = Criterion(), Criterion()
    compiled.register_parameter("device", nn.Parameter(torch.zeros(())))
    compile_for_training(compiled, backend="eager", fullgraph=True)
    losses, expected = compiled((64, 64), counts)[0], module((64, 64), counts)[0]
    torch.testing.assert_close(losses, expected)


def test_costs_that_are_not_finite_name_prediction_and_image():
    compiled = Criterion()
    compiled.register_parameter("device", nn.Parameter(torch.zeros(())))
    compile_for_training(compiled, backend="eager", fullgraph=True)
    compiled.criterion.matcher.cost_class = float("nan")
    with pytest.raises(NonFiniteCostError, match="final, aux 0, aux 1 for image"):
        compiled((64, 64), (2, 3))
    assert torch.is_grad_enabled()


def test_evaluation_in_the_middle_of_training_is_not_compiled(counted):
    model = nn.Module()
    model.predictions = lambda images: images
    model.register_parameter("device", nn.Parameter(torch.zeros(())))
    (counter,) = counted(compile_for_training, model)
    model.eval().predictions(torch.zeros(1, 3, 64, 64))
    assert counter.frame_count == 0


def test_names_of_parameters_stay_and_copies_run_on_their_own_weights():
    model = small_model("r50_panoptic")
    names = list(model.state_dict())
    compile_for_inference(model, backend="eager", postprocessing=True)
    compile_for_training(model, backend="eager")
    assert list(model.state_dict()) == names
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.predictions.__self__ is twin
        assert twin.segment is segment
        assert twin.criterion.losses_of.__self__ is twin.criterion


def test_a_missing_compiler_is_named_with_the_key_and_the_remedy(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    model = small_model("r50_panoptic")
    with pytest.raises(CompilerError, match=r"MODEL.COMPILE .* neither g\+\+ nor clang.* CXX"):
        prepare_for_inference(model, parity_models.config("r50_panoptic", "MODEL.COMPILE", True))
    with pytest.raises(CompilerError, match=r"SOLVER\.COMPILE True needs"):
        compile_for_training(model)


def test_a_matcher_on_the_host_leaves_the_criterion_uncompiled(caplog):
    class Matcher(nn.Module):
        pass

    model = small_model("r50_panoptic")
    model.criterion.matcher = Matcher()
    with caplog.at_level(logging.WARNING):
        compile_for_training(model, backend="eager")
    assert "losses_of" not in vars(model.criterion)
    assert "Matcher is no HungarianMatcher" in caplog.text
