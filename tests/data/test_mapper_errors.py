"""Bad and unusual input to the mappers: what is refused, what is survived."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_api

from detectron2.data import DatasetCatalog
from mask2former.data import (
    COCOInstanceNewBaselineDatasetMapper,
    COCOPanopticNewBaselineDatasetMapper,
    ImageDecodeError,
    MaskFormerInstanceDatasetMapper,
    MaskFormerPanopticDatasetMapper,
    MaskFormerSemanticDatasetMapper,
    build_train_mapper,
)
from mask2former.data.dataset_mappers import annotations as annotations_module


def semantic(**changes) -> MaskFormerSemanticDatasetMapper:
    arguments = {"augmentations": [], "image_format": "RGB", "ignore_label": 255}
    return MaskFormerSemanticDatasetMapper(
        **{"is_train": True, "size_divisibility": -1, **arguments, **changes}
    )


def panoptic(**changes) -> MaskFormerPanopticDatasetMapper:
    arguments = {"augmentations": [], "image_format": "RGB", "ignore_label": 255}
    return MaskFormerPanopticDatasetMapper(
        **{"is_train": True, "size_divisibility": -1, **arguments, **changes}
    )


def instance(**changes) -> MaskFormerInstanceDatasetMapper:
    arguments = {"augmentations": [], "image_format": "RGB", "size_divisibility": -1}
    return MaskFormerInstanceDatasetMapper(**{"is_train": True, **arguments, **changes})


def jitter_instance() -> COCOInstanceNewBaselineDatasetMapper:
    return COCOInstanceNewBaselineDatasetMapper(True, tfm_gens=[], image_format="RGB")


@pytest.fixture
def image_file(tmp_path) -> str:
    """A grey image, 10 pixels wide and 8 high."""
    path = tmp_path / "image.png"
    Image.new("RGB", (10, 8), (9, 9, 9)).save(path)
    return str(path)


def square(x0=2.0, y0=2.0, x1=6.0, y1=6.0) -> list[list[float]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def record_of(image_file, *segmentations, **extra) -> dict:
    annotations = [
        {"category_id": 1, "bbox": [2, 2, 4, 4], "iscrowd": 0, "segmentation": s, **extra}
        for s in segmentations
    ]
    return {"file_name": image_file, "annotations": annotations}


class TestRefusals:
    def test_only_for_training(self, image_file, make_cfg):
        for mapper in (semantic, panoptic, instance):
            with pytest.raises(AssertionError, match="only be used for training"):
                mapper(is_train=False)({"file_name": image_file})
        cfg = make_cfg("coco_panoptic_lsj", "tinyshapes_panoptic_train")
        for kind in (COCOPanopticNewBaselineDatasetMapper, COCOInstanceNewBaselineDatasetMapper):
            with pytest.raises(AssertionError, match="training"):
                kind(cfg, False)

    def test_ground_truth_files_are_required(self, image_file):
        with pytest.raises(ValueError, match="sem_seg_file_name"):
            semantic()({"file_name": image_file})
        with pytest.raises(ValueError, match="pan_seg_file_name"):
            panoptic()({"file_name": image_file})

    def test_annotations_do_not_belong_to_label_maps(self, image_file):
        record = {"file_name": image_file, "annotations": []}
        with pytest.raises(ValueError, match="annotations"):
            semantic()({**record, "sem_seg_file_name": "x.png"})
        with pytest.raises(ValueError, match="annotations"):
            panoptic()({**record, "pan_seg_file_name": "x.png", "segments_info": []})

    def test_instances_need_segmentations(self, image_file):
        with pytest.raises(AssertionError, match="annotations"):
            instance()({"file_name": image_file})
        with pytest.raises(AssertionError, match="segmentation"):
            instance()({"file_name": image_file, "annotations": [{"category_id": 1}]})

    def test_a_segmentation_of_another_kind_names_file_and_annotation(self, image_file):
        with pytest.raises(ValueError, match=r"image\.png, annotation 77: .* type int"):
            instance()(record_of(image_file, 5, id=77))

    def test_a_run_length_mask_of_another_size_is_refused(self, image_file):
        rle = mask_api.encode(np.asfortranarray(np.ones((4, 4), np.uint8)))
        with pytest.raises(ValueError, match="mask of 4x4 on an image of 10x8"):
            instance()(record_of(image_file, rle))

    def test_a_polygon_with_half_a_point_names_file_and_annotation(self, image_file):
        with pytest.raises(ValueError, match=r"image\.png, annotation 7: .* 5 coordinates"):
            instance()(record_of(image_file, [[1.0, 2.0, 3.0, 4.0, 5.0]], id=7))

    def test_an_image_of_another_size_than_recorded(self, image_file):
        with pytest.raises(ValueError, match="image"):
            instance()({**record_of(image_file), "width": 99, "height": 8})

    def test_a_label_map_of_another_size_names_both(self, image_file, tmp_path):
        path = tmp_path / "labels.png"
        Image.new("L", (4, 4)).save(path)
        with pytest.raises(ValueError, match=r"labels\.png is 4x4 but its image is 10x8"):
            semantic()({"file_name": image_file, "sem_seg_file_name": str(path)})

    def test_a_label_map_with_channels(self, image_file):
        with pytest.raises(ValueError, match="3 channels"):
            semantic()({"file_name": image_file, "sem_seg_file_name": image_file})

    def test_a_set_without_ignore_label_names_the_remedy(self, make_cfg):
        cfg = make_cfg("mask_former_panoptic", "tinyshapes_instance_train")
        with pytest.raises(ValueError, match=r"tinyshapes_instance_train.*mask_former_instance"):
            build_train_mapper(cfg)

    @pytest.mark.parametrize("content", [b"", b"no image", None])
    def test_a_broken_or_missing_image_is_named(self, tmp_path, content):
        path = tmp_path / "broken.jpg"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ImageDecodeError, match=r"broken\.jpg") as error:
            instance()(record_of(str(path)))
        assert error.value.file_name == str(path)


class TestEmpty:
    def test_images_without_objects_give_no_instances(self, image_file):
        crowd = record_of(image_file, square(), iscrowd=1)
        for record in (record_of(image_file), crowd):
            record["annotations"] = [{**a, "iscrowd": 1} for a in record["annotations"]]
            plain = instance()(record)["instances"]
            assert plain.gt_masks.shape == (0, 8, 10)
            assert plain.gt_masks.dtype == torch.float32
            assert plain.gt_classes.dtype == torch.int64
            jittered = jitter_instance()(record)["instances"]
            assert jittered.gt_masks.shape == (0, 8, 10)
            assert jittered.gt_masks.dtype == torch.uint8
            assert jittered.gt_boxes.tensor.shape == (0, 4)

    def test_an_image_without_segments(self, image_file, tmp_path):
        path = tmp_path / "ids.png"
        Image.new("RGB", (10, 8)).save(path)
        record = {"file_name": image_file, "pan_seg_file_name": str(path), "segments_info": []}
        instances = panoptic()(record)["instances"]
        assert instances.gt_masks.shape == (0, 8, 10)
        assert instances.gt_masks.dtype == torch.float32
        mapper = COCOPanopticNewBaselineDatasetMapper(True, tfm_gens=[], image_format="RGB")
        instances = mapper(record)["instances"]
        assert instances.gt_masks.shape == (0, 8, 10)
        assert len(instances.gt_boxes) == 0

    def test_a_label_map_of_nothing_but_ignore(self, image_file, tmp_path):
        path = tmp_path / "labels.png"
        Image.new("L", (10, 8), 255).save(path)
        instances = semantic()({"file_name": image_file, "sem_seg_file_name": str(path)})[
            "instances"
        ]
        assert instances.gt_masks.shape == (0, 8, 10)
        assert instances.gt_masks.dtype == torch.float32
        assert instances.gt_classes.dtype == torch.int64

    def test_records_without_ground_truth_get_no_instances(self, image_file):
        assert "instances" not in jitter_instance()({"file_name": image_file})
        mapper = COCOPanopticNewBaselineDatasetMapper(True, tfm_gens=[], image_format="RGB")
        assert "instances" not in mapper({"file_name": image_file})

    def test_polygons_of_fewer_than_three_points_have_no_pixels(self, image_file, make_cfg):
        from detectron2.data import transforms as T

        record = record_of(image_file, [[2.0, 2.0, 6.0, 6.0]], [*square(), [1.0, 1.0]], [])
        mapper = instance(augmentations=[T.CropTransform(0, 0, 8, 8)])
        assert mapper(record)["instances"].gt_masks.flatten(1).sum(1).tolist() == [0, 16, 0]
        jitter = COCOInstanceNewBaselineDatasetMapper(
            True, tfm_gens=[T.CropTransform(0, 0, 8, 8)], image_format="RGB"
        )
        assert len(jitter(record)["instances"]) == 1


class TestCodings:
    def test_sixteen_bit_label_maps_keep_their_values(self, image_file, tmp_path):
        path = tmp_path / "labels.png"
        labels = np.full((8, 10), 65535, np.uint16)
        labels[2:4] = 846
        Image.fromarray(labels).save(path)
        mapped = semantic(ignore_label=65535)(
            {"file_name": image_file, "sem_seg_file_name": str(path)}
        )
        assert mapped["instances"].gt_classes.tolist() == [846]
        assert mapped["sem_seg"].unique().tolist() == [846, 65535]

    def test_palette_label_maps_give_indices(self, image_file, tmp_path):
        path = tmp_path / "labels.png"
        picture = Image.new("P", (10, 8), 3)
        picture.putpalette([0, 0, 0] * 3 + [200, 10, 10] * 3)
        picture.save(path)
        mapped = semantic()({"file_name": image_file, "sem_seg_file_name": str(path)})
        assert mapped["sem_seg"].unique().tolist() == [3]

    def test_exif_orientation_is_applied(self, tmp_path):
        path = tmp_path / "turned.jpg"
        exif = Image.Exif()
        exif[274] = 6
        Image.new("RGB", (10, 8)).save(path, exif=exif)
        mapped = instance()({"file_name": str(path), "annotations": []})
        assert mapped["image"].shape == (3, 10, 8)
        assert (mapped["height"], mapped["width"]) == (10, 8)

    def test_polygons_rle_and_arrays_give_the_same_mask(self, image_file):
        mask = np.zeros((8, 10), np.uint8)
        mask[2:6, 2:6] = 1
        compressed = mask_api.encode(np.asfortranarray(mask))
        uncompressed = {"size": [8, 10], "counts": [18, 4, 4, 4, 4, 4, 4, 4, 34]}
        record = record_of(image_file, square(), compressed, uncompressed, mask)
        for mapper in (instance(), jitter_instance()):
            instances = mapper(record)["instances"]
            assert len(instances) == 4
            for found in instances.gt_masks:
                np.testing.assert_array_equal(found.numpy(), mask)
        assert instances.gt_boxes.tensor.tolist() == [[2, 2, 6, 6]] * 4

    def test_integer_polygons_are_not_truncated_by_resizing(self, image_file):
        from detectron2.data import transforms as T

        twice = [T.ResizeTransform(8, 10, 12, 15, 2)]
        integers = [[2, 2, 5, 2, 5, 5, 2, 5]]
        floats = [[float(v) for v in integers[0]]]
        found = [
            instance(augmentations=twice)(record_of(image_file, p)) for p in (integers, floats)
        ]
        assert torch.equal(found[0]["instances"].gt_masks, found[1]["instances"].gt_masks)

    @pytest.mark.parametrize("ignore", [255, 65535, -1])
    def test_padded_labels_are_the_ignored_one_whatever_their_size(
        self, image_file, tmp_path, ignore
    ):
        path = tmp_path / "labels.png"
        Image.new("L", (10, 8), 3).save(path)
        record = {"file_name": image_file, "sem_seg_file_name": str(path)}
        mapped = semantic(ignore_label=ignore, size_divisibility=12)(record)
        assert mapped["sem_seg"].dtype == torch.int64
        assert mapped["sem_seg"].unique().tolist() == sorted([3, ignore])
        assert mapped["instances"].gt_classes.tolist() == [3]

    @pytest.mark.parametrize("image_format", ["RGB", "BGR", "L"])
    def test_flips_work_in_every_channel_order(self, tmp_path, image_format):
        from detectron2.data import transforms as T

        pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "image.png")
        record = {"file_name": str(tmp_path / "image.png"), "annotations": []}
        plain, flipped = (
            instance(augmentations=a, image_format=image_format)(record)["image"]
            for a in ([], [T.HFlipTransform(10)])
        )
        assert torch.equal(flipped, plain.flip(2))


class TestOutside:
    @pytest.fixture(autouse=True)
    def forget(self):
        annotations_module._reported.clear()

    def test_an_annotation_outside_its_image_is_dropped_with_one_warning(self, image_file, caplog):
        record = record_of(image_file, square(), square(50.0, 2.0, 60.0, 6.0), id=41)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert len(instance()(record)["instances"]) == 1
                assert len(jitter_instance()(record)["instances"]) == 1
        assert len(caplog.records) == 1
        assert "image.png, annotation 41 was dropped" in caplog.text

    def test_an_annotation_that_sticks_out_is_clipped_with_one_warning(self, image_file, caplog):
        record = record_of(image_file, square(-20.0, 2.0, 4.0, 6.0))
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                masks = instance()(record)["instances"].gt_masks
        assert masks[0].sum() == 4 * 4
        assert [r.message for r in caplog.records] == [
            f"{image_file}, annotation #0 was clipped: it reaches outside its image."
        ]

    def test_a_rounding_over_the_border_is_no_news(self, image_file, caplog):
        with caplog.at_level(logging.WARNING):
            instance()(record_of(image_file, square(0.0, 0.0, 10.4, 8.0)))
        assert not caplog.records


def test_crowds_are_left_out_everywhere(make_cfg):
    dataset = "tinyshapes_panoptic_train_with_sem_seg"
    for name in ("mask_former_panoptic", "coco_panoptic_lsj"):
        mapper = build_train_mapper(make_cfg(name, dataset))
        crowds = 0
        for record in DatasetCatalog.get(dataset):
            keep = [s for s in record["segments_info"] if not s["iscrowd"]]
            crowds += len(record["segments_info"]) - len(keep)
            assert len(mapper(record)["instances"]) == len(keep)
        assert crowds > 0
