"""What devices, models and whatever else stands in a topic may be called."""

from __future__ import annotations

import re

from . import limits
from .errors import Malformed

NAME = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{limits.NAME_MAX - 1}}}\Z")
ALL = "all"  # the device and the model of what is said to all: none may be called so


def check_own_name(what: str, name: str) -> str:
    """Return `name` when a device or a model may be called so. Raises Malformed as `check_name`, and for the name of all of them."""
    if check_name(what, name) == ALL:
        raise Malformed(what=what, reason=f"{ALL!r} stands for all of them")
    return name


def check_name(what: str, name: str) -> str:
    """Return `name` when it may stand in a topic, a container and a file name. Raises Malformed."""
    if not isinstance(name, str) or not NAME.match(name):
        raise Malformed(what=what, reason=f"{str(name)[:80]!r} is not 1 to 64 of a-z 0-9 . _ - with a letter or digit first")
    return name
