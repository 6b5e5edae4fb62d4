"""Makes a board's folder from its boot partition: beside its place, flushed, moved there in one step; then the secrets are erased."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgeagent import boards
from edgeagent.settings import reading, template
from edgeagent.settings.reading import FILE
from edgeagent.settings.tree import SECTIONS
from edgeagent.state.keys import read_fleet
from edgeagent.state.new_folder import create_folder
from edgecommon import disk, files
from modelwire.errors import BadArgument, ConfigError
from modelwire.wire import signing
from modelwire.wire.keys import fingerprint

from .erasing import erase
from .outcome import ProvisionOutcome, ProvisionStage
from .partition import MARK, BootPartition, read_partition, require_own_names, require_partition

STAGING = ".edgeagent-provision"  # beside the folder, on the same file system
RateOf = Callable[[bytes, str, str], tuple[float, str] | None]


def provision(source: Path, folder: Path, *, owner: tuple[int, int] | None = None, rate_of: RateOf = lambda *_: None) -> ProvisionOutcome:
    """Set a board up in `folder` from the boot partition `source`, once; later calls only erase what an earlier one could not.

    owner: user and group that the folder is given to. rate_of: the learning rate that a model's file suggests.
    Raises ConfigError and what is below it, DiskUnwritable: nothing was made then, and nothing was erased.
    """
    staging = folder.parent / STAGING
    _clear(staging)
    if os.path.lexists(folder / FILE):
        return _again(source, folder)
    require_partition(source)
    require_own_names(source)
    if not os.path.lexists(source / FILE):
        waits = f"{source / FILE} is not there: this board waits to be set up; README.txt beside it says what belongs there"
        return ProvisionOutcome(ProvisionStage.WAITING, says=(waits,))
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BadArgument(reason=f"{folder} is there, and no folder", fix="see where it leads; move it away, and start the board again")
    if folder.exists() and any(folder.iterdir()):
        fix = "see what it holds; move it away, and start the board again"
        raise BadArgument(reason=f"{folder} holds files and no {FILE}: nothing is made over them", fix=fix)
    given = read_partition(source)
    chosen, seed = _make(staging, given, rate_of)
    try:
        with disk.named(folder):
            if owner is not None:
                _give(staging, owner)
            _flush(staging)
            os.rename(staging, folder)  # power may go before or after it: the board is set up, or as it was
            files.flush_folder(folder.parent)
    except BaseException:
        _clear(staging)  # it holds secrets
        raise
    key = signing.PrivateKey(seed).public
    erased = erase(source, given.secrets)
    device = given.loaded.settings.device
    says = (f"set up as {device.name} of the fleet {device.fleet}", *chosen, f"fingerprint of its key: {fingerprint(key)}", *erased.says)
    return ProvisionOutcome(ProvisionStage.SET_UP, device.name, device.fleet, fingerprint(key), says, erased.error)


def _make(staging: Path, given: BootPartition, rate_of: RateOf) -> tuple[tuple[str, ...], bytes]:
    """Make the whole folder in `staging`; return what is to be said of it, and the private key's seed."""
    text, says = settings_text(given, rate_of)
    loaded = reading.build(reading.parse(text), where=str(given.folder / FILE), path=staging / FILE, environment={}, flags={})
    seed = given.seed or secrets.token_bytes(signing.KEY_BYTES)
    device = loaded.settings.device
    if given.token and not device.claim:
        raise BadArgument(reason=f"{given.folder / FILE}: device.claim is empty, and a claim lies beside it", fix="leave that line out")
    try:
        with disk.named(staging):
            staging.mkdir(mode=0o755)
        back = given.seed is not None  # a board that lost its state would like its last models back
        create_folder(staging, loaded, text, models=given.models, seed=seed, fleet=given.fleet, token=given.token, resume=back)
        for name, data in given.beside.items():
            files.write(staging / name, data, mode=0o600 if name in given.secrets else 0o644)
        known = {name: _digest(given.folder / name) for name in given.secrets}
        files.write(staging / MARK, (json.dumps(known) + "\n").encode(), mode=0o600)
    except BaseException:
        _clear(staging)
        raise
    return says, seed


def settings_text(given: BootPartition, rate_of: RateOf) -> tuple[str, tuple[str, ...]]:
    """Return the text of a board's settings, and what is to be said: those of the boot partition, beneath them its profile's."""
    own: dict[str, str] = {}
    for section, cls in SECTIONS.items():
        held = getattr(given.loaded.settings, section)
        for f in fields(cls):
            if given.loaded.origins.get(f"{section}.{f.name}") == "file":
                own[f"{section}.{f.name}"] = template.say(f, getattr(held, f.name))
    name = own.pop("board.name", "")
    board = boards.choose(name) if name else None
    every = own if board is None else {**board.given, **own}
    text = template.render(every, [], {}, board.notes_but(own) if board is not None else {})
    mode = every.get("train.mode", given.loaded.settings.train.mode)
    known = "train.learning_rate" in every
    blocks = [_model(row, None if known else rate_of(given.models[row["name"]], row["name"], mode)) for row in _rows(given)]
    return text + "\n".join(blocks), board.says if board is not None else ()


def _rows(given: BootPartition) -> list[dict[str, Any]]:
    found = given.table["model"]
    return [{"name": name, **row} for name, row in found.items()] if isinstance(found, dict) else found


def _model(row: dict[str, Any], rate: tuple[float, str] | None) -> str:
    """Return a [[model]] as TOML. Its settings were checked: each is a text, a number, a truth or a list of texts."""
    sections = {key: dict(value) for key, value in row.items() if key != "name"}
    note = ""
    if rate is not None and rate[0] and "learning_rate" not in sections.get("train", {}):
        sections.setdefault("train", {})["learning_rate"] = rate[0]
        note = f"# train.learning_rate: {rate[1]}\n"
    lines = [f"{key} = {{ {', '.join(f'{name} = {_toml(value)}' for name, value in held.items())} }}" for key, held in sections.items()]
    return "\n".join(["[[model]]", f"name = {_toml(row['name'])}", *lines]) + "\n" + note


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)  # a text's escapes, numbers and truths are the same in both


def _again(source: Path, folder: Path) -> ProvisionOutcome:
    """Return that the board is set up, after erasing the very secrets that it was made of where they still lie on the boot partition."""
    try:
        known = json.loads((folder / MARK).read_text())
        left = [name for name, digest in known.items() if "/" not in name and _digest(source / name) == digest]
    except (OSError, ValueError, AttributeError, TypeError):  # set up by hand; or the card with its boot partition is another one
        left = []
    erased = erase(source, left)
    return ProvisionOutcome(ProvisionStage.READY, *_who(folder), says=("set up already", *erased.says), error=erased.error)


def _who(folder: Path) -> tuple[str, str]:
    """Return device and fleet of a board that is set up; empty where its settings can't be read, which the agent itself will say."""
    try:
        loaded = reading.load(folder / FILE, environment={}, flags={})
        read_fleet(loaded.resolve(loaded.settings.device.fleet_key))
    except ConfigError:
        return "", ""
    return loaded.settings.device.name, loaded.settings.device.fleet


def _digest(path: Path) -> str:
    """Return the SHA-256 of a small file; empty where there is none that can be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        return hashlib.sha256(os.read(handle, 1 << 20)).hexdigest()
    except OSError:  # a folder of that name
        return ""
    finally:
        os.close(handle)


def _give(folder: Path, owner: tuple[int, int]) -> None:
    group = folder.lstat().st_gid
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, owner[0], owner[1] if path.lstat().st_gid == group else -1, follow_symlinks=False)  # a group that was chosen stays


def _flush(folder: Path) -> None:
    """Flush all of a folder: files and names, before the one step that makes it the board's."""
    for path in [*(one for one in folder.rglob("*") if not one.is_symlink()), folder]:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _clear(staging: Path) -> None:
    """Remove what a start that was killed left half made."""
    with disk.named(staging):
        if staging.is_dir() and not staging.is_symlink():
            shutil.rmtree(staging)
        elif os.path.lexists(staging):  # a pipe or a link of that name: nobody opens it
            staging.unlink()
