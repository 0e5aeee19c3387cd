"""tools/import_weights.py: models of transformers compute the same here, and back again."""

import json
import runpy
import shutil
from pathlib import Path

import pytest
import torch

from detectron2.modeling import build_model
from mask2former.conversion import from_huggingface, load_in_transformers, to_huggingface
from mask2former.conversion.infer_config import config_from
from mask2former.engine import Checkpointer

transformers = pytest.importorskip("transformers")

TOOL = Path(__file__).parents[2] / "tools/import_weights.py"
STAGES = ["stage1", "stage2", "stage3", "stage4"]
HEAD = {
    "hidden_dim": 32,
    "feature_size": 32,
    "mask_feature_size": 64,
    "dim_feedforward": 48,
    "encoder_layers": 2,
    "decoder_layers": 5,
    "num_attention_heads": 4,
    "num_queries": 7,
}


def swin(**options):
    options = {"embed_dim": 16, "num_heads": [1, 2, 4, 8], "window_size": 4} | options
    options = {"depths": [2, 2, 2, 2], "out_features": STAGES} | options
    return transformers.SwinConfig(**options)


def resnet(**options):
    options = {"embedding_size": 8, "hidden_sizes": [16, 32, 64, 128]} | options
    return transformers.ResNetConfig(**options, out_features=STAGES)


# The shapes of Swin T, S, B and L (depths, heads, windows), with fewer channels.
BACKBONES = {
    "swin-t": lambda: swin(depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], embed_dim=24),
    "swin-s": lambda: swin(depths=[2, 2, 18, 2], num_heads=[3, 6, 12, 24], embed_dim=12),
    "swin-b": lambda: swin(depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], embed_dim=16),
    "swin-l": lambda: swin(num_heads=[6, 12, 24, 48], embed_dim=24, window_size=12),
    "resnet-50": resnet,
    "resnet-18": lambda: resnet(  # detectron2 has it in its real width only
        layer_type="basic",
        depths=[2, 2, 2, 2],
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
    ),
}


def perturbed(model):
    """Moves every weight: fresh ones are zero or regular in places, which would hide swaps."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.05 if parameter.dim() > 1 else 0.2
            parameter += scale * torch.randn(parameter.shape, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def hf_model(backbone="swin-t", labels=133, **options):
    torch.manual_seed(0)
    config = transformers.Mask2FormerConfig(
        backbone_config=BACKBONES[backbone](), num_labels=labels, **{**HEAD, **options}
    )
    return perturbed(transformers.Mask2FormerForUniversalSegmentation(config))


def our_model(cfg, weights):
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    model.load_state_dict(weights)
    return model.eval()


@torch.no_grad()
def our_logits(model, pixels):
    outputs = model.sem_seg_head(model.backbone(pixels))
    return outputs["pred_logits"], outputs["pred_masks"]


@torch.no_grad()
def hf_logits(model, pixels):
    outputs = model(pixel_values=pixels)
    return outputs.class_queries_logits, outputs.masks_queries_logits


def assert_same(left, right):
    for name, a, b in zip(("class", "mask"), left, right):
        assert b.std() > 0.05, f"{name} logits are nearly constant: they show nothing"
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.fixture
def pixels():
    # Neither side is a multiple of a window's 4 or 7 tokens at all strides.
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_hugging_face_models_compute_the_same_here_and_back(backbone, pixels):
    theirs = hf_model(backbone)
    cfg, weights = from_huggingface(theirs.state_dict(), theirs.config.to_dict())
    ours = our_model(cfg, weights)
    assert_same(our_logits(ours, pixels), hf_logits(theirs, pixels))
    again = load_in_transformers(*to_huggingface(ours.state_dict(), cfg))
    assert_same(hf_logits(again, pixels), our_logits(ours, pixels))


@pytest.mark.parametrize(
    "options",
    [{"pre_norm": True}, {"hidden_dim": 64}, {"enforce_input_projection": True}],
    ids=["pre_norm", "other_widths", "enforced_projection"],
)
def test_variants_of_the_decoder_compute_the_same(options, pixels):
    theirs = hf_model("resnet-50", **options)
    ours = our_model(*from_huggingface(theirs.state_dict(), theirs.config.to_dict()))
    assert_same(our_logits(ours, pixels), hf_logits(theirs, pixels))


def test_timm_resnet_inside_the_hugging_face_model_computes_the_same(pixels):
    backbone = transformers.TimmBackboneConfig(backbone="resnet50", out_indices=[1, 2, 3, 4])
    config = transformers.Mask2FormerConfig(backbone_config=backbone, **HEAD)
    theirs = perturbed(transformers.Mask2FormerForUniversalSegmentation(config))
    ours = our_model(*from_huggingface(theirs.state_dict(), theirs.config.to_dict()))
    assert_same(our_logits(ours, pixels), hf_logits(theirs, pixels))


def test_settings_without_weights_come_from_the_hugging_face_config():
    theirs = hf_model("resnet-50", class_weight=3.0, no_object_weight=0.25, num_queries=5)
    cfg, weights = from_huggingface(theirs.state_dict(), theirs.config.to_dict())
    mask_former = cfg.MODEL.MASK_FORMER
    assert (mask_former.CLASS_WEIGHT, mask_former.NO_OBJECT_WEIGHT) == (3.0, 0.25)
    assert (mask_former.NUM_OBJECT_QUERIES, mask_former.DEC_LAYERS) == (5, 5)
    assert weights["criterion.empty_weight"][-1] == 0.25


# ------------------------------------------------------------------------- the command line


def run(*arguments) -> int:
    return runpy.run_path(str(TOOL))["main"]([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A Hugging Face folder, and what the tool made of it."""
    folder = tmp_path_factory.mktemp("import")
    model = hf_model("resnet-50")
    model.save_pretrained(folder / "hub")
    assert run(folder / "hub", folder / "ours.pth", "--report", folder / "report.json") == 0
    return folder, model


def test_imported_file_and_config_give_the_same_model(saved, pixels):
    folder, theirs = saved
    cfg = config_from({"MODEL.DEVICE": "cpu"}, folder / "ours.yaml")
    model = build_model(cfg)
    checkpointer = Checkpointer(model, strict=True)
    checkpointer.load(str(folder / "ours.pth"))
    report = checkpointer.report
    assert not (report.missing or report.left_over or report.mismatched)
    assert_same(our_logits(model.eval(), pixels), hf_logits(theirs, pixels))


def test_written_config_extends_the_published_one_with_as_many_classes(saved):
    cfg = config_from({}, saved[0] / "ours.yaml")
    assert cfg.DATASETS.TRAIN == ("coco_2017_train_panoptic",)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 133


def test_report_gives_the_origin_of_every_key(saved):
    report = json.loads((saved[0] / "report.json").read_text())
    name = "sem_seg_head.predictor.transformer_self_attention_layers.0.self_attn.in_proj_weight"
    assert [source.split(".")[-2] for source in report["matched"][name]] == [
        "q_proj",
        "k_proj",
        "v_proj",
    ]
    assert report["missing"] == report["left_over"] == []


def test_exported_folder_is_read_by_transformers(saved, pixels, tmp_path):
    folder, theirs = saved
    arguments = ("--to", "hf", "--config-file", folder / "ours.yaml")
    assert run(folder / "ours.pth", tmp_path / "hub", *arguments) == 0
    model = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(tmp_path / "hub")
    assert_same(hf_logits(model.eval(), pixels), hf_logits(theirs, pixels))
    assert model.config.id2label[0] == "person"
    assert model.config.id2label[132] == "rug-merged"
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hub")
    assert processor.image_mean == pytest.approx([0.485, 0.456, 0.406])
    assert processor.size["shortest_edge"] == 800


def test_missing_weights_are_refused_unless_allowed(saved, tmp_path, capsys):
    weights = torch.load(saved[0] / "ours.pth")["model"]
    del weights["sem_seg_head.predictor.class_embed.bias"]
    torch.save({"model": weights}, tmp_path / "in.pth")
    assert run(tmp_path / "in.pth", tmp_path / "out.pth") == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "class_embed.bias" in error[0]
    assert not (tmp_path / "out.pth").exists()
    assert run(tmp_path / "in.pth", tmp_path / "out.pth", "--allow-missing") == 0


def test_older_layouts_of_the_published_zoo_get_current_names(saved, tmp_path):
    weights = torch.load(saved[0] / "ours.pth")["model"]
    old = {
        name.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.").replace(
            ".query_feat.", ".static_query."
        ): value.numpy()
        for name, value in weights.items()
    }
    torch.save(old, tmp_path / "in.pth")
    assert run(tmp_path / "in.pth", tmp_path / "out.pth") == 0
    again = torch.load(tmp_path / "out.pth")["model"]
    assert list(again) == list(weights)
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def failure(capsys, *arguments) -> str:
    assert run(*arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_user_errors_end_with_one_line(tmp_path, capsys):
    torch.save({"fc.weight": torch.ones(1)}, tmp_path / "resnet.pth")
    assert "no such file" in failure(capsys, tmp_path / "none.pth", tmp_path / "out.pth")
    assert "no Mask2Former" in failure(capsys, tmp_path / "resnet.pth", tmp_path / "out.pth")
    assert ".pth" in failure(capsys, tmp_path / "resnet.pth", tmp_path / "out.pkl")
    (tmp_path / "empty").mkdir()
    assert "model.safetensors" in failure(capsys, tmp_path / "empty", tmp_path / "out.pth")


def test_wrong_config_of_the_user_is_named_in_one_line(saved, tmp_path, capsys):
    (tmp_path / "broken.yaml").write_text("MODEL: [1\n")
    (tmp_path / "misspelt.yaml").write_text("MODEL: {MASK_FORMER: {NUM_QUERIES: 5}}\nVERSION: 2")
    for name, says in (("broken", "line 2"), ("misspelt", "NUM_OBJECT_QUERIES")):
        line = failure(
            capsys, saved[0] / "hub", tmp_path / "o.pth", "--config-file", tmp_path / f"{name}.yaml"
        )
        assert f"{name}.yaml" in line
        assert says in line


def test_other_models_of_hugging_face_are_named(saved, tmp_path, capsys):
    folder = tmp_path / "maskformer"
    shutil.copytree(saved[0] / "hub", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "maskformer"}))
    assert "model_type is maskformer" in failure(capsys, folder, tmp_path / "out.pth")


def test_part_of_a_sharded_checkpoint_is_named(saved, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    weights = load_file(saved[0] / "hub" / "model.safetensors")
    part = {k: v for k, v in weights.items() if "pixel_level_module.decoder" in k}
    save_file(part, tmp_path / "model-00002-of-00003.safetensors")
    line = failure(capsys, tmp_path / "model-00002-of-00003.safetensors", tmp_path / "out.pth")
    assert "model-00002-of-00003.safetensors" in line


def test_unknown_data_set_of_class_names_is_refused(saved, tmp_path, capsys):
    line = failure(
        capsys,
        "--to",
        "hf",
        saved[0] / "hub",
        tmp_path / "hf",
        "--dataset",
        "coco_2017_val_panoptc",
    )
    assert "coco_2017_val_panoptic" in line
    assert not (tmp_path / "hf").exists()


def test_backbones_that_only_one_side_has_are_named(capsys, tmp_path):
    theirs = hf_model("resnet-50")
    config = theirs.config.to_dict()
    config["backbone_config"]["model_type"] = "dinat"
    with pytest.raises(Exception, match="dinat"):
        from_huggingface(theirs.state_dict(), config)


def test_imported_resnets_have_the_norm_of_the_config_they_are_put_on(saved):
    assert config_from({}, saved[0] / "ours.yaml").MODEL.RESNETS.NORM == "FrozenBN"
