"""Mask2Former: masked-attention mask transformer for panoptic, instance and semantic segmentation.

Importing this package registers its datasets, backbones, heads and meta architectures with
detectron2, as the published one does.
"""

try:
    import detectron2  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "mask2former needs detectron2 or d2lite, its small stand-in that comes with this "
        "repository: `pip install .` in the repository installs it (see INSTALL.md)",
        name="detectron2",
    ) from error

from . import modeling  # noqa: F401 - registers the models
from .config import add_maskformer2_config
from .data import (
    COCOInstanceNewBaselineDatasetMapper,
    COCOPanopticNewBaselineDatasetMapper,
    MaskFormerInstanceDatasetMapper,
    MaskFormerPanopticDatasetMapper,
    MaskFormerPanopticDatasetMapperCropSampling,
    MaskFormerSemanticDatasetMapper,
)
from .evaluation.instance_evaluation import InstanceSegEvaluator
from .maskformer_model import MaskFormer
from .semask_maskformer_model import SeMaskMaskFormer
from .test_time_augmentation import SemanticSegmentorWithTTA

__all__ = [
    "COCOInstanceNewBaselineDatasetMapper",
    "COCOPanopticNewBaselineDatasetMapper",
    "InstanceSegEvaluator",
    "MaskFormer",
    "MaskFormerInstanceDatasetMapper",
    "MaskFormerPanopticDatasetMapper",
    "MaskFormerPanopticDatasetMapperCropSampling",
    "MaskFormerSemanticDatasetMapper",
    "SeMaskMaskFormer",
    "SemanticSegmentorWithTTA",
    "add_maskformer2_config",
]
