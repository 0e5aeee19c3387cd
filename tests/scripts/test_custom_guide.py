"""docs/custom-dataset.md: its files exist, its YAML is valid, its example task goes its way."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from mask2former.data.cvat import iterate_images
from mask2former.data.datasets.custom import FORMATS, Spec

REPO = Path(__file__).parents[2]
GUIDE = REPO / "docs/custom-dataset.md"
TEXT = GUIDE.read_text()


def script(name):
    spec = importlib.util.spec_from_file_location(Path(name).stem, REPO / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_the_guide_names_exists():
    links = [p for p in re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT)]
    assert not [p for p in links if not (GUIDE.parent / p).exists()]
    scripts = re.findall(r"python ((?:tools|predict|demo)/[\w./-]+\.py|train_net\.py)", TEXT)
    configs = re.findall(r"(?:\.\./)?(configs/[\w./-]+\.yaml)", TEXT)
    assert len(scripts) >= 9
    assert not [p for p in [*scripts, *configs] if not (REPO / p).exists()]


@pytest.mark.parametrize("name", ["predict/run_annotation_pipeline.py", "tools/dataset_doctor.py"])
def test_the_flags_in_the_guide_are_those_of_the_scripts(name):
    known = set(script(name).get_parser()._option_string_actions)
    for command in re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL):
        for line in command.replace("\\\n", " ").splitlines():
            if Path(name).name in line:
                flags = re.findall(r"(?<=\s)--[\w-]+", line.split("--opts")[0])
                assert set(flags) <= known


def test_every_format_is_shown_and_every_block_is_valid():
    shown = set()
    for block in re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL):
        for name, entry in yaml.safe_load(block)["DATASETS"]["CUSTOM"].items():
            shown.add(Spec.of(name, entry).format)
    assert shown == set(FORMATS)


def test_every_key_is_in_the_reference():
    from dataclasses import fields

    keys = [f.name.upper() for f in fields(Spec) if f.name != "name"]
    assert not [key for key in keys if f"`{key}`" not in TEXT]


def test_from_the_drawn_task_to_a_config_that_train_net_accepts(tmp_path, monkeypatch):
    from mask2former.engine.setup import load_config

    monkeypatch.chdir(tmp_path)
    draw = script("tools/example_task.py").main
    assert draw(["data/fence", "--images", "10"]) == 0
    assert draw(["data/fence"]) == 2  # never draws over somebody's annotations
    base = REPO / "configs/shapes/instance-segmentation/maskformer2_R50_tiny.yaml"
    flags = ["--output", "data/fence/doctor", "--base", str(base), "--weights", "none"]
    assert script("tools/dataset_doctor.py").main(["data/fence", *flags]) == 0
    assert Path("data/fence/doctor/samples.jpg").stat().st_size > 10_000

    assert draw(["data/fence2", "--images", "4", "--seed", "1", "--unlabelled"]) == 0
    assert not any(image.shapes for image in iterate_images("data/fence2/annotations.xml"))
    Path("data/fence2/corrected").mkdir()
    Path("data/fence2/truth.xml").rename("data/fence2/corrected/annotations.xml")
    Path("data/fence2/corrected/images").symlink_to("../images")

    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    Path("data/next.yaml").write_text(next(b for b in blocks if "TRAIN_WEIGHTS" in b))
    cfg = load_config("data/next.yaml", [])
    assert cfg.DATASETS.TRAIN == ("fence_train", "fence2_train")
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 4

    from detectron2.data import DatasetCatalog

    labelled = len(DatasetCatalog.get("fence_train")), len(DatasetCatalog.get("fence2_train"))
    assert labelled[0] == 9
    assert 1 <= labelled[1] <= 4
