"""Lets a module of the standard library wait until something in it is used: what a board never needs should not lie in its memory."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def defer(*names: str) -> None:
    """Let each of these modules be loaded when something in it is first used, whoever imports it meanwhile; a loaded one stays.

    A package of others may import them for what this device does not do: TLS behind a plain socket, proxies for a link without one.
    """
    for name in names:
        if name in sys.modules:
            continue
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(importlib.import_module(parent), child, _Deferred(name))
            sys.modules[name] = getattr(sys.modules[parent], child)
        else:
            sys.modules[name] = _Deferred(name)


class _Deferred(ModuleType):
    """Stands for a module until one of its names is asked for. importlib's LazyLoader loads at the next plain `import` already."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system asks of every module
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        whole = importlib.import_module(self.__name__)
        self.__dict__.update(whole.__dict__)  # for those who hold this one
        return getattr(whole, name)
