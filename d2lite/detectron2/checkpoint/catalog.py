"""``catalog://`` addresses of the ImageNet weights that Detectron published."""

from __future__ import annotations

import logging
from typing import IO, Any

from detectron2._missing import missing_getattr
from detectron2.utils.file_io import PathHandler, PathManager

__all__ = ["ModelCatalog", "ModelCatalogHandler"]


class ModelCatalog:
    """Names of published weights and their addresses."""

    S3_C2_DETECTRON_PREFIX = "https://dl.fbaipublicfiles.com/detectron"

    C2_IMAGENET_MODELS = {
        "MSRA/R-50": "ImageNetPretrained/MSRA/R-50.pkl",
        "MSRA/R-101": "ImageNetPretrained/MSRA/R-101.pkl",
        "FAIR/R-50-GN": "ImageNetPretrained/47261647/R-50-GN.pkl",
        "FAIR/R-101-GN": "ImageNetPretrained/47592356/R-101-GN.pkl",
        "FAIR/X-101-32x8d": "ImageNetPretrained/20171220/X-101-32x8d.pkl",
        "FAIR/X-101-64x4d": "ImageNetPretrained/FBResNeXt/X-101-64x4d.pkl",
        "FAIR/X-152-32x8d-IN5k": "ImageNetPretrained/25093814/X-152-32x8d-IN5k.pkl",
    }

    @staticmethod
    def get(name: str) -> str:
        """The address of ``ImageNetPretrained/...``.

        Raises:
            RuntimeError: the name is not in the catalog.
        """
        kind, _, model = name.partition("/")
        if kind == "ImageNetPretrained" and model in ModelCatalog.C2_IMAGENET_MODELS:
            prefix = ModelCatalog.S3_C2_DETECTRON_PREFIX
            return f"{prefix}/{ModelCatalog.C2_IMAGENET_MODELS[model]}"
        known = ", ".join(f"ImageNetPretrained/{x}" for x in ModelCatalog.C2_IMAGENET_MODELS)
        raise RuntimeError(f"Model not present in the catalog: {name}. Present: {known}")


class ModelCatalogHandler(PathHandler):
    """Resolves ``catalog://X`` through :class:`ModelCatalog`."""

    PREFIX = "catalog://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        address = ModelCatalog.get(path[len(self.PREFIX) :])
        logging.getLogger(__name__).info("Catalog entry %s points to %s", path, address)
        return PathManager.get_local_path(address, force, **kwargs)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO:
        return PathManager.open(self._get_local_path(path), mode, buffering, **kwargs)


PathManager.register_handler(ModelCatalogHandler(), allow_override=True)

__getattr__ = missing_getattr(__name__)
