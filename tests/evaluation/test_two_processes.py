"""Every evaluator gives the same numbers and files in two processes as in one."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from evaluation.small_sets import CASES, score

FILES = {
    "coco": ["coco_instances_results.json", "instances_predictions.pth"],
    "instance": ["coco_instances_results.json", "instances_predictions.pth"],
    "lvis": ["instances_predictions.pth", "lvis_instances_results.json"],
    "sem_seg": ["sem_seg_evaluation.pth", "sem_seg_predictions.json"],
    "panoptic": ["predictions.json"],
    "cityscapes_sem_seg": [],
    "cityscapes_instance": [],
}


def one_process(rank: int, folder: Path) -> None:
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    results = {kind: score(kind, folder, rank, 2) for kind in CASES}
    if rank == 0:
        torch.save(results, folder / "results.pth")
    else:
        assert not any(results.values())
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sets")


@pytest.fixture(scope="module")
def by_one(folder):
    return {kind: score(kind, folder) for kind in CASES}


@pytest.fixture(scope="module")
def by_two(folder, by_one):
    mp.spawn(one_process, args=(folder,), nprocs=2)
    return torch.load(folder / "results.pth", weights_only=False)


@pytest.mark.parametrize("kind", CASES)
def test_results_are_the_same(kind, by_one, by_two):
    assert by_one[kind]
    # repr: the same bits, and NaN equals NaN.
    assert repr(by_two[kind]) == repr(by_one[kind])


@pytest.mark.parametrize("kind", CASES)
def test_files_are_the_same_and_nothing_else_is_left(kind, folder, by_one, by_two):
    one, two = folder / f"{kind}_by_1", folder / f"{kind}_by_2"
    for out in (one, two):
        assert sorted(p.name for p in out.glob("*")) == FILES[kind]
    for name in FILES[kind]:
        if name.endswith(".json"):
            assert json.loads((two / name).read_text()) == json.loads((one / name).read_text())
        else:
            contents = (torch.load(out / name, weights_only=False) for out in (two, one))
            assert repr(next(contents)) == repr(next(contents))


KEYS = {
    "coco": {"bbox", "segm"},
    "instance": {"bbox", "segm"},
    "lvis": {"bbox", "segm"},
    "sem_seg": {"sem_seg"},
    "panoptic": {"panoptic_seg"},
    "cityscapes_sem_seg": {"sem_seg"},
    "cityscapes_instance": {"segm"},
}
AP = ["AP", "AP50", "AP75", "APs", "APm", "APl"]


@pytest.mark.parametrize("kind", CASES)
def test_task_keys_are_the_published_ones(kind, by_one):
    assert set(by_one[kind]) == KEYS[kind]


@pytest.mark.parametrize(
    ("kind", "task", "keys"),
    [
        ("coco", "segm", [*AP, *(f"AP-class {i}" for i in range(5))]),
        ("instance", "bbox", [*AP, *(f"AP-class {i}" for i in range(5))]),
        ("lvis", "segm", [*AP, "APr", "APc", "APf"]),
        ("cityscapes_sem_seg", "sem_seg", ["IoU", "iIoU", "IoU_sup", "iIoU_sup"]),
        ("cityscapes_instance", "segm", ["AP", "AP50"]),
    ],
)
def test_metric_keys_are_the_published_ones_in_order(kind, task, keys, by_one):
    assert list(by_one[kind][task]) == keys
    assert all(type(value) is float for value in by_one[kind][task].values())
