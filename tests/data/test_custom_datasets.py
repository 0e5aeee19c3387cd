"""DATASETS.CUSTOM: each format read, mixed, and its mistakes explained."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from mask2former.data.cvat import encode_mask
from mask2former.data.datasets.custom import CustomDatasetError, register_custom_datasets
from mask2former.data.errors import DataError
from mask2former.data.mixing import MixedSetsSampler
from mask2former.engine.errors import ConfigError
from mask2former.engine.setup import load_config


@pytest.fixture
def register(request):
    """Registers one entry under the test's name and gives its records and metadata."""
    name = f"custom_{abs(hash(request.node.nodeid))}"

    def make(**entry):
        node = {"CUSTOM": {name: entry}, "TRAIN": (name,), "TEST": ()}
        register_custom_datasets(CfgNode({"DATASETS": node}))
        return DatasetCatalog.get(name), MetadataCatalog.get(name)

    yield make
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def write_image(path, width=20, height=10, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (width, height)).save(path)


@pytest.fixture
def coco(tmp_path):
    write_image(tmp_path / "images" / "a.jpg")
    square = {"segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]], "bbox": [1, 1, 4, 4], "area": 16}
    annotations = [
        {"id": i, "image_id": 1, "category_id": c, "iscrowd": 0, **square}
        for i, c in enumerate((30, 10), start=1)
    ]
    file = tmp_path / "train.json"
    file.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.jpg", "width": 20, "height": 10}],
                "categories": [{"id": 30, "name": "post"}, {"id": 10, "name": "rail"}],
                "annotations": annotations,
            }
        )
    )
    return {
        "FORMAT": "coco_instance",
        "IMAGES": str(tmp_path / "images"),
        "ANNOTATIONS": str(file),
    }


def test_coco_classes_come_from_the_file_by_rising_id(register, coco):
    records, meta = register(**coco)
    assert meta.thing_classes == ["rail", "post"]
    assert [a["category_id"] for a in records[0]["annotations"]] == [1, 0]
    assert meta.json_file == coco["ANNOTATIONS"]


def test_coco_classes_can_be_chosen_by_name(register, coco):
    records, meta = register(**coco, CLASSES=["post"])
    assert meta.thing_classes == ["post"]
    assert [a["category_id"] for a in records[0]["annotations"]] == [0]
    assert meta.get("json_file") is None  # the file would count the class left out as missed


def test_a_class_that_the_file_lacks_is_named(register, coco):
    with pytest.raises(CustomDatasetError, match=r"CLASSES lists pots, but .* has rail, post"):
        register(**coco, CLASSES=["pots"])


def test_panoptic_files_of_any_image_type(register, tmp_path):
    write_image(tmp_path / "images" / "a.png")
    write_image(tmp_path / "train" / "a.png")
    segments = [{"id": 1, "category_id": 7, "iscrowd": 0, "area": 4, "bbox": [0, 0, 2, 2]}]
    (tmp_path / "train.json").write_text(
        json.dumps(
            {
                "images": [{"id": "x", "file_name": "a.png", "width": 20, "height": 10}],
                "categories": [
                    {"id": 3, "name": "sky", "isthing": 0},
                    {"id": 7, "name": "car", "isthing": 1},
                ],
                "annotations": [{"image_id": "x", "file_name": "a.png", "segments_info": segments}],
            }
        )
    )
    records, meta = register(
        FORMAT="coco_panoptic",
        IMAGES=str(tmp_path / "images"),
        ANNOTATIONS=str(tmp_path / "train.json"),
    )
    assert records[0]["file_name"].endswith("images/a.png")
    assert records[0]["pan_seg_file_name"].endswith("train/a.png")
    assert records[0]["segments_info"][0]["category_id"] == 1
    assert meta.stuff_classes == ["sky", "car"]
    assert meta.thing_classes == ["car"]


def test_semantic_folders_match_by_relative_name(register, tmp_path):
    write_image(tmp_path / "images" / "one" / "a.jpeg")
    write_image(tmp_path / "labels" / "one" / "a.png", mode="P")
    write_image(tmp_path / "images" / "lonely.jpg")
    records, meta = register(
        FORMAT="semantic",
        IMAGES=str(tmp_path / "images"),
        ANNOTATIONS=str(tmp_path / "labels"),
        CLASSES=["wall", "floor"],
    )
    assert [r["sem_seg_file_name"] for r in records] == [str(tmp_path / "labels" / "one" / "a.png")]
    assert meta.stuff_classes == ["wall", "floor"]
    assert meta.ignore_label == 255


def test_colour_coded_labels_become_ids(register, tmp_path):
    write_image(tmp_path / "images" / "a.jpg", 3, 1)
    (tmp_path / "labels").mkdir()
    colors = np.array([[[255, 0, 0], [0, 0, 255], [9, 9, 9]]], dtype=np.uint8)
    Image.fromarray(colors).save(tmp_path / "labels" / "a.png")
    entry = {
        "FORMAT": "semantic",
        "IMAGES": str(tmp_path / "images"),
        "ANNOTATIONS": str(tmp_path / "labels"),
        "CLASSES": ["blue", "red"],
    }
    records, _ = register(**entry, COLORS=[[0, 0, 255], [255, 0, 0]])
    ids = np.asarray(Image.open(records[0]["sem_seg_file_name"]))
    assert ids.tolist() == [[1, 0, 255]]
    with pytest.raises(CustomDatasetError, match="COLORS is missing"):
        register(**entry)


def test_yolo_outlines_scale_with_the_image_as_it_is_shown(register, tmp_path, caplog):
    image = tmp_path / "images" / "train" / "a.jpg"
    image.parent.mkdir(parents=True)
    exif = Image.Exif()
    exif[274] = 6  # shown turned: 10 wide, 20 high
    Image.new("RGB", (20, 10)).save(image, exif=exif)
    labels = tmp_path / "labels" / "train" / "a.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text("1 0 0 0.5 0 0.5 0.5 0 0.5\n0 0.5 0.5 0.2 0.2\n")
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump({"train": "images/train", "names": {0: "car", 1: "bus"}}))
    records, meta = register(FORMAT="yolo", ANNOTATIONS=str(data))
    (record,) = records
    assert (record["width"], record["height"]) == (10, 20)
    (annotation,) = record["annotations"]
    assert annotation["category_id"] == 1
    assert annotation["segmentation"] == [[0, 0, 5, 0, 5, 10, 0, 10]]
    assert meta.thing_classes == ["car", "bus"]
    assert "1 objects have only a box" in caplog.text


def test_broken_yolo_lines_are_named(register, tmp_path):
    write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.1 0.2 0.3\n")
    (tmp_path / "data.yaml").write_text("names: [car]\ntrain: images\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 1: an outline needs"):
        register(FORMAT="yolo", ANNOTATIONS=str(tmp_path / "data.yaml"))


@pytest.fixture
def cvat_project(tmp_path):
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:5, 3:9] = True
    attributes = " ".join(f'{k}="{v}"' for k, v in encode_mask(mask).attributes.items())
    images = [
        ("Train", f'<mask label="post" source="manual" occluded="0" {attributes} z_order="0"/>'),
        (
            "Train",
            '<polygon label="rail" points="1,1;5,1;5,5"/><points label="rail" points="1,1"/>',
        ),
        ("Val", '<box label="rail" xtl="1" ytl="1" xbr="4" ybr="4"/>'),
    ]
    body = "".join(
        f'<image id="0" name="p{i}.jpg" subset="{subset}" task_id="{i}" width="20" height="10">'
        f"{shapes}</image>"
        for i, (subset, shapes) in enumerate(images)
    )
    labels = "".join(f"<label><name>{n}</name></label>" for n in ("rail", "post"))
    (tmp_path / "annotations.xml").write_text(
        "<annotations><version>1.1</version>"
        f"<meta><project><labels>{labels}</labels></project></meta>{body}</annotations>"
    )
    for i, (subset, _) in enumerate(images):
        write_image(tmp_path / "images" / subset / f"p{i}.jpg")
    return {"FORMAT": "cvat", "ANNOTATIONS": str(tmp_path)}, mask


def test_a_cvat_project_export_is_read_as_it_is(register, cvat_project, caplog):
    import pycocotools.mask as mask_util

    entry, mask = cvat_project
    records, meta = register(**entry, SPLIT="Train")
    assert meta.thing_classes == ["rail", "post"]
    assert len({r["image_id"] for r in records}) == 2
    coded = records[0]["annotations"][0]
    assert coded["category_id"] == 1
    np.testing.assert_array_equal(mask_util.decode(coded["segmentation"]), mask)
    assert records[1]["annotations"][0]["segmentation"] == [[1, 1, 5, 1, 5, 5]]
    assert "1 x points" in caplog.text


def test_all_subsets_without_a_split(register, cvat_project):
    records, _ = register(**cvat_project[0])
    assert [len(r["annotations"]) for r in records] == [1, 1, 0]


def test_a_misspelt_key_and_format_get_a_suggestion(register, coco):
    with pytest.raises(CustomDatasetError, match=r"no key ANNOTATION .did you mean ANNOTATIONS"):
        register(FORMAT="coco_instance", ANNOTATION="x")
    with pytest.raises(CustomDatasetError, match="FORMAT voc is unknown; known are coco_instance"):
        register(FORMAT="voc")


def test_any_key_of_an_entry_can_be_set_on_the_command_line(coco, tmp_path):
    config = tmp_path / "c.yaml"
    sets = {"CUSTOM": {"cmdline_set": coco}, "TRAIN": '("cmdline_set",)', "TEST": "()"}
    config.write_text(yaml.safe_dump({"DATASETS": sets}))
    cfg = load_config(str(config), ["DATASETS.CUSTOM.cmdline_set.CLASSES", "('post',)"])
    assert MetadataCatalog.get("cmdline_set").thing_classes == ["post"]
    again = CfgNode.load_cfg(cfg.dump())  # what a run saves can be read again
    assert list(again.DATASETS.CUSTOM.cmdline_set.CLASSES) == ["post"]
    with pytest.raises(ConfigError, match="no such file"):
        load_config(str(config), ["DATASETS.CUSTOM.cmdline_set.ANNOTATIONS", "gone.json"])


def test_a_set_without_a_split_is_divided_by_name(register, tmp_path):
    for i in range(40):
        write_image(tmp_path / "images" / f"{i}.jpg")
        write_image(tmp_path / "labels" / f"{i}.png", mode="L")
    entry = {
        "FORMAT": "semantic",
        "IMAGES": str(tmp_path / "images"),
        "ANNOTATIONS": str(tmp_path / "labels"),
        "CLASSES": ["wall"],
        "VAL_SHARE": 0.25,
    }
    train, val = ({r["file_name"] for r in register(**entry, PART=p)[0]} for p in ("train", "val"))
    assert not train & val
    assert len(train | val) == 40
    assert 4 <= len(val) <= 16
    write_image(tmp_path / "images" / "new.jpg")
    write_image(tmp_path / "labels" / "new.png", mode="L")
    assert val <= {r["file_name"] for r in register(**entry, PART="val")[0]}


def test_evaluation_of_a_part_does_not_use_the_whole_file(register, coco):
    _, meta = register(**coco, PART="train", VAL_SHARE=0.0)
    assert meta.get("json_file") is None


def test_mixed_sets_are_drawn_by_weight_and_evenly_within():
    stream = iter(MixedSetsSampler([5, 50], [3.0, 1.0], seed=1))
    drawn = np.array([next(stream) for _ in range(4000)])
    assert abs((drawn < 5).mean() - 0.75) < 0.03
    counts = np.bincount(drawn, minlength=55)
    assert np.ptp(counts[:5]) <= 1
    assert np.ptp(counts[5:]) <= 1


@pytest.mark.parametrize("weights, message", [([1], "1 numbers for 2"), ([1, 0], "positive")])
def test_impossible_weights_are_refused(weights, message):
    with pytest.raises(DataError, match=message):  # scripts show it as one line
        MixedSetsSampler([5, 5], weights, seed=0)


def test_inference_needs_only_the_class_names():
    entry = {"FORMAT": "cvat", "ANNOTATIONS": "gone", "CLASSES": ["rail", "post"]}
    node = CfgNode(
        {"DATASETS": {"CUSTOM": {"gone_set": entry}, "TRAIN": ("gone_set",), "TEST": ()}}
    )
    register_custom_datasets(node, need_files=False)
    assert MetadataCatalog.get("gone_set").thing_classes == ["rail", "post"]
    with pytest.raises(CustomDatasetError, match="gone: no such file"):
        register_custom_datasets(node)
