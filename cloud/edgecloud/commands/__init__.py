"""The commands of `edgecloud`, one module each in a folder by subject: NAME, HELP, EXAMPLES, `add` for its arguments, `run` for its answer.

A command of several verbs has VERBS in the place of `add`; its `run`, where it has one, is what it does without any, and then it may have
both.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from modelwire.errors import ModelWireError

__all__ = ["NAMES", "chosen", "every", "named_damage", "painting"]

NAMES = {  # and their folders, in the order in which they are listed
    "init": "registry", "backup": "registry", "restore": "registry", "verify": "registry",
    "repair": "registry", "anchor": "registry", "audit": "registry", "doctor": "registry", "policy": "registry", "compact": "registry",
    "thin": "registry", "stats": "registry", "whatif": "registry", "version": "registry",
    "bases": "fleet", "devices": "fleet", "claim": "fleet", "snapshot": "fleet", "leaves": "fleet", "annotate": "fleet",
    "purge-rows": "fleet", "erase": "fleet", "limits": "fleet", "quarantine": "fleet",
    "rollback": "fleet",
    "log": "models", "show": "models", "why": "models", "diff": "models", "card": "models", "materialise": "models", "replay": "models",
    "forget": "models", "export": "models", "prove": "models", "evidence": "models",
    "variants": "deploying", "deploy": "deploying", "rollouts": "deploying", "rollout": "deploying", "freeze": "deploying",
    "unfreeze": "deploying",
    "nearest": "comparing", "identify": "comparing", "cluster": "comparing", "drift": "comparing",
    "probes": "comparing", "compare": "comparing", "feasible": "comparing", "matrix": "comparing",
    "merge": "comparing",
    "ingest": "registry", "director": "registry", "ca": "perimeter", "broker": "perimeter", "trust": "trust", "keys": "trust",
    "cards": "comparing",
    "inspect": "authoring", "graft": "authoring", "author": "authoring", "pack": "authoring", "int8-head": "authoring",
    "zoo": "authoring",
}  # fmt: skip


def chosen(words: Sequence[str]) -> tuple[ModuleType, ...]:
    """Return the command that the words call, alone: it loads nothing that only others need. Else all, in order."""
    name = _first(words)
    names = [name] if name in NAMES else list(NAMES)
    return tuple(import_module(f".{NAMES[n]}.{n.replace('-', '_')}", __name__) for n in names)


def every() -> tuple[ModuleType, ...]:
    """Return all commands, in the order in which they are listed."""
    return chosen(())


def named_damage(args: Namespace, error: Exception) -> ModelWireError | None:
    """Return what a fault comes to that the rows of a changed registry gave; None for a fault of the program."""
    found: ModelWireError | None = import_module(".answer", __name__).damage(args, error)  # loaded by commands that read a registry
    return found


def _first(words: Sequence[str]) -> str:
    """Return the first word behind the options that may stand before a command: --json, and --db with its value."""
    left = iter(words)
    for word in left:
        if word == "--db":
            next(left, "")
        elif word != "--json" and not word.startswith("--db="):
            return word
    return ""
