"""Each evaluator_type gets the evaluators of the published trainer, in its order."""

import pytest

from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from mask2former.config import add_maskformer2_config
from mask2former.evaluation import EVALUATORS, build, build_evaluator, register_evaluator

PQ, AP, AP_ANY, MIOU = "_panoptic", "_coco", "_instance", "_sem_seg"
CITY_MIOU, CITY_AP = "_cityscapes_sem_seg", "_cityscapes_instance"

# evaluator_type, switches of (semantic, instance, panoptic), evaluators
PUBLISHED = [
    ("sem_seg", "", [MIOU]),
    ("sem_seg", "SIP", [MIOU]),
    ("coco", "", [AP]),
    ("coco_panoptic_seg", "SIP", [PQ, AP, MIOU]),
    ("coco_panoptic_seg", "I", [AP]),
    ("coco_panoptic_seg", "SP", [PQ, MIOU]),
    ("ade20k_panoptic_seg", "SIP", [MIOU, PQ, AP_ANY]),
    ("ade20k_panoptic_seg", "P", [MIOU, PQ]),
    ("mapillary_vistas_panoptic_seg", "SIP", [PQ, AP_ANY, MIOU]),
    ("mapillary_vistas_instance_seg", "I", [AP_ANY]),
    ("cityscapes_panoptic_seg", "SIP", [PQ, CITY_MIOU, CITY_AP]),
    ("cityscapes_instance", "SIP", [CITY_AP]),
    ("cityscapes_sem_seg", "", [CITY_MIOU]),
    ("lvis", "", ["_lvis"]),
]


def config(switches, out="out"):
    cfg = get_cfg()
    add_maskformer2_config(cfg)
    test = cfg.MODEL.MASK_FORMER.TEST
    test.SEMANTIC_ON, test.INSTANCE_ON, test.PANOPTIC_ON = (k in switches for k in "SIP")
    cfg.OUTPUT_DIR = out
    return cfg


@pytest.fixture
def dataset(request):
    name = f"choice_{abs(hash(request.node.name))}"
    yield MetadataCatalog.get(name)
    MetadataCatalog.remove(name)


@pytest.fixture
def recorded(monkeypatch):
    """Puts recorders in the place of the factories; their evaluators know (factory, folder)."""
    for choices in EVALUATORS.values():
        for choice in choices:

            def make(cfg, name, folder, factory=choice.make.__name__):
                evaluator = DatasetEvaluator()
                evaluator.made_by, evaluator.folder = factory, folder
                return evaluator

            monkeypatch.setitem(choice.__dict__, "make", make)


@pytest.mark.parametrize(("evaluator_type", "switches", "names"), PUBLISHED)
def test_choice_equals_the_published_one(evaluator_type, switches, names, dataset, recorded):
    dataset.evaluator_type = evaluator_type
    chosen = build_evaluator(config(switches), dataset.name)
    if len(names) == 1:
        assert chosen.made_by == names[0]
    else:
        assert isinstance(chosen, DatasetEvaluators)
        assert [e.made_by for e in chosen._evaluators] == names


def test_folder_is_inference_under_the_output_dir(dataset, recorded):
    dataset.evaluator_type = "coco"
    assert build_evaluator(config("", "runs/a"), dataset.name).folder == "runs/a/inference"
    assert build_evaluator(config(""), dataset.name, "elsewhere").folder == "elsewhere"


@pytest.mark.parametrize("evaluator_type", ["unheard_of", "coco_panoptic_seg"])
def test_nothing_to_run_names_data_set_and_type(evaluator_type, dataset):
    dataset.evaluator_type = evaluator_type
    with pytest.raises(
        NotImplementedError, match=rf"{dataset.name} with the type {evaluator_type}"
    ):
        build_evaluator(config(""), dataset.name)


def test_set_without_instances_goes_without_ap(dataset, recorded, caplog):
    dataset.set(evaluator_type="mapillary_vistas_panoptic_seg", json_file=None)
    assert build_evaluator(config("IP"), dataset.name).made_by == PQ
    assert "no instance annotations" in caplog.text


def test_own_evaluator_is_one_line(dataset, monkeypatch):
    monkeypatch.setattr(build, "EVALUATORS", {})
    mine = DatasetEvaluator()
    register_evaluator("my_type", lambda cfg, name, folder: mine)
    dataset.evaluator_type = "my_type"
    assert build_evaluator(config(""), dataset.name) is mine
