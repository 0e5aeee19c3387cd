"""The auto-annotation function, driven by cvat-sdk itself against a stand-in for the server."""

import importlib.util
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from inference.annotation_task import METADATA, bright_squares
from PIL import Image

cvataa = pytest.importorskip("cvat_sdk.auto_annotation")
from cvat_sdk import masks, models  # noqa: E402
from cvat_sdk.auto_annotation import driver  # noqa: E402

from mask2former.data.cvat import encode_mask  # noqa: E402

REPO = Path(__file__).parents[2]


@pytest.fixture
def create(monkeypatch):
    """``create(**kwargs)`` of the file, with a model that finds bright squares."""
    spec = importlib.util.spec_from_file_location("f", REPO / "predict" / "cvat_function.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class BrightSquares:
        metadata = METADATA

        def __init__(self, cfg):
            self.cfg = cfg

        def require_trained(self):
            pass

        def __call__(self, image):
            return bright_squares([image])[0]

    monkeypatch.setattr(module, "Predictor", BrightSquares)
    config = str(REPO / "configs/shapes/instance-segmentation/maskformer2_R50_tiny.yaml")
    return lambda **kwargs: module.create(config_file=config, **kwargs)


@pytest.fixture
def function(create):
    return create()


@pytest.fixture
def server(monkeypatch):
    """A client whose task has two images and the labels "post" and "rail"; keeps what is sent."""
    labels = [
        SimpleNamespace(id=70 + i, name=name, type="any", attributes=[], sublabels=[])
        for i, name in enumerate(("post", "rail"))
    ]
    picture = np.zeros((24, 30, 3), dtype=np.uint8)
    picture[2:12, 2:12] = 200
    picture[14:22, 16:28] = 100
    samples = [
        SimpleNamespace(
            frame_index=i,
            frame_name=f"{i}.png",
            media=SimpleNamespace(load_image=lambda: Image.fromarray(picture)),
        )
        for i in range(2)
    ]
    dataset = SimpleNamespace(labels=labels, samples=samples)
    monkeypatch.setattr(driver, "TaskDataset", lambda client, task, **options: dataset)
    sent = []

    def partial_update_annotations(action, task, patched_labeled_data_request):
        sent.append((action, task, patched_labeled_data_request))

    api = SimpleNamespace(partial_update_annotations=partial_update_annotations)
    client = SimpleNamespace(logger=logging.getLogger("cvat"), tasks=SimpleNamespace(api=api))
    return client, sent


def test_the_driver_sends_masks_with_the_tasks_labels(function, server):
    client, sent = server
    driver.annotate_task(client, 5, function)
    ((action, task, data),) = sent
    assert (action, task) == ("create", 5)
    assert [(s.frame, s.label_id, s.type.value) for s in data.shapes] == [
        (0, 71, "mask"),
        (0, 70, "mask"),
        (1, 71, "mask"),
        (1, 70, "mask"),
    ]
    mask = masks.decode_mask(data.shapes[0].points, image_width=30, image_height=24)
    assert mask[2:12, 2:12].all()
    assert mask.sum() == 100


def test_the_drivers_threshold_and_polygons_are_honoured(function, server):
    client, sent = server
    driver.annotate_task(client, 5, function, conf_threshold=0.8, conv_mask_to_poly=True)
    shapes = sent[0][2].shapes
    assert [s.type.value for s in shapes] == ["polygon", "polygon"]
    points = np.reshape(shapes[0].points, (-1, 2))
    np.testing.assert_allclose(points.min(0), [2, 2], atol=0.3)
    np.testing.assert_allclose(points.max(0), [12, 12], atol=0.3)


@pytest.mark.parametrize(
    "given, says",
    [
        ({"threshold": "7"}, "-p threshold: '7' is no number from 0 to 1"),
        ({"threshold": "high"}, "-p threshold: 'high' is no number"),
        ({"simplify": -1.0}, "-p simplify: -1.0 is no number"),
        ({"task": "panoptic"}, "-p task: 'panoptic'; this config has auto, instance"),
        ({"task": "boxes"}, "-p task: 'boxes'"),
    ],
)
def test_wrong_parameters_are_refused_before_an_image_is_fetched(create, given, says):
    with pytest.raises(ValueError, match=says):
        create(**given)


def test_numbers_may_be_texts_and_a_deep_image_is_named(create, server, caplog):
    client, sent = server
    driver.annotate_task(client, 5, create(threshold="0.8", simplify="2"))
    assert len(sent[0][2].shapes) == 2
    deep = Image.fromarray(np.full((9, 9), 3000, np.uint16))
    context = SimpleNamespace(conf_threshold=None, conv_mask_to_poly=False, frame_name="deep.png")
    create().detect(context, deep)
    assert "deep.png has more than 8 bits" in caplog.text


def test_the_spec_names_the_models_classes(function):
    assert [(label.id, label.name) for label in function.spec.labels] == [(0, "rail"), (1, "post")]
    assert isinstance(function.spec.labels[0], models.PatchedLabelRequest)


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=200, deadline=None)
def test_our_run_lengths_are_those_of_cvats_own_package(mask):
    coded = encode_mask(mask)
    if coded is not None:
        assert coded.points == masks.encode_mask(mask)
