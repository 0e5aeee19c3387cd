"""Pickling of things that pickle cannot handle (lambdas, local functions)."""

from typing import Any

import cloudpickle

from detectron2._missing import missing_getattr

__all__ = ["PicklableWrapper"]


class PicklableWrapper:
    """Hold an object; when pickled, it travels through cloudpickle.

    Calls and attribute look-ups go to the held object.
    """

    def __init__(self, obj: Any) -> None:
        # Never wrap twice.
        while isinstance(obj, PicklableWrapper):
            obj = obj._obj
        self._obj = obj

    def __reduce__(self) -> tuple:
        return _unwrap_pickled, (cloudpickle.dumps(self._obj),)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._obj(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # __reduce__ never leaves the attribute unset, but copy and pickle probe early.
        if name == "_obj" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._obj, name)


def _unwrap_pickled(data: bytes) -> PicklableWrapper:
    return PicklableWrapper(cloudpickle.loads(data))


__getattr__ = missing_getattr(__name__)
