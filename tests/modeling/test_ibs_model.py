"""Intra-Batch Supervision in whole models: other decoders, checkpointing, AMP, two processes."""

import numpy as np
import parity_models
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from detectron2.structures import Instances

IBS = ("MODEL.MASK_FORMER.APPLY_IBS", True, "MODEL.MASK_FORMER.IBS_WEIGHT", 20.0)
POINTS = ("MODEL.MASK_FORMER.IBS_POINT_SAMPLING", True)


def batch_of(case: str, *labels: list[int]) -> list[dict]:
    """An image a list of labels, each label with a random mask."""
    generator = torch.Generator().manual_seed(0)
    images = [record["image"] for record in parity_models.batched_inputs(case)]
    batch = []
    for i, classes in enumerate(labels):
        image = images[i % len(images)]
        instances = Instances(tuple(image.shape[-2:]))
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        instances.gt_masks = torch.rand(len(classes), *image.shape[-2:], generator=generator) > 0.5
        batch.append({"image": image, "instances": instances})
    return batch


def step(model, batch: list[dict]) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Losses and gradients of a step with fixed draws."""
    torch.manual_seed(0)
    np.random.seed(0)
    losses = model.train()(batch)
    model.zero_grad()
    sum(losses.values()).backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {name: loss.item() for name, loss in losses.items()}, gradients


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("r50_panoptic", {"", "_1", "_2"}),
        ("swin_panoptic", {"", "_1", "_2"}),
        ("semask_panoptic", {"", "_1", "_2"}),
        ("maskformer_v1_res5", None),
    ],
)
def test_every_backbone_and_decoder_has_the_loss(case, names):
    model = parity_models.model(case, *IBS, *POINTS)
    losses, _ = step(model, batch_of(case, [2, 3], [3, 5, 1]))
    suffixes = {n.removeprefix("loss_mask_ibs") for n in losses if n.startswith("loss_mask_ibs")}
    assert "" in suffixes and "_0" not in suffixes
    assert names is None or suffixes == names
    assert all(losses[f"loss_mask_ibs{suffix}"] > 0 for suffix in suffixes)


def test_it_adds_to_the_other_losses_and_changes_none():
    case, batch = "r50_panoptic", batch_of("r50_panoptic", [2, 3], [3, 1])
    plain, _ = step(parity_models.model(case), batch)
    supervised, _ = step(parity_models.model(case, *IBS), batch)
    added = {name for name in supervised if "ibs" in name}
    assert added and set(plain) == set(supervised) - added
    assert all(supervised[name] == pytest.approx(value) for name, value in plain.items())


def test_inference_does_not_draw(monkeypatch):
    monkeypatch.setattr("mask2former.modeling.ibs.draw_partners", None)
    model = parity_models.model("r50_panoptic", *IBS)
    with torch.no_grad():
        assert model(parity_models.batched_inputs("r50_panoptic"))


def test_checkpointing_of_the_backbone_changes_no_gradient():
    case = "swin_panoptic"
    batch = batch_of(case, [2, 3], [3, 5])
    results = [
        step(parity_models.model(case, *IBS, *POINTS, "MODEL.SWIN.USE_CHECKPOINT", on), batch)
        for on in (False, True)
    ]
    assert results[0][0] == pytest.approx(results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-4)


def test_bfloat16_autocast_trains():
    case = "r50_panoptic"
    model = parity_models.model(case, *IBS, *POINTS)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train()(batch_of(case, [2, 3], [3, 1]))
    assert losses["loss_mask_ibs"].dtype == torch.float32
    assert losses["loss_mask_ibs"] > 0
    sum(losses.values()).backward()


def one_process(rank: int, store: str, folder: str) -> None:
    """Process 0 has two images with things; process 1 images without, then one alone."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    case = "r50_panoptic"
    model = DistributedDataParallel(parity_models.model(case, *IBS, *POINTS).train())
    ibs = []
    for labels in ([[2, 3], [3]], [[1], []], [[3]]) if rank else ([[2, 3], [3]],) * 3:
        losses = model(batch_of(case, *labels))
        model.zero_grad()
        sum(losses.values()).backward()
        ibs.append(losses["loss_mask_ibs"].item())
    gradients = {n: p.grad for n, p in model.module.named_parameters() if p.requires_grad}
    torch.save({"ibs": ibs, "gradients": gradients}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_processes_may_have_things_none_or_a_single_image(tmp_path):
    mp.spawn(one_process, args=(str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(loss > 0 for loss in first["ibs"])
    assert second["ibs"][0] > 0 and second["ibs"][1:] == [0, 0]
    assert first["gradients"]
    for name, gradient in first["gradients"].items():
        torch.testing.assert_close(gradient, second["gradients"][name])
