"""Gives an error the name of the board's trouble behind it, and the one line that gets out of it where that can be told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgecommon import access
from modelwire.errors import (
    BadArgument,
    ConfigError,
    DiskUnwritable,
    MissingFile,
    ModelWireError,
    MonthSpent,
    OldWire,
    SessionTaken,
    StateDamaged,
    TwoHistories,
    WrongKeyKind,
)

from .places import base_of

if TYPE_CHECKING:
    from edgeagent.settings.reading import Loaded

SPOOL = "samples.db"
_OF_CLASS: tuple[tuple[type[ModelWireError], str], ...] = (
    (SessionTaken, "two-boards"), (TwoHistories, "older-copy"), (OldWire, "older-release"), (MonthSpent, "month-spent"),
)  # fmt: skip
_ANEW = frozenset({"state-gone", "database-gone", "database-cut", "database-damaged", "database-older", "model-damaged"})


def name_of(error: ModelWireError) -> str:
    """Return the id of the trouble behind an error; empty where it is none of a board's."""
    if said := str(error.facts.get("trouble", "")):
        return said
    if isinstance(error, DiskUnwritable):
        reason, place = str(error.facts.get("reason", "")), str(error.facts.get("disk", ""))
        if "Read-only" in reason or "read-only" in place:
            return "disk-read-only"
        return "disk-failing" if "Input/output" in reason else "disk-full"
    return next((name for cls, name in _OF_CLASS if isinstance(error, cls)), "")


def name_in(error: ModelWireError, loaded: Loaded) -> str:
    """Return the id of the trouble behind an error about this state folder; empty where it is none."""
    return name_of(error) or _of_folder(error, loaded)


def named(error: ModelWireError, name: str) -> None:
    """Give an error its trouble, unless it has one."""
    error.facts.setdefault("trouble", name)


@contextmanager
def in_folder(loaded: Loaded) -> Iterator[None]:
    """Let what is raised about this state folder carry the name of its trouble, and how to get out of it."""
    try:
        yield
    except (ConfigError, DiskUnwritable) as e:
        name = name_in(e, loaded)
        if name:
            named(e, name)
            if name in _ANEW:
                e.facts["fix"] = anew(loaded)
            elif name == "base-damaged":
                path = Path(str(e.facts["path"]))
                later = path.parent.parent.name == "bases"
                given = f"of the base {path.parent.name} there" if later else "back that edgeagent init was given"
                e.facts["fix"] = f"put the file {given}: cp FILE {_quoted(str(path))}"
        raise
    except PermissionError as e:
        if not e.filename or not os.fsdecode(e.filename).startswith(str(loaded.state)):
            raise  # of another file than the board's
        error = access.denied(Path(os.fsdecode(e.filename)), str(e.strerror))
        named(error, "not-ours")
        raise error from e


def _of_folder(error: ModelWireError, loaded: Loaded) -> str:
    """Return the trouble of an error about a state folder, by the file that it names."""
    key, path = loaded.resolve(loaded.settings.device.key), str(error.facts.get("path", ""))
    if isinstance(error, StateDamaged):
        models, file = loaded.state / "models", Path(path)
        if file.name == SPOOL:
            return "samples-damaged"
        if file.name == "base.tflite" and models in file.parents:
            return "base-damaged"
        return "model-damaged" if models in file.parents else "database-damaged"
    if isinstance(error, MissingFile):
        return "key-gone" if path == str(key) else ""
    if isinstance(error, WrongKeyKind) or (isinstance(error, ConfigError) and str(key) in error.message):
        return _of_key(error, key)
    return "not-ours" if isinstance(error, ConfigError) and access.shut(loaded.state)[0] else ""


def _of_key(error: ModelWireError, key: Path) -> str:
    try:
        found = key.stat()
    except OSError as e:  # links that lead in a circle are nobody's
        return "not-ours" if isinstance(e, PermissionError) else "key-damaged"
    if not os.access(key, os.R_OK):
        return "not-ours"
    return "key-open" if isinstance(error, BadArgument) and found.st_mode & 0o077 else "key-damaged"


def state_is_there(state: Path, file: str) -> None:
    """Raise MissingFile, by the name of its trouble, unless a state folder with its database is there; nothing is opened."""
    database = state / file
    try:
        found = os.path.lexists(database)
    except OSError:
        found = True  # it is shut: whose it is is said by who opens it
    if found and database.is_symlink():
        raise StateDamaged(path=database, reason="it is a link, and the agent's database is a file of its own", trouble="database-replaced",
                           fix=f"see what stands there: ls -l {_quoted(str(state))}")  # fmt: skip
    if found and database.is_dir():
        raise StateDamaged(path=database, reason="it is a folder, and the agent's database is a file", trouble="database-replaced",
                           fix=f"see what stands there: ls -l {_quoted(str(state))}")  # fmt: skip
    if found:
        return
    look = f"see what stands there: ls -ld {_quoted(str(state))}"
    if os.path.lexists(state) and not state.is_dir():
        what = "a link that leads nowhere" if state.is_symlink() else "no folder"
        raise MissingFile(path=state, what=f"the agent's state folder ({what} stands there)", trouble="state-replaced", fix=look)
    if not state.is_dir():
        raise MissingFile(path=state, what="the agent's state folder", trouble="state-gone")
    if os.access(state, os.X_OK):
        raise MissingFile(path=state, what="the agent's state folder: its database", trouble="database-gone")


def anew(loaded: Loaded) -> str:
    """Return the line that puts a board's folder aside and sets it up anew with its key: the centre grants a new epoch."""
    device, here = loaded.settings.device, loaded.folder
    place = str(here) if str(here) != "." else os.path.basename(os.getcwd())
    aside = f"{place}.aside"
    told = _quoted

    def old(path: str) -> str:
        return told(os.path.join(aside, path) if not os.path.isabs(path) else path)

    bases = {m.name: base_of(loaded.state / "models" / m.name).relative_to(loaded.state) for m in loaded.settings.models}
    models = [f"--model {told(name)}={old(os.path.join(device.dir, base))}" for name, base in bases.items()]
    key = f" --key {old(device.key)}" if loaded.resolve(device.key).exists() else ""
    up = "" if str(here) != "." else "cd ..; "
    return (
        f"{up}mv {told(place)} {told(aside)}; edgeagent init --dir {told(place)} --device {told(device.name)}"
        f" --fleet {told(device.fleet)} --broker {told(loaded.settings.link.broker)} --fleet-key {old(device.fleet_key)}{key}"
        f" {' '.join(models)} --resume; then put your own lines of edgeagent.toml back"
    )


def _quoted(text: str) -> str:
    import shlex  # for who reads it

    return shlex.quote(text)
