"""Whole models with token layers: fast against readable, threads, flops."""

import copy
import threading

import parity_models
import pytest
import torch
from token_layer_cases import difference, threads

from mask2former.modeling.fast_inference import prepare_for_inference
from mask2former.ops import use_implementation
from mask2former.utils.op_counts import count_activations, count_flops


@pytest.fixture(params=["r50_panoptic", "swin_panoptic"])
def model(request):
    return parity_models.model(request.param)


def images(height=80, width=112, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, height, width, generator=generator)


@torch.no_grad()
def logits(model, batch):
    outputs = model.sem_seg_head(model.backbone(batch))
    return outputs["pred_logits"], outputs["pred_masks"]


def test_kernels_change_a_model_by_rounding_only(model, token_calls):
    for size in ((32, 32), (80, 112), (96, 352)):
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
    for count in (1, 2, 4):
        with threads(count):
            found[count] = logits(model, images())
    for count in (2, 4):
        for ours, one in zip(found[count], found[1]):
            assert difference(ours, one) < 1e-5


def test_fast_switched_off_keeps_the_kernels_away(token_calls):
    case = "swin_panoptic"
    image = [{"image": 100 + 50 * images()[0]}]
    for fast in (False, True):
        cfg = parity_models.config(case, "MODEL.FAST", fast)
        prepared = prepare_for_inference(parity_models.model(case), cfg)
        with torch.no_grad():
            prepared(image)
        assert bool(token_calls) == fast


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
            for _ in range(4):
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
