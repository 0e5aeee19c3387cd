"""Crop sampling: pairs of crops as recorded from the published code, and its draws."""

import json
import logging

import numpy as np
import parity_cases
import pytest
from cityscapesscripts.helpers.labels import labels as CITYSCAPES

from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.projects.deeplab import add_deeplab_config
from mask2former import MaskFormerPanopticDatasetMapperCropSampling, add_maskformer2_config
from mask2former.data import build_train_mapper
from mask2former.data.dataset_mappers import lazy_augmentation
from mask2former.data.dataset_mappers.crop_sampling import AdaptiveResize, CropAroundBox
from mask2former.data.dataset_mappers.lazy_augmentation import StandIn

CASE = "ibs_crop_sampling"
DATASET = "recorded_panoptic_train_cropsampling"
CAR = 26
RECORDED = parity_cases.facts(CASE, "mapper_outputs")["calls"]


@pytest.fixture(scope="module")
def sampling_root(tmp_path_factory):
    """The prepared files of the recording, with the paths of this checkout."""
    folder = parity_cases.ROOT / CASE
    root = tmp_path_factory.mktemp("sampling")
    (root / "images").mkdir()
    for file in (folder / "expected/cityscapes/panoptic_json_train").iterdir():
        text = file.read_text().replace("<DETECTRON2_DATASETS>", str(folder / "data"))
        (root / "images" / file.name).write_text(text)
    index = (folder / "expected/cityscapes/images_per_class_train.json").read_text()
    (root / "index.json").write_text(index)
    seen = [label for label in CITYSCAPES if not label.ignoreInEval]
    MetadataCatalog.get(DATASET).set(
        ignore_label=255,
        images_per_cat_json=str(root / "index.json"),
        json_per_img_dir=f"{root}/images/",
        thing_dataset_id_to_contiguous_id={x.id: x.trainId for x in seen if x.hasInstances},
        stuff_dataset_id_to_contiguous_id={x.id: x.trainId for x in seen if not x.hasInstances},
    )
    return root


@pytest.fixture
def sampling_cfg(sampling_root, seeded_numpy):
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    cfg.merge_from_file(parity_cases.config_file(CASE))
    cfg.DATASETS.TRAIN = (DATASET,)
    return cfg


def assert_recorded(sample, call, item):
    expected = parity_cases.arrays(CASE, "mapper_outputs")
    facts = RECORDED[call]["items"][item]
    prefix = f"call{call}_item{item}_"
    assert sample["image_id"] == facts["image_id"]
    assert sorted(sample) == facts["keys"]
    np.testing.assert_array_equal(sample["image"], expected[prefix + "image"])
    np.testing.assert_array_equal(sample["sem_seg"], expected[prefix + "sem_seg"])
    assert sample["instances"].gt_classes.tolist() == facts["gt_classes"]
    np.testing.assert_array_equal(sample["instances"].gt_masks, expected[prefix + "gt_masks"])


def chose_crowd(facts) -> bool:
    x0, y0, x1, y1 = facts["trace"]["box_xyxy_before"][0]
    folder = parity_cases.ROOT / CASE / "expected/cityscapes/panoptic_json_train"
    segments = json.loads((folder / f"{facts['image_id']}.json").read_text())["segments_info"]
    return any(s["iscrowd"] and s["bbox"] == [x0, y0, x1 - x0, y1 - y0] for s in segments)


class TestRecorded:
    def test_the_published_draws_give_the_recorded_pairs(self, sampling_cfg):
        sampling_cfg.INPUT.NEW_SAMPLING_CROWD = True
        mapper = build_train_mapper(sampling_cfg)
        for number, call in enumerate(RECORDED):
            np.random.seed(call["np_random_seed"])
            pair = mapper(call["input"])
            assert sorted(map(str, pair)) == call["top_level_keys"]
            assert (pair["height"], pair["width"]) == (call["height"], call["width"])
            for item in (0, 1):
                assert_recorded(pair[item], number, item)

    def test_by_default_the_same_wherever_no_crowd_was_chosen(self, sampling_cfg):
        mapper = MaskFormerPanopticDatasetMapperCropSampling(sampling_cfg, True)
        compared = 0
        for number, call in enumerate(RECORDED):
            if not any(chose_crowd(facts) for facts in call["items"]):
                np.random.seed(call["np_random_seed"])
                pair = mapper(call["input"])
                for item in (0, 1):
                    assert_recorded(pair[item], number, item)
                compared += 1
        assert compared == len(RECORDED) - 1

    def test_the_ordinary_path_through_detectron2_gives_the_same(self, sampling_cfg, monkeypatch):
        monkeypatch.setattr(lazy_augmentation, "_is_size_only", lambda augmentation: False)
        sampling_cfg.INPUT.NEW_SAMPLING_CROWD = True
        mapper = build_train_mapper(sampling_cfg)
        for number, call in enumerate(RECORDED):
            np.random.seed(call["np_random_seed"])
            pair = mapper(call["input"])
            for item in (0, 1):
                assert_recorded(pair[item], number, item)


class TestDraws:
    def drawn_boxes(self, cfg, monkeypatch, count):
        """(image id, box, size that a thing is brought to) of many draws."""
        mapper = build_train_mapper(cfg)
        drawn = []

        def note(record, boxes, ratio):
            x0, y0, x1, y1 = boxes[0].tolist()
            size = round(float(ratio * np.sqrt((x1 - x0) * (y1 - y0))))
            drawn.append((record["image_id"], (x0, y0, x1 - x0, y1 - y0), size))
            return {}

        monkeypatch.setattr(mapper, "_map", note)
        for _ in range(count):
            mapper({"cat_id": CAR})
        return drawn

    @pytest.mark.parametrize("allowed", [False, True])
    def test_crowds_are_chosen_only_with_the_published_behaviour(
        self, sampling_cfg, sampling_root, monkeypatch, allowed
    ):
        sampling_cfg.INPUT.NEW_SAMPLING_CROWD = allowed
        crowds = {
            (path.stem, tuple(segment["bbox"]))
            for path in (sampling_root / "images").iterdir()
            for segment in json.loads(path.read_text())["segments_info"]
            if segment["iscrowd"]
        }
        drawn = self.drawn_boxes(sampling_cfg, monkeypatch, 300)
        assert crowds
        assert any((image, box) in crowds for image, box, _ in drawn) is allowed

    def test_images_segments_and_sizes_are_chosen_evenly(
        self, sampling_cfg, sampling_root, monkeypatch
    ):
        drawn = self.drawn_boxes(sampling_cfg, monkeypatch, 2000)
        assert [s for _, _, s in drawn[::2]] == [s for _, _, s in drawn[1::2]]
        sizes = np.array([s for _, _, s in drawn[::2]])
        for size in sampling_cfg.INPUT.SCALE_OPTIONS:
            assert abs((sizes == size).mean() - 0.2) < 0.04
        images = [image for image, _, _ in drawn]
        for image in set(images):
            assert abs(images.count(image) / len(images) - 0.25) < 0.03
            boxes = [box for name, box, _ in drawn if name == image]
            path = sampling_root / "images" / f"{image}.json"
            cars = [s for s in json.loads(path.read_text())["segments_info"] if not s["iscrowd"]]
            expected = {tuple(s["bbox"]) for s in cars if s["category_id"] == CAR}
            assert set(boxes) == expected
            for box in expected:
                assert abs(boxes.count(box) / len(boxes) - 1 / len(expected)) < 0.06

    def test_flips_half_of_the_samples(self, sampling_cfg):
        augmentations = T.AugmentationList(build_train_mapper(sampling_cfg).tfm_gens)
        flips = 0
        for _ in range(2000):
            view = StandIn((96, 160, 3), None, boxes=np.array([[5, 5, 25, 25]]), ratio=1.0)
            augmentations(view)
            flips += any(isinstance(step, T.HFlipTransform) for step in view.steps)
        assert abs(flips / 2000 - 0.5) < 0.04


class TestAdaptiveResize:
    resize = AdaptiveResize((48, 300), 420, (56, 112), 400, "choice")

    def size(self, ratio, shape=(80, 144, 3)):
        step = self.resize.get_transform(np.zeros(shape, np.uint8), ratio)
        return step.new_h, step.new_w

    def test_the_ratio_scales_both_sides(self):
        assert self.size(np.float32(1.5)) == (120, 216)

    def test_the_shorter_side_stays_within_its_limits(self):
        assert self.size(np.float32(0.01)) == (48, 86)
        assert self.size(np.float32(99), (80, 80, 3)) == (300, 300)

    def test_the_longer_side_is_limited_last(self):
        assert self.size(np.float32(3)) == (233, 420)

    def test_without_a_ratio_it_is_the_shortest_edge(self, seeded_numpy):
        sizes = {self.size(None) for _ in range(50)}
        assert sizes == {(56, 101), (112, 202)}


class TestCropAroundBox:
    def starts(self, box, draws=3000, shape=(200, 300, 3)):
        crop = CropAroundBox("absolute", (60, 80))
        image = np.broadcast_to(np.uint8(0), shape)
        steps = [crop.get_transform(image, np.array([box])) for _ in range(draws)]
        assert {(s.h, s.w) for s in steps} == {(60, 80)}
        return np.array([(s.y0, s.x0) for s in steps])

    def test_the_centre_is_inside_and_positions_are_even(self, seeded_numpy):
        starts = self.starts([100, 90, 140, 110])  # centre 120, 100
        for values, centre, crop in ((starts[:, 0], 100, 60), (starts[:, 1], 120, 80)):
            assert (values.min(), values.max()) == (centre - crop, centre - 1)
            counts = np.bincount(values)[values.min() :]
            # A chi-square of n bins has mean n and variance 2 n.
            bins, expected = len(counts), len(values) / len(counts)
            assert ((counts - expected) ** 2 / expected).sum() < bins + 4 * np.sqrt(2 * bins)

    def test_at_the_border_the_crop_stays_in_the_image(self, seeded_numpy):
        starts = self.starts([290, 190, 300, 200], draws=500)
        assert starts.min(0).tolist() == [135, 215]
        assert starts.max(0).tolist() == [140, 220]

    def test_without_boxes_it_lies_anywhere(self, seeded_numpy):
        crop = CropAroundBox("absolute", (60, 80))
        image = np.broadcast_to(np.uint8(0), (200, 300, 3))
        starts = [crop.get_transform(image, None) for _ in range(500)]
        assert max(s.y0 for s in starts) > 120
        assert max(s.x0 for s in starts) > 200


class TestRefusals:
    def test_records_without_a_category(self, sampling_cfg):
        mapper = build_train_mapper(sampling_cfg)
        with pytest.raises(ValueError, match=r"'cat_id'.*_cropsampling"):
            mapper({"file_name": "x.png"})

    def test_a_category_that_no_image_has(self, sampling_cfg):
        with pytest.raises(ValueError, match=r"index\.json lists no image of category 31"):
            build_train_mapper(sampling_cfg)({"cat_id": 31})

    def test_an_index_that_was_not_prepared(self, sampling_cfg, tmp_path):
        meta = MetadataCatalog.get(DATASET).as_dict() | {"images_per_cat_json": f"{tmp_path}/no"}
        meta.pop("name", None)
        MetadataCatalog.get("unprepared_cropsampling").set(**meta)
        sampling_cfg.DATASETS.TRAIN = ("unprepared_cropsampling",)
        with pytest.raises(FileNotFoundError, match=r"prepare_cityscapes_sampling\.py"):
            build_train_mapper(sampling_cfg)

    @pytest.mark.parametrize(
        ("index", "record"),
        [("{", None), ("[]", None), ("{}", None), (None, '{"file_'), (None, "{}")],
    )
    def test_a_broken_index_is_named(self, sampling_cfg, sampling_root, tmp_path, index, record):
        for path in sampling_root.rglob("*.json"):
            is_index = path.name == "index.json"
            text = (index if is_index else record) or path.read_text()
            (tmp_path / path.name).write_text(text)
        meta = MetadataCatalog.get(DATASET).as_dict() | {
            "name": f"{tmp_path.name}_cropsampling",
            "images_per_cat_json": f"{tmp_path}/index.json",
            "json_per_img_dir": str(tmp_path),
        }
        sampling_cfg.DATASETS.TRAIN = (meta["name"],)
        MetadataCatalog.get(meta["name"]).set(**meta)
        named = r"index\.json" if index else r"_000019\.json"
        with pytest.raises(ValueError, match=f"{tmp_path}/.*{named}.*prepare_crop_sampling"):
            build_train_mapper(sampling_cfg)({"cat_id": CAR})

    def test_several_training_sets(self, sampling_cfg):
        sampling_cfg.DATASETS.TRAIN = (DATASET, DATASET)
        with pytest.raises(ValueError, match="one data set"):
            build_train_mapper(sampling_cfg)

    def test_a_set_that_is_not_made_for_it(self, sampling_cfg):
        MetadataCatalog.get("plain_panoptic_set").set(ignore_label=255)
        sampling_cfg.DATASETS.TRAIN = ("plain_panoptic_set",)
        with pytest.raises(ValueError, match="no images_per_cat_json"):
            build_train_mapper(sampling_cfg)

    @pytest.mark.parametrize("key", ["INPUT.NEW_SAMPLING", "INPUT.CROP.WITH_INSTANCE"])
    def test_its_keys_need_this_mapper(self, make_cfg, key):
        cfg = make_cfg("mask_former_panoptic", "tinyshapes_panoptic_train", key, True)
        with pytest.raises(ValueError, match="mask_former_panoptic_cropsampling only"):
            build_train_mapper(cfg)


class TestVanishedSegments:
    """INPUT.DROP_VANISHED_SEGMENTS: what Mask2Former-IBS does with segments that were cut away."""

    SMALL = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", [9, 9])

    @pytest.mark.parametrize(
        ("name", "dataset"),
        [
            ("mask_former_panoptic", "tinyshapes_panoptic_train"),
            ("mask_former_instance", "tinyshapes_instance_train"),
        ],
    )
    def test_they_go_with_ibs_and_stay_without(self, make_cfg, seeded_numpy, name, dataset):
        from detectron2.data import DatasetCatalog

        plain = build_train_mapper(make_cfg(name, dataset, *self.SMALL))
        ibs = make_cfg(name, dataset, *self.SMALL, "MODEL.MASK_FORMER.APPLY_IBS", True)
        ibs = build_train_mapper(ibs)
        dropped = kept = 0
        for seed, record in enumerate(DatasetCatalog.get(dataset) * 3):
            np.random.seed(seed)
            every = plain(record)["instances"]
            np.random.seed(seed)
            some = ibs(record)["instances"]
            areas = every.gt_masks.flatten(1).sum(1)
            visible = areas > 1 if name == "mask_former_panoptic" else areas > 0
            np.testing.assert_array_equal(some.gt_masks, every.gt_masks[visible])
            assert some.gt_classes.tolist() == every.gt_classes[visible].tolist()
            dropped += len(every) - len(some)
            kept += len(some)
        assert dropped > 0
        assert kept > 0

    def test_the_key_decides_where_it_is_set(self, make_cfg):
        for key, ibs in ((True, False), (False, True)):
            cfg = make_cfg("mask_former_panoptic", "tinyshapes_panoptic_train")
            cfg.INPUT.DROP_VANISHED_SEGMENTS, cfg.MODEL.MASK_FORMER.APPLY_IBS = key, ibs
            assert build_train_mapper(cfg).drop_vanished is key


def test_a_misspelt_mapper_is_pointed_out(make_cfg, caplog):
    cfg = make_cfg("mask_former_panoptic_crop_sampling", "tinyshapes_panoptic_train")
    with caplog.at_level(logging.WARNING):
        build_train_mapper(cfg)
    assert "Did you mean mask_former_panoptic_cropsampling?" in caplog.text
