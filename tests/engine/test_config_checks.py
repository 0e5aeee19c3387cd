"""What is wrong with a config is said before anything is built, with the remedy."""

from types import SimpleNamespace

import pytest
import torch
from engine.tiny import REPO, TINY

from detectron2.data import DatasetCatalog, MetadataCatalog
from mask2former.engine import ConfigError, Trainer, WeightsError, load_config, setup
from mask2former.engine.checks import (
    check_batch_size,
    check_class_count,
    check_evaluation,
    check_intra_batch_supervision,
    class_count,
)
from mask2former.engine.setup import choose_device


def test_unknown_key_on_the_command_line_suggests_the_nearest():
    with pytest.raises(
        ConfigError, match=r"no config key SOLVER\.BASE_LRR; nearest: SOLVER\.BASE_LR"
    ):
        load_config("", ["SOLVER.BASE_LRR", "0.1"])


def test_unknown_key_in_the_file_names_file_and_key(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("MODEL:\n  MASK_FORMER:\n    DEC_LAYER: 3\nVERSION: 2\n")
    with pytest.raises(ConfigError, match=r"wrong\.yaml: .*MASK_FORMER\.DEC_LAYER.*DEC_LAYERS"):
        load_config(str(path), [])


def test_value_of_the_wrong_type_names_the_key():
    with pytest.raises(ConfigError, match=r"SOLVER\.BASE_LR"):
        load_config("", ["SOLVER.BASE_LR", "(1, 2)"])


def test_value_of_the_wrong_type_says_what_is_right():
    with pytest.raises(ConfigError, match=r"SOLVER\.BASE_LR; it must be a float, like 0\.001"):
        load_config("", ["SOLVER.BASE_LR", "1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("_BASE_: gone.yaml", "gone.yaml does not exist"),
        ("MODEL:\n  A: [1\n", "line 2"),
        ("A: !!python/object/apply:os.system ['true']", "os.system is not allowed"),
        ("\xff\xfe", "can't decode"),
    ],
    ids=["no base", "no YAML", "code", "no text"],
)
def test_unreadable_config_file_is_a_user_error_that_names_it(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content.encode("latin1"))
    with pytest.raises(ConfigError, match=f"mine.yaml.*{message}"):
        load_config(str(path), [])


def test_missing_config_file_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_config("nowhere.yaml", [])


def test_single_override_is_refused():
    with pytest.raises(ConfigError, match="come in pairs"):
        load_config("", ["SOLVER.BASE_LR"])


def test_unknown_data_set_suggests_the_nearest(arguments, tmp_path):
    with pytest.raises(
        ConfigError, match=r"shapes_panoptik_train.*nearest: .*shapes_panoptic_train"
    ):
        setup(arguments("DATASETS.TRAIN", "('shapes_panoptik_train',)"))
    assert not (tmp_path / "out").exists()


def test_missing_folder_names_the_path_and_the_command(arguments, tmp_path):
    from mask2former.data.datasets.register_shapes import register_all_shapes

    register_all_shapes(str(tmp_path / "absent"), prefix="shapes_absent")
    with pytest.raises(ConfigError, match=r"(?s)absent/shapes.*prepare_shapes\.py"):
        setup(arguments("DATASETS.TRAIN", "('shapes_absent_panoptic_train',)"))
    assert not (tmp_path / "out").exists()


def test_class_count_names_key_value_and_data_set(arguments, tiny_sets):
    with pytest.raises(ConfigError, match=rf"NUM_CLASSES is 7, but data set {tiny_sets[0]} has 12"):
        setup(arguments("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 7))


@pytest.mark.parametrize(
    ("metadata", "count"),
    [
        ({"evaluator_type": "coco", "thing_classes": ["a", "b"]}, 2),
        ({"evaluator_type": "sem_seg", "stuff_classes": ["a", "b", "c"]}, 3),
        (
            {
                "evaluator_type": "coco_panoptic_seg",
                "thing_dataset_id_to_contiguous_id": {5: 0, 9: 2},
                "stuff_dataset_id_to_contiguous_id": {5: 0, 7: 1, 9: 2},
            },
            3,
        ),
        (
            {  # Panoptic FPN's sets number things and stuff separately
                "evaluator_type": "coco_panoptic_seg",
                "thing_dataset_id_to_contiguous_id": {5: 0, 9: 1},
                "stuff_dataset_id_to_contiguous_id": {0: 0, 7: 1},
            },
            None,
        ),
        ({}, None),
    ],
)
def test_class_count_of_each_kind_of_set(metadata, count):
    assert class_count(metadata) == count


def test_panoptic_model_may_be_tested_on_the_instance_set_with_its_things():
    config = REPO / "configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml"
    cfg = load_config(str(config), [])
    check_class_count(cfg, "coco_2017_val")
    with pytest.raises(ConfigError, match="ade20k_instance_val has 100"):
        check_class_count(cfg, "ade20k_instance_val")
    cfg.DATASETS.TRAIN = ("coco_2017_val",)
    with pytest.raises(ConfigError, match="coco_2017_val has 80"):
        check_class_count(cfg, "coco_2017_val")


def test_published_data_sets_fit_their_published_class_counts():
    counts = {
        "coco_2017_train_panoptic": 133,
        "coco_2017_val_panoptic_with_sem_seg": 133,
        "coco_2017_train": 80,
        "ade20k_panoptic_train": 150,
        "ade20k_instance_train": 100,
        "ade20k_sem_seg_train": 150,
        "ade20k_full_sem_seg_train": 847,
        "cityscapes_fine_panoptic_train": 19,
        "cityscapes_fine_instance_seg_train": 8,
        "cityscapes_fine_sem_seg_train": 19,
        "mapillary_vistas_panoptic_train": 65,
        "mapillary_vistas_sem_seg_train": 65,
        "coco_2017_train_stuff_10k_sem_seg": 171,
    }
    registered = DatasetCatalog.list()
    assert {n for n in counts if n not in registered} == set()
    assert {n: class_count(MetadataCatalog.get(n)) for n in counts} == counts


@pytest.mark.parametrize(
    ("key", "name", "nearest"),
    [
        ("MODEL.BACKBONE.NAME", "D2SwinTransfomer", "D2SwinTransformer"),
        ("MODEL.META_ARCHITECTURE", "Maskformers", "MaskFormer"),
        ("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "MSDeformPixelDecoder", "MSDeformAttn"),
    ],
)
def test_misspelt_part_of_the_network_names_the_key_and_the_nearest(key, name, nearest):
    cfg = load_config(TINY, ["MODEL.DEVICE", "cpu", key, name])
    with pytest.raises(ConfigError, match=f"{key}: there is no '{name}'.*nearest: .*{nearest}"):
        Trainer.build_model(cfg)


@pytest.mark.parametrize(
    "wrong",
    [
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupPoly"),
        ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norms"),
    ],
)
def test_setting_that_detectron2_refuses_is_a_user_error(wrong):
    clip = ["SOLVER.CLIP_GRADIENTS.ENABLED", "True"]
    cfg = load_config(TINY, ["MODEL.DEVICE", "cpu", *clip, *wrong])
    with pytest.raises(ConfigError, match=f"{wrong[0]}.*{wrong[1]}"):
        optimizer = Trainer.build_optimizer(cfg, torch.nn.Linear(1, 1))
        Trainer.build_lr_scheduler(cfg, optimizer)


def test_unknown_normalisation_is_a_user_error():
    cfg = load_config(TINY, ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "BatchNorm"])
    with pytest.raises(ConfigError, match=r"NORM.*'BatchNorm'"):
        Trainer.build_model(cfg)


def test_training_without_iterations_points_to_eval_only(arguments, tiny_sets):
    with pytest.raises(ConfigError, match=r"SOLVER\.MAX_ITER is 0.*--eval-only"):
        setup(arguments("SOLVER.MAX_ITER", "0"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER.CHECKPOINT_PERIOD", "0", "CHECKPOINT_PERIOD is 0; it must be at least 1"),
        ("SOLVER.BASE_LR", "-1.0", r"BASE_LR is -1\.0"),
        ("SOLVER.STEPS", "(30, 20)", r"STEPS \(30, 20\): the iterations must increase"),
        ("DATALOADER.NUM_WORKERS", "-1", "NUM_WORKERS is -1"),
        ("TEST.EXPECTED_RESULTS", "[['sem_seg']]", r"EXPECTED_RESULTS: \['sem_seg'\] is not"),
    ],
)
def test_number_that_cannot_train_is_refused_before_training(arguments, key, value, message):
    with pytest.raises(ConfigError, match=message):
        setup(arguments(key, value))


def test_output_folder_that_cannot_be_made_is_named(arguments, tiny_sets, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"OUTPUT_DIR .*file/run cannot be written to"):
        setup(arguments("OUTPUT_DIR", str(tmp_path / "file/run")))


def test_batch_that_processes_cannot_share_suggests_others():
    cfg = load_config("", ["SOLVER.IMS_PER_BATCH", "7"])
    with pytest.raises(ConfigError, match=r"IMS_PER_BATCH is 7, .* 2 processes .* 6 or 8"):
        check_batch_size(cfg, 2)
    check_batch_size(cfg, 7)


def test_intra_batch_supervision_needs_a_set_with_things():
    MetadataCatalog.get("ibs_without_things").set(stuff_classes=["sky"])
    MetadataCatalog.get("ibs_with_things").set(thing_dataset_id_to_contiguous_id={1: 0})
    cfg = load_config("", ["DATASETS.TRAIN", "('ibs_without_things',)"], need_data=False)
    check_intra_batch_supervision(cfg)
    cfg.MODEL.MASK_FORMER.APPLY_IBS = True
    with pytest.raises(ConfigError, match="APPLY_IBS True, but data set ibs_without_things"):
        check_intra_batch_supervision(cfg)
    cfg.DATASETS.TRAIN = ("ibs_with_things",)
    check_intra_batch_supervision(cfg)


@pytest.mark.parametrize(
    ("key", "value"), [("OVERLAP", 16), ("OVERLAP", -1), ("SIZE", [16]), ("SIZE", [0, 16])]
)
def test_tiles_that_cannot_be_are_refused_before_anything_runs(key, value):
    cfg = load_config("", [], need_data=False)
    cfg.TEST.TILING.SIZE, cfg.TEST.TILING.OVERLAP = [16, 32], 8
    cfg.TEST.TILING[key] = value
    check_evaluation(cfg, eval_only=True)
    cfg.TEST.TILING.ENABLED = True
    with pytest.raises(ConfigError, match=f"TEST.TILING.{key}"):
        check_evaluation(cfg, eval_only=True)


def test_missing_weights_file_is_named(arguments, tmp_path):
    with pytest.raises(WeightsError, match=r"gone\.pkl: no such file"):
        setup(arguments("MODEL.WEIGHTS", "gone.pkl"))
    assert not (tmp_path / "out").exists()


def test_no_gpu_means_cpu_and_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = load_config("", ["MODEL.DEVICE", "cuda"])
    assert "no GPU found" in choose_device(cfg, num_gpus=8)
    assert cfg.MODEL.DEVICE == "cpu"


def test_no_gpus_wanted_means_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cfg = load_config("", ["MODEL.DEVICE", "cuda"])
    assert "--num-gpus 0" in choose_device(cfg, num_gpus=0)
    assert cfg.MODEL.DEVICE == "cpu"
    cfg.MODEL.DEVICE = "cuda"
    assert choose_device(cfg, num_gpus=1) is None


def test_more_gpus_than_present_is_refused(monkeypatch):
    from mask2former.engine import launching

    gpus = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1)
    monkeypatch.setattr(launching.torch, "cuda", gpus)
    with pytest.raises(ConfigError, match="--num-gpus 8: this machine has 1"):
        launching._check_gpus(8)
