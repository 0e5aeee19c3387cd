"""Label maps of COCO, COCO-Stuff-10K and the full ADE20K out of their downloads."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from layouts.ade20k import write_ade20k_full
from layouts.coco import write_coco
from layouts.coco_stuff import write_coco_stuff_10k
from PIL import Image
from prepare_scripts import run_script

from detectron2.data.datasets import load_sem_seg
from mask2former.data.catalogs import load_table


def prepare(name: str, root: Path, *arguments: str) -> int:
    return run_script(name, "--root", str(root), "--quiet", "--workers", "1", *arguments)


def test_stuff_maps_of_coco_have_one_class_for_all_things(tmp_path):
    write_coco(tmp_path)
    assert prepare("prepare_panoptic_fpn", tmp_path) == 0
    coco = tmp_path / "coco"
    stuff = [row["id"] for row in load_table("coco_panoptic") if not row["isthing"]]
    for split in ("train2017", "val2017"):
        content = json.loads((coco / "annotations" / f"panoptic_{split}.json").read_text())
        assert len(content["annotations"]) == 2
        for annotation in content["annotations"]:
            made = Image.open(coco / f"panoptic_stuff_{split}" / annotation["file_name"])
            rgb = np.asarray(Image.open(coco / f"panoptic_{split}" / annotation["file_name"]))
            ids = rgb.astype(int) @ [1, 256, 65536]
            expected = np.full(ids.shape, 255)
            for s in annotation["segments_info"]:
                category = s["category_id"]
                expected[ids == s["id"]] = 1 + stuff.index(category) if category in stuff else 0
            assert np.array_equal(np.asarray(made), expected)
            assert {0, 255} < set(np.unique(expected))


def test_detectron2s_hundred_images_are_made_where_their_list_lies(tmp_path):
    write_coco(tmp_path)
    folder = tmp_path / "coco" / "annotations"
    content = json.loads((folder / "panoptic_val2017.json").read_text())
    content["annotations"] = content["annotations"][:1]
    (folder / "panoptic_val2017_100.json").write_text(json.dumps(content))
    assert prepare("prepare_panoptic_fpn", tmp_path, "--splits", "val2017") == 0
    name = content["annotations"][0]["file_name"]
    for made in ("panoptic_val2017_100", "panoptic_stuff_val2017_100"):
        assert [p.name for p in (tmp_path / "coco" / made).iterdir()] == [name]


@pytest.mark.parametrize("split", ["train", "test"])
def test_coco_stuff_labels_are_positions_in_the_list_of_171(tmp_path, split):
    write_coco_stuff_10k(tmp_path)
    assert prepare("prepare_coco_stuff_10k", tmp_path) == 0
    folder = tmp_path / "coco" / "coco_stuff_10k"
    row_of = {row["id"]: i for i, row in enumerate(load_table("coco_stuff_10k"))} | {0: 255}
    records = load_sem_seg(
        str(folder / "annotations_detectron2" / split), str(folder / "images_detectron2" / split)
    )
    assert len(records) == 2
    for record in records:
        made = np.asarray(Image.open(record["sem_seg_file_name"]))
        stem = Path(record["file_name"]).stem
        source = scipy.io.loadmat(folder / "annotations" / f"{stem}.mat")["S"]
        assert made.dtype == np.uint8
        assert np.array_equal(made, np.vectorize(row_of.get)(source))
        original = folder / "images" / f"{stem}.jpg"
        assert Path(record["file_name"]).read_bytes() == original.read_bytes()


def test_a_broken_matlab_file_is_named(tmp_path, capsys):
    write_coco_stuff_10k(tmp_path)
    file = sorted((tmp_path / "coco" / "coco_stuff_10k" / "annotations").iterdir())[0]
    file.write_bytes(file.read_bytes()[:200])
    assert prepare("prepare_coco_stuff_10k", tmp_path) == 2
    assert f"{file.name} has no label map S" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["training", "validation"])
def test_full_ade20k_maps_are_16_bit_train_ids(tmp_path, split):
    write_ade20k_full(tmp_path)
    assert prepare("prepare_ade20k_full_sem_seg", tmp_path) == 0
    folder = tmp_path / "ADE20K_2021_17_01"
    train_id = {row["id"]: row["trainId"] for row in load_table("ade20k_full")}
    records = load_sem_seg(
        str(folder / "annotations_detectron2" / split),
        str(folder / "images_detectron2" / split),
        gt_ext="tif",
    )
    assert len(records) == 2
    for record in records:
        made = np.asarray(Image.open(record["sem_seg_file_name"]))
        assert made.dtype == np.uint16
        stem = Path(record["file_name"]).stem
        (source,) = (folder / "images").rglob(f"{stem}_seg.png")
        coded = np.asarray(Image.open(source)).astype(int)
        classes = coded[..., 0] // 10 * 256 + coded[..., 1]
        expected = np.vectorize(lambda value: train_id.get(value, 65535))(classes)
        assert np.array_equal(made, expected)
        assert made.max() == 65535 and made.min() < 847


def test_an_index_that_would_run_code_is_refused(tmp_path, capsys):
    folder = tmp_path / "ADE20K_2021_17_01"
    folder.mkdir()
    (folder / "index_ade20k.pkl").write_bytes(pickle.dumps({"filename": print}))
    assert prepare("prepare_ade20k_full_sem_seg", tmp_path) == 2
    assert "is no index of ADE20K (it contains builtins.print)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["prepare_coco_stuff_10k", "prepare_ade20k_full_sem_seg"])
def test_a_second_run_writes_nothing_and_lost_files_come_back(tmp_path, name, capsys):
    write = write_coco_stuff_10k if "coco" in name else write_ade20k_full
    write(tmp_path)
    assert prepare(name, tmp_path) == 0
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*_detectron2/*/*")}
    lost = sorted(files)[0]
    lost.unlink()
    capsys.readouterr()
    assert prepare(name, tmp_path) == 0
    assert "1 label maps written, 1 were there" in capsys.readouterr().out
    assert lost.exists()
    kept = [p for p in files if p.stem != lost.stem]
    assert all(p.stat().st_mtime_ns == files[p] for p in kept)
