"""Models that come into a state folder and go from it. A kill between any two steps leaves a folder that opens, and the command goes on."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeagent.samples.spool import Spool
from edgeagent.settings.reading import Loaded
from edgeagent.system.database import open_database
from edgecommon import files
from edgecommon.sqlite import Database
from modelwire.errors import BadArgument, MissingFile, WouldBeLost
from modelwire.lattice.snap import no_residual
from modelwire.tflite import file as tflite_file
from modelwire.tflite.notes import notes_of
from modelwire.update.manifest import manifest_of

from . import agent_tables
from .folder import LOCK
from .history import STATE_OF
from .outbox import LIVE, Outbox
from .outcome import said as listed
from .slots import ModelStore

_TABLES = (  # whose rows are of one model
    "outbox", "version", "answer", "taking", "resume", "waiting", "plan", "figure", "deployment", "desired"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model as the settings and the state folder know it."""

    name: str
    in_settings: bool
    version: int | None  # None: the state folder does not hold it
    base: bytes = b""
    samples: int = 0
    waiting: tuple[int, ...] = ()  # versions whose bytes are here


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of the settings' text. Who changes them meanwhile keeps what was written."""

    before: str
    after: str


def place_model(
    state: Path, database: Database, spool: Spool, loaded: Loaded, name: str, base: bytes, *, exact: bool, resume: bool
) -> None:
    """Put a new model into an opened state folder: its files, what its samples look like, and last its row. Raises NotTrainable."""
    manifest, contract = manifest_of(base, exact=exact), tflite_file.contract(base, model=name)
    _, written = ModelStore.create(state / "models" / name, base, manifest, no_residual(manifest))
    files.flush_folder(state / "models")
    bounds = loaded.settings.spool
    channels = next((m.card.channels for m in loaded.settings.models if m.name == name), loaded.settings.card.channels)
    spool.register(
        name, contract.x_shape, contract.y_shape, max_samples=bounds.max_samples, max_bytes=bounds.max_bytes,
        channels=channels, codes=contract.codes,
    )  # fmt: skip
    with database.transaction():
        database.insert(
            "model", name=name, manifest=manifest.encode(), base_commit=manifest.commit, first_commit=manifest.commit,
            head_commit=manifest.commit, slot=written.slot, file_sha256=written.file_sha256, private_sha256=written.private_sha256,
        )  # fmt: skip
        if resume:
            database.insert("resume", model=name)


def known_models(loaded: Loaded) -> list[KnownModel]:
    """Return the models of the settings, in their order, and then those that only the state folder holds."""
    with _opened(loaded) as (database, spool):
        return _known(loaded, database, spool)


def add_model(loaded: Loaded, edit: Edit, name: str, base: bytes, *, exact: bool, resume: bool) -> int:
    """Add a model to a state folder, and then to the settings; return the version that it stands at.

    One that the folder holds already, on the same base, is only named in the settings again.
    Raises StateBusy, NotTrainable, or BadArgument for a name that is taken.
    """
    tflite_file.check_trainable(base, model=name)
    notes_of(base, model=name)
    _require_state(loaded)
    with files.locked(loaded.state / LOCK), _opened(loaded) as (database, spool):
        _require_unchanged(loaded.path, edit)
        known = next((m for m in _known(loaded, database, spool) if m.name == name), None)
        version = known.version if known else None
        if known is not None and version is not None:
            _require_same(known, manifest_of(base, exact=exact).commit)
        else:
            _sweep(loaded.state / "models" / name)
            spool.database.run("PRAGMA synchronous = FULL")  # the row that follows must not be alone after a power cut
            spool.forget(name)
            place_model(loaded.state, database, spool, loaded, name, base, exact=exact, resume=resume)
            _hand_over(loaded.state, name)
        _write_settings(loaded.path, edit.after)
    return version or 0


def check_removable(loaded: Loaded, name: str, *, drop_unsent: bool, drop_samples: bool) -> KnownModel:
    """Return the model to be removed. Raises BadArgument for one that is not here or is the only one, WouldBeLost for what would go."""
    every = known_models(loaded)
    known = next((m for m in every if m.name == name), None)
    if known is None:
        raise BadArgument(reason=f"there is no model {name!r} on this device", fix="edgeagent model list")
    if known.in_settings and len([m for m in every if m.in_settings]) == 1:
        fix = "add the other one first: edgeagent model add NAME=FILE"
        raise BadArgument(reason=f"{name} is this device's only model, and an agent has one at least", fix=fix)
    if known.waiting and not drop_unsent:
        what = f"{listed(known.waiting)} of {name}, which the centre has not verified, would be lost"
        raise WouldBeLost(what=what, fix="edgeagent publish first, and wait for it; or say --drop-unsent")
    if known.samples and not drop_samples:
        raise WouldBeLost(what=f"the {known.samples} samples of {name} would be lost", fix="say --yes to let them go")
    return known


def remove_model(loaded: Loaded, edit: Edit, name: str, *, drop_unsent: bool, drop_samples: bool) -> KnownModel:
    """Take a model out of the settings, and then out of the state folder; return what it was.

    The centre keeps its history. Added again, it is a new one: it asks for another epoch. Raises as `check_removable`, or StateBusy.
    """
    _require_state(loaded)
    with files.locked(loaded.state / LOCK):
        known = check_removable(loaded, name, drop_unsent=drop_unsent, drop_samples=drop_samples)
        _require_unchanged(loaded.path, edit)
        _write_settings(loaded.path, edit.after)
        with _opened(loaded) as (database, spool):
            with database.transaction():
                for table in _TABLES:
                    database.run(f"DELETE FROM {table} WHERE model=?", name)
                database.run("DELETE FROM model WHERE name=?", name)
                database.run("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", STATE_OF + name, os.urandom(16))
            spool.forget(name)
        _sweep(loaded.state / "models" / name)
        files.flush_folder(loaded.state / "models")
    return known


def _known(loaded: Loaded, database: Database, spool: Spool) -> list[KnownModel]:
    rows = {r["name"]: r for r in database.all("SELECT name, base_commit, head_version FROM model ORDER BY name")}
    named = [m.name for m in loaded.settings.models]
    folder = loaded.state / "models"
    left = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    out = []
    for name in dict.fromkeys([*named, *rows, *left]):
        row, waiting = rows.get(name), Outbox(database, name).waiting(*LIVE)
        version, base = (row["head_version"], row["base_commit"]) if row is not None else (None, b"")
        out.append(KnownModel(name, name in named, version, base, spool.count(name), tuple(w.version for w in waiting)))
    return out


@contextmanager
def _opened(loaded: Loaded) -> Iterator[tuple[Database, Spool]]:
    """Open the two databases of a state folder whose models need not be those of the settings."""
    _require_state(loaded)
    database = open_database(loaded.state / agent_tables.FILE, agent_tables.RELEASE, migrate=agent_tables.migrate, older=agent_tables.older)
    try:
        with Spool(loaded.state) as spool:
            yield database, spool
    finally:
        database.close()


def _require_state(loaded: Loaded) -> None:
    if not (loaded.state / agent_tables.FILE).exists():
        raise MissingFile(path=loaded.state, what="the agent's state folder")


def _require_same(known: KnownModel, base: bytes) -> None:
    if known.in_settings:
        raise BadArgument(reason=f"{known.name} is a model of this device already", fix="edgeagent model list; or give it another name")
    if known.base != base:
        reason = f"the state folder still holds a model {known.name}, on another base, that the settings don't name"
        raise BadArgument(reason=reason, fix=f"edgeagent model remove {known.name}, or another name")


def _require_unchanged(path: Path, edit: Edit) -> None:
    if path.read_bytes() != edit.before.encode():
        raise BadArgument(reason=f"{path} was changed by somebody else meanwhile, and nothing was done", fix="run this again")


def _write_settings(path: Path, text: str) -> None:
    """Put the settings in place as their owner and mode have them, where a link leads to them too."""
    real = path.resolve()
    found = real.stat()
    if real.read_bytes() == text.encode():
        return
    files.write(real, text.encode(), mode=stat.S_IMODE(found.st_mode))
    with suppress(PermissionError):  # the owner is this user then, and the group one that it is not of
        os.chown(real, found.st_uid if os.geteuid() == 0 else -1, found.st_gid)
    os.chmod(real, stat.S_IMODE(found.st_mode))


def _hand_over(state: Path, name: str) -> None:
    """Give what root has just made to the state folder's owner: the agent runs as that one."""
    owner = state.stat()
    if os.geteuid() == 0 != owner.st_uid:
        folder = state / "models" / name
        for path in (state / LOCK, folder, *folder.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _sweep(folder: Path) -> None:
    import shutil  # with all the packers that it knows: not in the memory of an agent that runs

    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
