"""DATASETS.CUSTOM: files with mistakes are explained, and what is sound in them is used."""

import json
import logging

import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from mask2former.data.cvat import CvatError
from mask2former.data.datasets.custom import CustomDatasetError, register_custom_datasets
from mask2former.data.datasets.custom.coco_file import first_problem

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


@pytest.fixture
def read(request):
    """Registers one entry and gives its records."""
    name = f"mistaken_{abs(hash(request.node.nodeid))}"

    def make(**entry):
        node = {"CUSTOM": {name: entry}, "TRAIN": (name,), "TEST": ()}
        register_custom_datasets(CfgNode({"DATASETS": node}))
        return DatasetCatalog.get(name)

    yield make
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def write_image(path, width=20, height=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)


@pytest.fixture
def coco(tmp_path, read):
    """``coco(change)``: records of a file with one annotation that ``change`` has changed."""
    write_image(tmp_path / "images/a.jpg")

    def make(change):
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "width": 20, "height": 10}],
            "categories": [{"id": 1, "name": "post"}],
            "annotations": [
                {"id": 7, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "iscrowd": 0}
            ],
        }
        content["annotations"][0]["segmentation"] = [SQUARE]
        change(content, content["annotations"][0])
        (tmp_path / "train.json").write_text(json.dumps(content))
        images, file = str(tmp_path / "images"), str(tmp_path / "train.json")
        return read(FORMAT="coco_instance", IMAGES=images, ANNOTATIONS=file)

    return make


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c, a: a.update(category_id=9), "1 annotations have a category_id .* 7: 9"),
        (lambda c, a: a.update(category_id="1"), "annotation 7: '1'"),
        (lambda c, a: c["categories"][0].pop("name"), 'categories has an entry without "name"'),
        (lambda c, a: c["images"][0].pop("width"), 'images has an entry without "width"'),
        (lambda c, a: c["annotations"].append(a), "annotations has the id 7 2 times"),
        (lambda c, a: a.update(segmentation=[[float("nan"), *SQUARE[1:]]]), "7 .* not finite"),
        (lambda c, a: a.update(segmentation=[[1e9, *SQUARE[1:]]]), "annotation 7 .* far outside"),
        (lambda c, a: a.update(segmentation=SQUARE), "no list of polygons"),
        (
            lambda c, a: a.update(segmentation={"size": [4, 4], "counts": [0, 16]}),
            r"size \[4, 4\], its image \(10, 20\)",
        ),
        (
            lambda c, a: a.update(segmentation={"size": [10, 20], "counts": [0, 16]}),
            "add up to 16, its image has 200",
        ),
        (
            lambda c, a: a.update(segmentation={"size": [10, 20], "counts": [0, 201, -1]}),
            "negative",
        ),
        (lambda c, a: a.update(segmentation={"size": [10, 20], "counts": "Qn"}), "cut off"),
        (lambda c, a: a.update(segmentation={"size": [10, 20], "counts": "~~"}), "cut off or"),
        (lambda c, a: a.update(segmentation={"size": [10, 20], "counts": "55"}), "add up to 10"),
        (lambda c, a: a.update(segmentation={"size": [10, 20]}), "neither a list"),
        (lambda c, a: a.update(segmentation=[["1", *SQUARE[1:]]]), "no numbers"),
    ],
)
def test_a_wrong_coco_file_is_refused_with_the_place(coco, change, message):
    with pytest.raises(CustomDatasetError, match=rf"ANNOTATIONS .*train\.json: .*{message}"):
        coco(change)


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 90)), elements=st.integers(0, 1))
)
def test_compressed_run_lengths_are_read_as_pycocotools_does(mask):
    coded = mask_util.encode(np.asfortranarray(mask))
    annotation = {"id": 1, "image_id": 1, "category_id": 1}
    annotation["segmentation"] = {"size": coded["size"], "counts": coded["counts"].decode()}
    image = {"id": 1, "file_name": "a", "height": mask.shape[0], "width": mask.shape[1]}
    content = {"images": [image], "categories": [{"id": 1, "name": "p"}]}
    assert first_problem({**content, "annotations": [annotation]}) is None
    image["width"] += 1
    annotation["segmentation"]["size"][1] += 1
    assert "add up to" in first_problem({**content, "annotations": [annotation]})


def test_a_missing_box_is_that_of_the_mask(coco):
    records = coco(lambda content, annotation: annotation.pop("bbox"))
    assert records[0]["annotations"][0]["bbox"] == [1, 1, 4, 4]


def test_annotations_of_images_that_are_not_listed_are_counted(coco, caplog):
    with caplog.at_level(logging.WARNING):
        records = coco(lambda content, annotation: annotation.update(image_id=5))
    assert "1 annotations of images that" in caplog.text
    assert records[0]["annotations"] == []


@pytest.fixture
def yolo(tmp_path, read):
    write_image(tmp_path / "train/images/a.jpg")
    labels = tmp_path / "train/labels"
    labels.mkdir()
    (labels / "a.txt").write_text("1 0.1 0.1 0.5 0.1 0.5 0.5\n")
    file = tmp_path / "data.yaml"
    file.write_text("train: ../train/images\nnames: [rail, post]\n")
    return lambda: read(FORMAT="yolo", ANNOTATIONS=str(file))


def test_the_paths_that_roboflow_writes_are_found(yolo):
    assert [len(r["annotations"]) for r in yolo()] == [1]


def test_a_class_that_data_yaml_does_not_name_is_refused(yolo, tmp_path):
    (tmp_path / "train/labels/a.txt").write_text("7 0.1 0.1 0.5 0.1 0.5 0.5\n")
    with pytest.raises(CustomDatasetError, match=r"a\.txt, line 1: class 7, .* names only 0, 1"):
        yolo()


def test_a_broken_picture_costs_only_its_own_labels(yolo, tmp_path, caplog):
    for folder, suffix in (("images", "jpg"), ("labels", "txt")):
        file = tmp_path / f"train/{folder}/a.{suffix}"
        (tmp_path / f"train/{folder}/b.{suffix}").write_bytes(file.read_bytes())
    (tmp_path / "train/images/a.jpg").write_bytes(b"no picture")
    assert [len(r["annotations"]) for r in yolo()] == [0, 1]
    assert "a.jpg cannot be read" in caplog.text


def test_other_colours_give_other_ids(tmp_path, read):
    write_image(tmp_path / "images/a.png")
    picture = np.full((10, 20, 3), (200, 0, 0), dtype=np.uint8)
    (tmp_path / "labels").mkdir()
    Image.fromarray(picture).save(tmp_path / "labels/a.png")
    found = []
    for colors in ([[200, 0, 0], [0, 0, 0]], [[0, 0, 0], [200, 0, 0]]):
        records = read(
            FORMAT="semantic", IMAGES=str(tmp_path / "images"), COLORS=colors,
            ANNOTATIONS=str(tmp_path / "labels"), CLASSES=["one", "two"],
        )  # fmt: skip
        found.append(np.unique(np.asarray(Image.open(records[0]["sem_seg_file_name"]))).tolist())
    assert found == [[0], [1]]


def test_a_subset_that_the_project_lacks_is_named_with_those_it_has(tmp_path, read):
    write_image(tmp_path / "images/a.png")
    (tmp_path / "annotations.xml").write_text(
        '<annotations><image id="0" name="a.png" subset="Train" width="20" height="10">'
        '<polygon label="p" points="1,1;5,1;5,5"/></image></annotations>'
    )
    with pytest.raises(CustomDatasetError, match=r"SPLIT vall: .* only the subsets Train"):
        read(FORMAT="cvat", ANNOTATIONS=str(tmp_path), SPLIT="vall")


def test_a_broken_cvat_outline_is_named(tmp_path, read):
    write_image(tmp_path / "images/a.png")
    (tmp_path / "annotations.xml").write_text(
        '<annotations><image id="0" name="a.png" width="20" height="10">'
        '<polygon label="p" points="1,1;nan,1;5,5"/></image></annotations>'
    )
    with pytest.raises(CvatError, match=r"image a.png: a polygon with label p: .*finite"):
        read(FORMAT="cvat", ANNOTATIONS=str(tmp_path))


def test_a_cvat_image_without_size_and_a_shape_without_label_are_left_out(tmp_path, read, caplog):
    for name in "ab":
        write_image(tmp_path / f"images/{name}.png")
    polygon = '<polygon label="p" points="1,1;5,1;5,5"/>'
    (tmp_path / "annotations.xml").write_text(
        f'<annotations><image id="0" name="a.png" width="20">{polygon}</image>'
        f'<image id="1" name="b.png" width="20" height="10">{polygon}<polygon points=""/></image>'
        "</annotations>"
    )
    (record,) = read(FORMAT="cvat", ANNOTATIONS=str(tmp_path))
    assert record["image_id"] == 1
    assert len(record["annotations"]) == 1
    assert "image a.png" in caplog.text
    assert "no usable height" in caplog.text
    assert "1 x no label" in caplog.text


@pytest.mark.parametrize("depth, warned", [(np.uint8, False), (np.uint16, True)])
def test_deep_grey_images_are_named_once(tmp_path, read, caplog, depth, warned):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((10, 20), 200, depth)).save(tmp_path / "images/a.png")
    (tmp_path / "annotations.xml").write_text(
        '<annotations><image id="0" name="a.png" width="20" height="10">'
        '<polygon label="p" points="1,1;5,1;5,5"/></image></annotations>'
    )
    assert len(read(FORMAT="cvat", ANNOTATIONS=str(tmp_path))) == 1
    assert caplog.text.count("cut off to white; convert such images to 8 bits") == warned
