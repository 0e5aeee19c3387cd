"""The doctor recognises formats, finds planted problems, and its config is accepted."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mask2former.data.doctor import Severity, UnknownFormat, detect, survey

REPO = Path(__file__).parents[2]
SQUARE = [1, 1, 9, 1, 9, 9, 1, 9]


def picture(path: Path, seed: int, size=(32, 24), mode="RGB", **save) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path, **save)
    return path


def coco(root: Path, images: int = 3, split: str = "train", first: int = 0) -> dict:
    """A sound set of noise pictures with one square each; returns the file's contents."""
    content = {
        "images": [
            {"id": i, "file_name": f"{split}{i}.png", "width": 32, "height": 24}
            for i in range(images)
        ],
        "annotations": [
            {
                "id": i + 1,
                "image_id": i,
                "category_id": 1,
                "bbox": [1, 1, 8, 8],
                "area": 64,
                "segmentation": [SQUARE],
                "iscrowd": 0,
            }
            for i in range(images)
        ],
        "categories": [{"id": 1, "name": "square"}],
    }
    for i in range(images):
        picture(root / "images" / split / f"{split}{i}.png", first + i)
    write(root, content, split)
    return content


def write(root: Path, content: dict, split: str = "train") -> None:
    file = root / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def examine(root: Path, **options):
    return survey(detect(root, **options), progress=False)


def test_a_sound_set_has_only_remarks_about_its_size(tmp_path):
    coco(tmp_path)
    coco(tmp_path, split="val", first=100)
    candidate = detect(tmp_path)
    assert candidate.entries.keys() == {"train", "val"}
    assert candidate.entries["val"]["IMAGES"] == str(tmp_path / "images" / "val")
    found = survey(candidate, progress=False)
    assert {f.code for f in found.findings} == {"rare-class", "few-images"}


def plant_missing(root, content):
    (root / "images" / "train" / "train1.png").unlink()


def plant_corrupt(root, content):
    (root / "images" / "train" / "train1.png").write_bytes(b"\x89PNG broken")


def plant_size(root, content):
    content["images"][1]["width"] = 40


def plant_outside(root, content):
    content["annotations"][1]["bbox"] = [20, 1, 30, 8]


def plant_empty(root, content):
    content["annotations"][1]["segmentation"] = [[1, 1, 1, 1, 1, 1]]


def plant_box_only(root, content):
    content["annotations"][1]["segmentation"] = []


def plant_duplicate(root, content):
    content["annotations"].append({**content["annotations"][1], "id": 99})


def plant_deep(root, content):
    deep = np.full((24, 32), 40000, np.uint16)
    Image.fromarray(deep).save(root / "images" / "train" / "train1.png")


def plant_copy(root, content):
    folder = root / "images" / "train"
    shutil.copy(folder / "train0.png", folder / "train1.png")


def plant_rotation(root, content):
    exif = Image.Exif()
    exif[274] = 6
    picture(root / "images" / "train" / "train1.png", 1, exif=exif)


def plant_unused_class(root, content):
    content["categories"].append({"id": 2, "name": "never"})


@pytest.mark.parametrize(
    "plant, code, severity",
    [
        (plant_missing, "missing-image", Severity.ERROR),
        (plant_corrupt, "corrupt-image", Severity.ERROR),
        (plant_size, "image-size", Severity.ERROR),
        (plant_outside, "box-outside", Severity.WARNING),
        (plant_empty, "empty-mask", Severity.WARNING),
        (plant_box_only, "no-mask", Severity.ERROR),
        (plant_duplicate, "duplicate-annotation", Severity.WARNING),
        (plant_deep, "deep-image", Severity.WARNING),
        (plant_copy, "repeated-image", Severity.WARNING),
        (plant_rotation, "exif-rotation", Severity.ERROR),
        (plant_unused_class, "unused-class", Severity.WARNING),
    ],
)
def test_a_planted_problem_is_found_once_with_a_remedy(tmp_path, plant, code, severity):
    content = coco(tmp_path)
    plant(tmp_path, content)
    write(tmp_path, content)
    findings = examine(tmp_path).findings
    assert code in findings
    finding = findings[code]
    assert (finding.severity, finding.count) == (severity, 1)
    assert finding.remedy
    assert finding.examples


def test_pictures_in_train_and_val_are_leakage_even_when_saved_again(tmp_path):
    coco(tmp_path)
    coco(tmp_path, split="val", first=100)
    picture(tmp_path / "images" / "val" / "val1.png", 0)
    findings = examine(tmp_path).findings
    assert findings["leakage"].count == 1
    assert "train0.png" in findings["leakage"].examples[0]


def test_label_images_with_unknown_ids_and_sizes(tmp_path):
    for i in range(3):
        picture(tmp_path / "images" / f"{i}.jpg", i)
    (tmp_path / "masks").mkdir()
    for i, (size, value) in enumerate([((24, 32), 1), ((24, 32), 9), ((12, 16), 0)]):
        Image.fromarray(np.full(size, value, np.uint8)).save(tmp_path / "masks" / f"{i}.png")
    findings = examine(tmp_path, classes=["wall", "floor"]).findings
    assert findings["unknown-label"].examples == [f"{tmp_path}/masks/1.png: id 9, 768 pixels"]
    assert findings["label-size"].count == 1


def test_other_folders_are_explained(tmp_path):
    picture(tmp_path / "a.jpg", 0)
    with pytest.raises(UnknownFormat, match=r"no annotations recognised beside 1 images.*YOLO"):
        detect(tmp_path)
    (tmp_path / "x.json").write_text('{"shapes": []}')
    with pytest.raises(UnknownFormat, match="no COCO file"):
        detect(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError):
        detect(tmp_path / "gone")


def tool():
    spec = importlib.util.spec_from_file_location("doctor", REPO / "tools" / "dataset_doctor.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_strict_fails_on_errors_only(tmp_path, capsys):
    content = coco(tmp_path)
    assert tool().main([str(tmp_path), "--strict"]) == 0
    plant_missing(tmp_path, content)
    assert tool().main([str(tmp_path), "--strict"]) == 1
    assert "ERROR   annotated images that are not there (1)" in capsys.readouterr().out
    assert tool().main([str(tmp_path / "gone")]) == 2


def test_the_written_config_is_complete_and_loads(tmp_path):
    from mask2former.engine.checks import check_config
    from mask2former.engine.setup import load_config

    coco(tmp_path / "fence", images=12)
    arguments = [str(tmp_path / "fence"), "--output", str(tmp_path / "out"), "--weights", "none"]
    assert tool().main(arguments) == 0
    assert (tmp_path / "out" / "samples.jpg").stat().st_size > 1000
    cfg = load_config(str(tmp_path / "out" / "config.yaml"), [])
    check_config(cfg, eval_only=False, resume=False)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 1
    assert cfg.DATASETS.TRAIN == ("fence_train",)
    assert cfg.DATASETS.TEST == ("fence_val",)
    assert abs(cfg.SOLVER.BASE_LR - 2.5e-5) < 1e-9
    assert yaml.safe_load((tmp_path / "out" / "report.json").read_text())["classes"] == ["square"]


def test_another_base_gives_its_queries_and_its_rate_in_proportion(tmp_path):
    coco(tmp_path / "set")
    base = REPO / "tests/fixtures/engine/tiny.yaml"  # 16 queries, 1e-4 for 2 images
    flags = ["--output", str(tmp_path / "out"), "--base", str(base), "--batch-size", "6"]
    assert tool().main([str(tmp_path / "set"), *flags, "--weights", "none"]) == 0
    text = (tmp_path / "out/config.yaml").read_text()
    config = yaml.safe_load(text)
    assert config["MODEL"]["MASK_FORMER"]["NUM_OBJECT_QUERIES"] == 16
    assert config["SOLVER"]["BASE_LR"] == pytest.approx(3e-4)
    assert "&id" not in text  # people edit it


def test_more_objects_than_the_base_has_queries_get_more(tmp_path):
    content = coco(tmp_path / "set")
    first = content["annotations"][0]
    content["annotations"] += [{**first, "id": 100 + i} for i in range(12)]
    write(tmp_path / "set", content)
    base = REPO / "tests/fixtures/engine/tiny.yaml"
    flags = ["--output", str(tmp_path / "out"), "--base", str(base), "--weights", "none"]
    tool().main([str(tmp_path / "set"), *flags])
    config = yaml.safe_load((tmp_path / "out/config.yaml").read_text())
    assert config["MODEL"]["MASK_FORMER"]["NUM_OBJECT_QUERIES"] == 50


@pytest.mark.parametrize("flag", ["--base", "--weights"])
def test_a_file_that_is_not_there_is_one_line(tmp_path, capsys, flag):
    coco(tmp_path)
    assert tool().main([str(tmp_path), flag, "gone.yaml"]) == 2
    assert f"{flag} gone.yaml: no such file" in capsys.readouterr().err


def test_only_formats_that_can_be_divided_are_promised_a_division(tmp_path):
    coco(tmp_path)
    candidate = detect(tmp_path)
    whole = survey(candidate, progress=False)
    assert "PART" in whole.findings["no-validation"].remedy
    file = tmp_path / "annotations" / "panoptic_train.json"
    content = {
        "images": [{"id": 0, "file_name": "train0.png", "width": 32, "height": 24}],
        "annotations": [{"image_id": 0, "file_name": "0.png", "segments_info": [
            {"id": 1, "category_id": 1, "area": 768, "bbox": [0, 0, 32, 24], "iscrowd": 0}
        ]}],
        "categories": [{"id": 1, "name": "square", "isthing": 1}],
    }  # fmt: skip
    file.write_text(json.dumps(content))
    masks = tmp_path / "annotations" / "panoptic_train"
    masks.mkdir()
    Image.new("RGB", (32, 24), (1, 0, 0)).save(masks / "0.png")
    found = survey(detect(file), progress=False)
    assert "training images" in found.findings["no-validation"].remedy


def test_objects_without_a_mask_do_not_stop_the_samples(tmp_path):
    content = coco(tmp_path / "set")
    del content["annotations"][0]["segmentation"]
    write(tmp_path / "set", content)
    doctor = tool()
    assert doctor.main([str(tmp_path / "set"), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/samples.jpg").exists()


def test_every_mistake_of_a_coco_file_is_found_at_once(tmp_path):
    content = coco(tmp_path, images=4)
    first, second, third, fourth = content["annotations"]
    first["category_id"] = 9
    second["id"] = 1
    third["segmentation"] = {"size": [24, 32], "counts": "~~~"}
    del fourth["image_id"], content["images"][0]["height"]
    write(tmp_path, content)
    findings = examine(tmp_path).findings
    codes = ("unknown-category", "repeated-id", "broken-mask", "missing-key")
    assert [findings[code].count for code in codes] == [1, 1, 1, 2]
    assert all(findings[code].severity == Severity.ERROR for code in codes)
    assert "annotation 3 of image 2" in findings["broken-mask"].examples[0]
