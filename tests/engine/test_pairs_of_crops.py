"""Crop sampling's pairs: half as many items a batch, two images each in the model."""

import os

import pytest
import torch
import yaml

from detectron2.data import DatasetCatalog, MetadataCatalog
from mask2former.engine import ConfigError, setup
from mask2former.maskformer_model import MaskFormer, unpaired

SAMPLER = "mask_former_panoptic_cropsampling"


@pytest.fixture
def sampling_set(tiny_sets, tmp_path):
    """A set with an index, of which only the existence matters here."""
    name = "tinyshapes_panoptic_train_cropsampling"
    plain = MetadataCatalog.get(tiny_sets[0])
    (tmp_path / "index.json").write_text("{}")
    meta = {k: v for k, v in plain.as_dict().items() if k not in ("name", "images_per_cat_json")}
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(**meta, images_per_cat_json=str(tmp_path / "index.json"))
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.fixture
def sampling(sampling_set):
    return [
        *("DATASETS.TRAIN", f"('{sampling_set}',)"),
        *("INPUT.DATASET_MAPPER_NAME", SAMPLER),
        *("INPUT.NEW_SAMPLING", "True"),
    ]


def test_the_batch_counts_pairs_and_the_saved_config_images(arguments, sampling):
    args = arguments(*sampling, "SOLVER.IMS_PER_BATCH", 4)
    cfg = setup(args)
    assert cfg.SOLVER.IMS_PER_BATCH == 2
    with pytest.raises(AttributeError):
        cfg.SOLVER.IMS_PER_BATCH = 3
    with open(os.path.join(cfg.OUTPUT_DIR, "config.yaml")) as f:
        assert yaml.safe_load(f)["SOLVER"]["IMS_PER_BATCH"] == 4


def test_an_odd_batch_is_refused(arguments, sampling):
    with pytest.raises(ConfigError, match=r"is 3, .*pairs.* set SOLVER\.IMS_PER_BATCH 4"):
        setup(arguments(*sampling, "SOLVER.IMS_PER_BATCH", 3))


def test_another_mapper_is_refused(arguments):
    with pytest.raises(ConfigError, match=f"need INPUT.DATASET_MAPPER_NAME {SAMPLER}"):
        setup(arguments("INPUT.NEW_SAMPLING", "True"))


def test_a_set_without_index_is_refused(arguments):
    with pytest.raises(ConfigError, match=r"no images_per_cat_json.*\*_cropsampling"):
        setup(arguments("INPUT.DATASET_MAPPER_NAME", SAMPLER))


def test_a_missing_index_is_named(arguments, sampling, sampling_set):
    MetadataCatalog.get(sampling_set).__dict__["images_per_cat_json"] = "/nowhere/index.json"
    with pytest.raises(ConfigError, match=r"/nowhere/index\.json does not exist"):
        setup(arguments(*sampling, "SOLVER.IMS_PER_BATCH", 4))


def test_the_model_takes_the_samples_of_each_item_in_turn(monkeypatch):
    pairs = [{0: {"image": i}, 1: {"image": i + 1}, "height": 8, "width": 8} for i in (0, 2)]
    assert [x["image"] for x in unpaired(pairs)] == [0, 1, 2, 3]
    single = [{"image": torch.zeros(3, 4, 4)}]
    assert unpaired(single) is single
    seen = []

    def stop(self, batched_inputs):
        seen.extend(x["image"] for x in batched_inputs)
        raise StopIteration

    monkeypatch.setattr(MaskFormer, "preprocess_image", stop)
    model = MaskFormer.__new__(MaskFormer)
    torch.nn.Module.__init__(model)
    with pytest.raises(StopIteration):
        model(pairs)
    assert seen == [0, 1, 2, 3]


def test_a_divergence_names_the_image_of_the_pair():
    from mask2former.engine.train_step import TrainStep

    pairs = [
        {i: {"image": None, "file_name": f"{name}{i}.png"} for i in (0, 1)} for name in ("a", "b")
    ]
    error = FloatingPointError("costs")
    error.layer, error.images = "0", [1, 2]
    model = torch.nn.Linear(1, 1)
    step = TrainStep(model, None, torch.optim.SGD(model.parameters(), lr=0.1), dtype=None)
    step.iter = 5
    assert "images: a1.png, b0.png;" in step._explain(error, pairs)
