"""One verb of a command that has several, as `add` is of `edgecloud devices`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from edgecommon.printing import Answer


@dataclass(frozen=True, slots=True)
class Verb:
    """What a command's module says of itself, for a command inside another one."""

    name: str
    help: str
    examples: tuple[str, ...]
    run: Callable[[argparse.Namespace], Answer]
    add: Callable[[argparse.ArgumentParser], None] | None = None  # where it takes arguments of its own
