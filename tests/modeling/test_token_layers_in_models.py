"""Whole models with token layers: fast against readable, threads, flops."""

import copy
import threading

import parity_models
import pytest
import torch
from token_layer_cases import difference, threads

from detectron2.modeling import build_model
from mask2former.modeling.fast_inference import prepare_for_inference
from mask2former.ops import use_implementation
from mask2former.utils.op_counts import count_activations, count_flops

# Recorded models are too narrow for the kernels, which want heads of 16 channels.
WIDE = (
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 64, "MODEL.SEM_SEG_HEAD.MASK_DIM", 64),
    *("MODEL.MASK_FORMER.HIDDEN_DIM", 64, "MODEL.MASK_FORMER.NHEADS", 4),
    *("MODEL.SWIN.EMBED_DIM", 32, "MODEL.SWIN.NUM_HEADS", [2, 4, 4, 8]),
)


def wide(case, *overrides):
    torch.manual_seed(0)
    built = build_model(parity_models.config(case, *WIDE, *overrides)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return built


@pytest.fixture(params=["r50_panoptic", "swin_panoptic", "semask_panoptic"])
def model(request):
    return wide(request.param)


def images(height=64, width=80, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, height, width, generator=generator)


@torch.no_grad()
def logits(model, batch):
    features = model.backbone(batch)
    if isinstance(features, tuple):  # SeMask gives class scores as well
        outputs, _ = model.sem_seg_head(*features)
    else:
        outputs = model.sem_seg_head(features)
    return outputs["pred_logits"], outputs["pred_masks"]


def test_kernels_change_a_model_by_rounding_only(model, token_calls):
    for size in ((32, 32), (64, 176)):
        with use_implementation("reference"):
            wanted = logits(copy.deepcopy(model).double(), images(*size).double())
            readable = logits(model, images(*size))
        assert not token_calls
        found = logits(model, images(*size))
        assert token_calls
        del token_calls[:]
        for ours, theirs, exact in zip(found, readable, wanted):
            assert difference(ours, exact) < max(2e-5, 3 * difference(theirs, exact))


def test_the_number_of_threads_does_not_matter(model):
    found = {}
    for count in (1, 2):
        with threads(count):
            found[count] = logits(model, images())
    for two, one in zip(found[2], found[1]):
        assert difference(two, one) < 1e-5


def test_fast_switched_off_keeps_the_kernels_away(token_calls):
    case = "swin_panoptic"
    image, results = [{"image": 100 + 50 * images()[0]}], {}
    for fast in (False, True):
        cfg = parity_models.config(case, "MODEL.FAST", fast)
        prepared = prepare_for_inference(wide(case), cfg)
        with torch.no_grad():
            results[fast] = prepared(image)[0]["sem_seg"]
        assert bool(token_calls) == fast
    assert difference(results[True], results[False]) < 1e-4


@pytest.mark.parametrize("count", [count_flops, count_activations])
def test_counts_are_those_of_the_readable_path(model, count, token_calls):
    batch = [{"image": images()[0]}]
    found = count(model, batch)
    assert not token_calls
    with use_implementation("reference"):
        wanted = count(model, batch)
    modules = [name for name in wanted.by_module if name.startswith(("backbone", "sem_seg_head"))]
    own_op = [name for name in modules if name.endswith("self_attn")]  # its op counts its samples
    for name in modules:
        inside = any(f"{name}." in op or name in op for op in own_op)
        assert inside or found.by_module[name] == wanted.by_module[name], name


def test_python_threads_may_run_a_model_at_once(model):
    batches = [images(seed=seed) for seed in range(2)]
    wanted = [logits(model, batch) for batch in batches]
    failed = []

    def run(i):
        try:
            for _ in range(3):
                for ours, expected in zip(logits(model, batches[i]), wanted[i]):
                    assert difference(ours, expected) < 1e-5
        except Exception as error:  # noqa: BLE001 - shown by the test
            failed.append(error)

    with threads(2):
        workers = [threading.Thread(target=run, args=(i,)) for i in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert not failed
