"""Predicting in other processes gives the same, in order, through the published methods."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mask2former.engine.setup import load_config
from mask2former.inference import AsyncPredictor, Predictor

TINY = Path(__file__).parents[1] / "fixtures" / "engine" / "tiny.yaml"


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    import mask2former  # noqa: F401 - registers what the config names

    weights = tmp_path_factory.mktemp("async") / "weights.pth"
    config = load_config(str(TINY), ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    torch.save({"model": Predictor(config).model.state_dict()}, weights)
    config.defrost()
    config.MODEL.WEIGHTS = str(weights)
    return config


def test_outputs_come_in_the_order_of_the_images_from_put_and_get_and_stream(cfg):
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (32, 40 + i, 3), np.uint8) for i in range(5)]
    expected = [Predictor(cfg)(image) for image in images]
    workers = AsyncPredictor(cfg, num_gpus=0)
    assert len(workers) == 0 and workers.default_buffer_size >= 1
    for image in images[:2]:
        workers.put(image)
    assert len(workers) == 2
    outputs = [workers.get(), workers.get(), *workers.stream(images[2:])]
    workers.shutdown()
    assert len(outputs) == len(expected)
    for output, wanted in zip(outputs, expected):
        assert output.keys() == wanted.keys()
        assert output["sem_seg"].shape == wanted["sem_seg"].shape
        torch.testing.assert_close(output["sem_seg"], wanted["sem_seg"])


def test_a_worker_that_cannot_start_is_an_error_not_a_wait(cfg, tmp_path):
    broken = cfg.clone()
    broken.MODEL.WEIGHTS = str(tmp_path / "gone.pth")
    workers = AsyncPredictor(broken, num_gpus=0)
    with pytest.raises(RuntimeError, match="ended with status 1"):
        workers(np.zeros((32, 32, 3), np.uint8))
    workers.shutdown()


def test_nothing_put_nothing_to_get(cfg):
    workers = AsyncPredictor(cfg, num_gpus=0)
    with pytest.raises(IndexError):
        workers.get()
    workers.shutdown()
