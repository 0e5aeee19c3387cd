"""A handful of generated pictures and a tiny model for tests that train."""

import argparse
import os

import pytest
import torch
from engine.tiny import REPO, TINY


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory):
    """A data root with ``shapes/``: 6 training and 4 validation pictures."""
    from mask2former.data.shapes import SceneSpec, ShapesSpec, prepare_shapes

    root = tmp_path_factory.mktemp("datasets")
    scene = SceneSpec(min_side=64, max_side=96, max_things=4)
    prepare_shapes(
        root / "shapes", ShapesSpec(train=6, val=4, scene=scene), workers=1, progress=False
    )
    return root


@pytest.fixture(scope="session")
def tiny_sets(shapes_root):
    """The same pictures, registered in this process with the prefix ``tinyshapes``."""
    from mask2former.data.datasets.register_shapes import register_all_shapes

    register_all_shapes(str(shapes_root), prefix="tinyshapes")
    return ("tinyshapes_panoptic_train", "tinyshapes_panoptic_val_with_sem_seg")


@pytest.fixture
def arguments(tiny_sets, tmp_path):
    """Makes what the command line would give: ``arguments("KEY", "VALUE", resume=True)``."""

    def make(*opts, eval_only=False, resume=False, num_gpus=0, config_file=TINY):
        train, test = tiny_sets
        given = ["DATASETS.TRAIN", f"('{train}',)", "DATASETS.TEST", f"('{test}',)"]
        given += ["OUTPUT_DIR", str(tmp_path / "out"), *map(str, opts)]
        return argparse.Namespace(
            config_file=config_file,
            opts=given,
            eval_only=eval_only,
            resume=resume,
            num_gpus=num_gpus,
            num_machines=1,
            machine_rank=0,
            dist_url="auto",
        )

    return make


@pytest.fixture
def script_environment(shapes_root):
    """Environment variables for train_net.py in a process of its own."""
    return {
        **os.environ,
        "DETECTRON2_DATASETS": str(shapes_root),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPO),
    }


@pytest.fixture(autouse=True)
def one_thread():
    """Sums over several threads depend on how the work was split."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
