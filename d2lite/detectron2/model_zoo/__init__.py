"""detectron2's own model zoo, by name only: d2lite carries neither its configs nor its weights."""

from detectron2._missing import missing_getattr
from detectron2.model_zoo.model_zoo import get, get_checkpoint_url, get_config, get_config_file

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file"]

__getattr__ = missing_getattr(__name__)
