"""Sets declared in YAML train and evaluate; two are mixed by weight."""

import argparse
import json

import numpy as np
import pytest
import yaml
from engine.tiny import TINY
from PIL import Image

from mask2former.data.cvat import encode_mask


@pytest.fixture
def cvat_task(tmp_path):
    """Four pictures with a bright square each, annotated in CVAT."""
    generator = np.random.default_rng(0)
    body = []
    (tmp_path / "images").mkdir()
    for i in range(4):
        mask = np.zeros((64, 80), dtype=bool)
        y, x = generator.integers(4, 30, size=2)
        mask[y : y + 20, x : x + 24] = True
        picture = np.where(mask[..., None], 220, 40).astype(np.uint8).repeat(3, axis=2)
        Image.fromarray(picture).save(tmp_path / "images" / f"{i}.png")
        attributes = " ".join(f'{k}="{v}"' for k, v in encode_mask(mask).attributes.items())
        body.append(
            f'<image id="{i}" name="{i}.png" width="80" height="64">'
            f'<mask label="square" occluded="0" {attributes} z_order="0"/></image>'
        )
    file = tmp_path / "annotations.xml"
    file.write_text(f"<annotations><version>1.1</version>{''.join(body)}</annotations>")
    return {"FORMAT": "cvat", "ANNOTATIONS": str(file)}


@pytest.mark.parametrize("weights", [[], [3.0, 1.0]], ids=["alone", "mixed"])
def test_a_cvat_export_trains_and_evaluates_without_python(cvat_task, tmp_path, weights):
    from train_net import main

    names = ["squares_a", "squares_b"] if weights else ["squares_a"]
    config = {
        "_BASE_": TINY,
        "DATASETS": {
            "CUSTOM": {**{name: dict(cvat_task) for name in names}, "squares_val": cvat_task},
            "TRAIN": str(tuple(names)),
            "TEST": '("squares_val",)',
            "TRAIN_WEIGHTS": weights,
        },
        "INPUT": {"DATASET_MAPPER_NAME": "mask_former_instance", "MIN_SIZE_TRAIN": "(64,)"},
        "MODEL": {
            "SEM_SEG_HEAD": {"NUM_CLASSES": 1},
            "MASK_FORMER": {
                "TEST": {"SEMANTIC_ON": False, "PANOPTIC_ON": False, "INSTANCE_ON": True}
            },
        },
        "SOLVER": {"MAX_ITER": 2},
        "OUTPUT_DIR": str(tmp_path / "out"),
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    args = argparse.Namespace(
        config_file=str(file), opts=[], eval_only=False, resume=False, num_gpus=0
    )
    main(args)
    last = json.loads((tmp_path / "out" / "metrics.json").read_text().splitlines()[-1])
    assert np.isfinite(last["segm/AP"])
    assert (tmp_path / "out" / "model_final.pth").exists()
