"""One path manager for local files, http(s), OneDrive and ``detectron2://`` addresses."""

from typing import IO, Any

from iopath.common.file_io import HTTPURLHandler, OneDrivePathHandler, PathHandler
from iopath.common.file_io import PathManager as PathManagerBase

from detectron2._missing import missing_getattr

__all__ = ["PathHandler", "PathManager"]

PathManager = PathManagerBase()
"""The project-wide path manager (an instance). Downloads land in iopath's cache ($FVCORE_CACHE)."""


class Detectron2Handler(PathHandler):
    """``detectron2://X`` stands for ``X`` in detectron2's public model store."""

    PREFIX = "detectron2://"
    S3_DETECTRON2_PREFIX = "https://dl.fbaipublicfiles.com/detectron2/"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _url(self, path: str) -> str:
        return self.S3_DETECTRON2_PREFIX + path[len(self.PREFIX) :]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return PathManager.get_local_path(self._url(path), force, **kwargs)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO:
        return PathManager.open(self._get_local_path(path), mode, buffering, **kwargs)


PathManager.register_handler(HTTPURLHandler())
PathManager.register_handler(OneDrivePathHandler())
PathManager.register_handler(Detectron2Handler())

__getattr__ = missing_getattr(__name__)
