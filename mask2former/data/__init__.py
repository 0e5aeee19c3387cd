"""Datasets, training mappers and loaders; importing this registers the datasets."""

from . import datasets
from .build import build_test_loader, build_train_loader
from .corrupt_images import CorruptImageLog
from .dataset_mappers import (
    COCOInstanceNewBaselineDatasetMapper,
    COCOPanopticNewBaselineDatasetMapper,
    ImageDecodeError,
    MaskFormerInstanceDatasetMapper,
    MaskFormerPanopticDatasetMapper,
    MaskFormerPanopticDatasetMapperCropSampling,
    MaskFormerSemanticDatasetMapper,
    SafetyBarrierInstanceDatasetMapper,
    build_train_mapper,
)

__all__ = [
    "COCOInstanceNewBaselineDatasetMapper",
    "COCOPanopticNewBaselineDatasetMapper",
    "CorruptImageLog",
    "ImageDecodeError",
    "MaskFormerInstanceDatasetMapper",
    "MaskFormerPanopticDatasetMapper",
    "MaskFormerPanopticDatasetMapperCropSampling",
    "MaskFormerSemanticDatasetMapper",
    "SafetyBarrierInstanceDatasetMapper",
    "build_test_loader",
    "build_train_loader",
    "build_train_mapper",
    "datasets",
]
