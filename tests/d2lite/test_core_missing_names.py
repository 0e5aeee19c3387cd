"""Names that d2lite lacks fail with one clear sentence; unknown names get a hint."""

import importlib

import pytest

import detectron2

pytestmark = pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False), reason="detectron2 itself lacks nothing"
)

SENTENCE = r"does not carry .*install detectron2 itself.*pip install"


def run(statement: str) -> None:
    exec(compile(statement, "<statement>", "exec"), {})


@pytest.mark.parametrize(
    "statement",
    [
        "from detectron2.layers import nms_rotated",
        "from detectron2.layers.wrappers import check_if_dynamo_compiling",
        "from detectron2.modeling import poolers",
        "import detectron2.modeling.poolers",
        "from detectron2.tracking import BaseTracker",
    ],
)
def test_importing_a_public_name_that_is_not_carried_says_how_to_get_it(statement):
    with pytest.raises(ImportError, match=SENTENCE):
        run(statement)


def test_attribute_of_a_public_name_that_is_not_carried_says_how_to_get_it():
    import detectron2.layers

    with pytest.raises(AttributeError, match=SENTENCE):
        _ = detectron2.layers.nms_rotated


def test_feature_tests_work_for_names_that_are_not_carried():
    import detectron2.layers

    assert not hasattr(detectron2.layers, "nms_rotated")
    assert getattr(detectron2.layers, "nms_rotated", None) is None


@pytest.mark.parametrize(
    ("statement", "hint"),
    [
        ("from detectron2.layers import Conv2D", "Did you mean 'Conv2d'"),
        ("from detectron2.utils.comm import get_wold_size", "Did you mean 'get_world_size'"),
        ("import detectron2.layer", "Did you mean 'layers'"),
        ("from detectron2.data import dataset_maper", "Did you mean 'dataset_mapper'"),
    ],
)
def test_unknown_name_is_an_import_error_with_the_nearest_name(statement, hint):
    with pytest.raises(ImportError, match=hint):
        run(statement)


def test_unknown_attribute_is_an_attribute_error_with_the_nearest_name():
    import detectron2.config

    with pytest.raises(AttributeError, match=r"has no attribute 'get_cgf'.*'get_cfg'"):
        _ = detectron2.config.get_cgf


def test_submodules_are_imported_on_access():
    run("import detectron2.utils; detectron2.utils.memory.retry_if_cuda_oom")


def modules_that_are_carried() -> list[str]:
    from detectron2._missing import find_spec_quietly, public_names

    return [module for module in public_names() if find_spec_quietly(module)]


@pytest.mark.parametrize("module", modules_that_are_carried())
def test_every_public_name_is_there_or_explained(module):
    from detectron2._missing import public_names

    importlib.import_module(module)
    for name in sorted(public_names()[module]):
        try:
            run(f"from {module} import {name}")
        except ImportError as error:
            assert "install detectron2 itself" in str(error), f"{module}.{name}: {error}"
