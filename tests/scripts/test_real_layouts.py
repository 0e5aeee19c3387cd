"""Each set and task from its download to its metrics: prepare, train a step, evaluate, reload.

A part of what ``tools/prove_configs.py`` runs for every config.
"""

import pytest
from proving.downloads import download_of
from proving.matrix import downloads_of, find_configs
from proving.process import TinyProcess
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
    """Knows a tiny root; prepares what is needed."""
    process = TinyProcess(tmp_path_factory.mktemp("datasets"))
    yield process
    process.close()


@pytest.mark.parametrize("config", CONFIGS)
def test_from_download_to_metrics(process, tmp_path, config):
    config = f"configs/{config}.yaml"
    process.need(*downloads_of([config]))
    outcome = process.run(prove, config, tmp_path / "out", eval_only=True)
    assert outcome.proved, outcome.reason


@pytest.mark.parametrize("pattern", OTHERS)
def test_sets_without_a_published_config(process, tmp_path, pattern):
    config, (train, test), classes = OTHERS[pattern]
    train, test = pattern.format(train), pattern.format(test)
    overrides = {
        "DATASETS.TRAIN": (train,),
        "DATASETS.TEST": (test,),
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": classes,
    }
    process.need(download_of(train))
    outcome = process.run(prove, config, tmp_path / "out", overrides=overrides)
    assert outcome.proved, outcome.reason
    assert outcome.datasets == (train, test)


def test_test_time_augmentation_adds_its_own_results(process, tmp_path):
    process.need("ade20k")
    outcome = process.run(
        prove, SEMANTIC, tmp_path / "out", eval_only=True, overrides={"TEST.AUG.ENABLED": True}
    )
    assert outcome.proved, outcome.reason
    assert "sem_seg_TTA" in outcome.evaluated


def test_what_fails_is_told(process, tmp_path):
    overrides = {"DATASETS.TRAIN": ("coco_2014_train",)}
    outcome = process.run(prove, INSTANCE, tmp_path / "out", overrides=overrides)
    assert not outcome.proved
    assert 'train: ConfigError: Dataset "coco_2014_train" is not where it is' in outcome.reason


def test_the_matrix_covers_every_config_that_is_no_base():
    configs = find_configs()
    assert len(configs) >= 63
    assert not any("Base-" in c for c in configs)
    assert {"coco", "ade20k", "cityscapes", "mapillary"} <= set(downloads_of(configs))
