"""A tiny data set and tiny random weights for scripts that need a model."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

REPO = Path(__file__).parents[2]
CONFIG = REPO / "tests/fixtures/engine/tiny.yaml"


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """``root`` (of data), ``images`` (folder), ``config``, ``weights`` and ``env`` for scripts."""
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model
    from detectron2.projects.deeplab import add_deeplab_config
    from mask2former import add_maskformer2_config
    from mask2former.data.shapes import SceneSpec, ShapesSpec, prepare_shapes

    root = tmp_path_factory.mktemp("project")
    scene = SceneSpec(min_side=64, max_side=96, max_things=4)
    prepare_shapes(
        root / "shapes", ShapesSpec(train=4, val=3, scene=scene), workers=1, progress=False
    )
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    cfg.merge_from_file(str(CONFIG))
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, root / "weights.pth")
    return SimpleNamespace(
        root=root,
        images=root / "shapes/val",
        config=str(CONFIG),
        weights=str(root / "weights.pth"),
        env={
            **os.environ,
            "DETECTRON2_DATASETS": str(root),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(REPO),
        },
    )
