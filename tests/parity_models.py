"""Builds the models of the recorded parity cases, with their weights and inputs."""

import parity_cases
import torch
from torch import Tensor, nn

import mask2former.maskformer_model
import mask2former.modeling  # noqa: F401  (both register the network's parts)
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.projects.deeplab import add_deeplab_config
from mask2former.config import add_maskformer2_config


def default_config() -> CfgNode:
    """All keys with their defaults, on the CPU."""
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def config(case: str, *overrides) -> CfgNode:
    """The configuration of a case; KEY VALUE pairs may follow."""
    cfg = default_config()
    cfg.merge_from_file(parity_cases.config_file(case))
    cfg.merge_from_list(list(overrides))
    register_metadata(case)
    return cfg


def register_metadata(case: str) -> None:
    """Makes the data set of a case known; it has ids of 10 and more on disk."""
    facts = parity_cases.facts(case, "metadata")
    MetadataCatalog.get(facts["dataset_name"]).set(
        thing_dataset_id_to_contiguous_id={i + 10: i for i in facts["thing_contiguous_ids"]},
        stuff_dataset_id_to_contiguous_id={i + 10: i for i in facts["stuff_contiguous_ids"]},
    )


def model(case: str, *overrides) -> nn.Module:
    """The model of a case in evaluation mode, with the recorded weights, all of which must fit."""
    built = build_model(config(case, *overrides))
    built.load_state_dict(parity_cases.weights(case))
    return built.eval()


def batched_inputs(case: str) -> list[dict]:
    """The images of a case as a model takes them, with the requested output sizes."""
    inputs = parity_cases.arrays(case, "inputs")
    return [
        {"image": torch.from_numpy(inputs[f"image_{i}"]), "height": int(h), "width": int(w)}
        for i, (h, w) in enumerate(inputs["output_sizes"])
    ]


def normalised_images(case: str, built: nn.Module) -> Tensor:
    """What the backbone of a case saw: normalised, then zero padded, ``[B, 3, H, W]``."""
    shape = parity_cases.arrays(case, "outputs")["input_tensor_shape"].tolist()
    batch = torch.zeros(shape)
    for padded, record in zip(batch, batched_inputs(case)):
        image = (record["image"] - built.pixel_mean) / built.pixel_std
        padded[:, : image.shape[1], : image.shape[2]] = image
    return batch
