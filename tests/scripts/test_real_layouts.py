"""Each set and task from its download to its metrics: prepare, train a step, evaluate, reload.

A part of what ``tools/prove_configs.py`` runs for every config.
"""

import multiprocessing as mp
import os
from concurrent.futures import ProcessPoolExecutor

import pytest
from proving.downloads import prepare_here
from proving.matrix import downloads_of, find_configs, run_matrix, start_like_a_command
from proving.running import prove

CONFIGS = [
    "coco/panoptic-segmentation/maskformer2_R50_bs16_50ep",
    "coco/instance-segmentation/swin/maskformer2_swin_tiny_bs16_50ep",
    "ade20k/panoptic-segmentation/maskformer2_R50_bs16_160k",
    "ade20k/instance-segmentation/maskformer2_R50_bs16_160k",
    "ade20k/semantic-segmentation/swin/maskformer2_swin_tiny_bs16_160k",
    "cityscapes/panoptic-segmentation/maskformer2_R50_bs16_90k",
    "cityscapes/panoptic-segmentation/maskformer2_R50_bs16_90k_ibs_cropsampling",
    "cityscapes/instance-segmentation/maskformer2_R50_bs16_90k",
    "cityscapes/semantic-segmentation/maskformer2_R50_bs16_90k",
    "mapillary-vistas/panoptic-segmentation/maskformer_R50_bs16_300k",
    "mapillary-vistas/semantic-segmentation/maskformer2_R50_bs16_300k",
    "safetybarrier/instance-segmentation/swin/maskformer2_swin_tiny_bs16_50ep",
]
SEMANTIC = "configs/ade20k/semantic-segmentation/maskformer2_R50_bs16_160k.yaml"
# Sets without a published config -> a config that fits their kind, and their classes.
INSTANCE = "configs/coco/instance-segmentation/maskformer2_R50_bs16_50ep.yaml"
OTHERS = {
    "coco_2017_{}_stuff_10k_sem_seg": (SEMANTIC, ("train", "test"), 171),
    "ade20k_full_sem_seg_{}": (SEMANTIC, ("train", "val"), 847),
    "lvis_v1_{}": (INSTANCE, ("train", "val"), 1203),
    "mapillary_vistas_instance_seg_{}": (INSTANCE, ("train", "val"), 37),
}


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """A process that knows a root with all sets prepared: ``process(function, ...)``."""
    root = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        context = mp.get_context("spawn")
        with ProcessPoolExecutor(1, context, start_like_a_command) as pool:
            keys = ("coco", "ade20k", "cityscapes", "mapillary", "safetybarrier")
            pool.submit(prepare_here, keys, root).result()
            pool.submit(prepare_here, ("coco_stuff_10k", "ade20k_full", "lvis"), root).result()
            yield lambda function, *args, **kwargs: pool.submit(function, *args, **kwargs).result()


@pytest.mark.parametrize("config", CONFIGS)
def test_from_download_to_metrics(process, tmp_path, config):
    outcome = process(prove, f"configs/{config}.yaml", tmp_path / "out", eval_only=True)
    assert outcome.proved, outcome.reason


@pytest.mark.parametrize("pattern", OTHERS)
def test_sets_without_a_published_config(process, tmp_path, pattern):
    config, (train, test), classes = OTHERS[pattern]
    overrides = {
        "DATASETS.TRAIN": (pattern.format(train),),
        "DATASETS.TEST": (pattern.format(test),),
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": classes,
    }
    outcome = process(prove, config, tmp_path / "out", overrides=overrides)
    assert outcome.proved, outcome.reason
    assert outcome.datasets == (pattern.format(train), pattern.format(test))


def test_test_time_augmentation_adds_its_own_results(process, tmp_path):
    outcome = process(
        prove, SEMANTIC, tmp_path / "out", eval_only=True, overrides={"TEST.AUG.ENABLED": True}
    )
    assert outcome.proved, outcome.reason
    assert "sem_seg_TTA" in outcome.evaluated


def test_what_fails_is_told_and_does_not_stop_the_matrix(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", os.environ.get("DETECTRON2_DATASETS", ""))
    config = "configs/safetybarrier/instance-segmentation/swin/maskformer2_swin_tiny_bs16_50ep.yaml"
    monkeypatch.setattr("proving.matrix.prepare", lambda keys, root: {})
    proof = run_matrix([config], tmp_path / "data", tmp_path / "runs", workers=1)
    assert not proof.complete
    assert "is not where it is expected" in proof.outcomes[0].reason


def test_the_matrix_covers_every_config_that_is_no_base():
    configs = find_configs()
    assert len(configs) >= 63
    assert not any("Base-" in c for c in configs)
    assert {"coco", "ade20k", "cityscapes", "mapillary"} <= set(downloads_of(configs))
