"""A tiny "shapes" set, rich in crowd and void regions, registered as tinyshapes_*."""

from pathlib import Path

import numpy as np
import pytest

from detectron2.config import get_cfg
from detectron2.projects.deeplab import add_deeplab_config
from mask2former import add_maskformer2_config
from mask2former.data.datasets import register_all_shapes
from mask2former.data.shapes import SceneSpec, ShapesSpec, prepare_shapes

TINY = ShapesSpec(
    train=12,
    val=5,
    scene=SceneSpec(min_side=64, max_side=110, crowd_share=0.4, void_share=0.4),
)


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory) -> Path:
    """Folder that contains ``shapes/``."""
    root = tmp_path_factory.mktemp("datasets")
    prepare_shapes(root / "shapes", TINY, workers=1, progress=False)
    register_all_shapes(str(root), prefix="tinyshapes")
    return root


@pytest.fixture
def make_cfg(shapes_root):
    """``make_cfg(mapper, train set, KEY, VALUE, ...)``: a small training config."""

    def make(mapper: str, dataset: str, *overrides):
        cfg = get_cfg()
        add_deeplab_config(cfg)
        add_maskformer2_config(cfg)
        cfg.INPUT.DATASET_MAPPER_NAME = mapper
        cfg.DATASETS.TRAIN = (dataset,)
        cfg.INPUT.FORMAT = "RGB"
        cfg.INPUT.IMAGE_SIZE = 96
        cfg.INPUT.MIN_SIZE_TRAIN = (64, 96)
        cfg.SOLVER.IMS_PER_BATCH = 2
        cfg.DATALOADER.NUM_WORKERS = 0
        cfg.SEED = 7
        cfg.merge_from_list(list(overrides))
        return cfg

    return make


@pytest.fixture
def seeded_numpy():
    """Gives numpy's global generator a known state and puts the old one back."""
    state = np.random.get_state()
    np.random.seed(0)
    yield
    np.random.set_state(state)
