"""``@configurable``: build an object from explicit arguments, or from a config."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from fvcore.common.config import CfgNode as _CfgNode


def configurable(init_func: Callable | None = None, *, from_config: Callable | None = None) -> Any:
    """Let a constructor (or a function) also be called with a config.

    On a class::

        class A:
            @configurable
            def __init__(self, a, b=2): ...

            @classmethod
            def from_config(cls, cfg):
                return {"a": cfg.A}

        A(a=1, b=3)   # explicit
        A(cfg)        # a from the config
        A(cfg, b=3)   # b is handed on

    On a function: ``@configurable(from_config=lambda cfg: {"a": cfg.A})``.

    The config way is taken when the first positional argument, or the keyword ``cfg``, is a
    CfgNode (or omegaconf's DictConfig). Arguments that ``from_config`` takes are given to it; other
    keywords override what it returns. The wrapped callable gets keyword arguments only.

    Raises:
        AssertionError: the decorator is misplaced.
        AttributeError, TypeError: ``from_config`` is missing, is no classmethod or does not have
            ``cfg`` as its first argument.
    """
    if init_func is not None:
        if from_config is not None or not inspect.isfunction(init_func):
            raise AssertionError(
                "Incorrect use of @configurable: it takes a function, or from_config="
            )
        if init_func.__name__ != "__init__":
            raise AssertionError(
                "Incorrect use of @configurable: without from_config= it decorates __init__ only"
            )
        return _wrap_init(init_func)
    if from_config is None:
        return configurable  # written as @configurable()
    if not inspect.isfunction(from_config):
        raise AssertionError("from_config argument of configurable must be a function!")

    def wrapper(function: Callable) -> Callable:
        if function.__name__ == "__init__":
            raise AssertionError(
                "Incorrect use of @configurable: a class defines from_config as a classmethod"
            )

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if _called_with_cfg(*args, **kwargs):
                return function(**_arguments_from_config(from_config, *args, **kwargs))
            return function(*args, **kwargs)

        wrapped.from_config = from_config
        return wrapped

    return wrapper


def _wrap_init(init_func: Callable) -> Callable:
    @functools.wraps(init_func)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        # Looked up on the instance's class: subclasses inherit or override from_config.
        from_config = getattr(type(self), "from_config", None)
        if from_config is None:
            raise AttributeError(
                f"{type(self).__name__}: a class with @configurable needs a classmethod from_config"
            )
        if not inspect.ismethod(from_config):
            raise TypeError(f"{type(self).__name__}.from_config must be a classmethod")
        if _called_with_cfg(*args, **kwargs):
            init_func(self, **_arguments_from_config(from_config, *args, **kwargs))
        else:
            init_func(self, *args, **kwargs)

    return wrapped


def _called_with_cfg(*args: Any, **kwargs: Any) -> bool:
    kinds: tuple[type, ...] = (_CfgNode,)
    # A DictConfig can only be at hand when somebody has imported omegaconf.
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is not None:
        kinds += (omegaconf.DictConfig,)
    return bool(args and isinstance(args[0], kinds)) or isinstance(kwargs.get("cfg"), kinds)


def _arguments_from_config(from_config: Callable, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Call ``from_config`` with what it takes; the other keywords override its result."""
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        name = getattr(from_config, "__qualname__", repr(from_config))
        raise TypeError(f"{name} must take 'cfg' as its first argument")
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if any(parameter.kind in variadic for parameter in parameters.values()):
        return from_config(*args, **kwargs)
    held_back = {name: kwargs.pop(name) for name in list(kwargs) if name not in parameters}
    return {**from_config(*args, **kwargs), **held_back}
