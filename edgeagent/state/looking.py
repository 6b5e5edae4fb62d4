"""A device's state folder for whoever asks how it stands: as much of it as this user may see on this disk, and what may not be seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgeagent.board import fitting
from edgeagent.board.sensors import Sensors
from edgeagent.samples.spool import Spool
from edgeagent.settings.reading import Loaded
from edgeagent.settings.tree import Settings
from edgeagent.system.database import look_into, open_database
from edgeagent.system.notice import notice_of
from edgeagent.troubles import mending, naming, places
from edgecommon import access, disk, files
from edgecommon.disk import FileSystem
from edgecommon.sqlite import Database
from modelwire.errors import ConfigError, DiskUnwritable
from modelwire.wire import signing

from . import agent_tables
from .folder import LOCK
from .history import Board, KeylessBoard
from .keys import read_board, read_fleet
from .lineage import Lineage
from .trust import TrustStore

T = TypeVar("T")
SAMPLES, SPOOL_GONE = "the samples", "the spool of samples is not there; an agent makes an empty one when it starts"
AGENT, KEY = "whether an agent runs", "the device's key, and its fingerprint"


@dataclass(frozen=True, slots=True)
class Unseen:
    """What may not be seen, why, and whom to ask."""

    what: str
    why: str
    owner: str = ""  # the user who sees it, where it is a matter of users


@dataclass(frozen=True, slots=True)
class Glance:
    """What there is to see. None stands for what may not be seen; `unseen` says so."""

    settings: Settings
    board: Board
    trust: TrustStore | None
    database: Database | None
    spool: Spool | None
    lineages: Mapping[str, Lineage]  # none without the database
    disk: FileSystem | None
    agent: int | None  # process of the agent that holds the folder
    waits: dict[str, Any] | None  # message, hint and since, of an agent that waits for its disk
    unseen: tuple[Unseen, ...]

    @property
    def sees_agent(self) -> bool:
        """Whether it can be told if an agent runs."""
        return not any(one.what == AGENT for one in self.unseen)

    @property
    def keyed(self) -> bool:
        return not isinstance(self.board, KeylessBoard)


@contextmanager
def look_at(loaded: Loaded, *, open_key: bool = False) -> Iterator[Glance]:
    """Look at the state folder of these settings and change nothing in it, but for tables of an earlier release.

    open_key: also when others may read the private key.
    Raises MissingFile where there is none, StateDamaged, OldWire or ConfigError for one that can't be read by anyone.
    """
    unseen: list[Unseen] = []
    with naming.in_folder(loaded), ExitStack() as opened:
        places.check_places(loaded.state, agent_tables.FILE, (m.name for m in loaded.settings.models), LOCK)
        database = _database(loaded.state / agent_tables.FILE, unseen)
        if database is not None:
            opened.callback(database.close)
        board = _board(loaded, open_key, unseen)
        spool = _spool(loaded.state, unseen)
        if spool is not None:
            opened.callback(spool.close)
        (settings, _), lineages, trust = fitting.fitted(loaded.settings, Sensors()), dict[str, Lineage](), None
        if database is not None:
            trust = TrustStore(database, board.identity)
            for m in settings.models:
                lineages[m.name] = Lineage(database, board, m.name, loaded.state, history=settings.store.history)
        agent, waits = _agent(loaded.state / LOCK, unseen)
        yield Glance(settings, board, trust, database, spool, lineages, _disk(loaded.state), agent, waits, tuple(unseen))


def _database(path: Path, unseen: list[Unseen]) -> Database | None:
    naming.state_is_there(path.parent, path.name)
    mending.check_length(path)

    def looked() -> Database:
        database, missed = look_into(path, agent_tables.RELEASE)
        if missed:
            unseen.append(Unseen("the last of its versions", missed))
        return database

    def opened() -> Database:
        return open_database(path, agent_tables.RELEASE, migrate=agent_tables.migrate, older=agent_tables.older)

    return _tried("versions, outbox and what the centre says", path, unseen, opened, looked)


def _spool(state: Path, unseen: list[Unseen]) -> Spool | None:
    if Spool.missing(state) and os.access(state, os.X_OK):
        unseen.append(Unseen(SAMPLES, SPOOL_GONE))
        return None
    return _tried(SAMPLES, state, unseen, lambda: Spool(state), lambda: Spool(state, look=True))


def _tried(what: str, path: Path, unseen: list[Unseen], *ways: Callable[[], T]) -> T | None:
    """Return what the first way gives that works; None, noted as unseen, when this user or this disk lets none work."""
    said = ""
    for way in ways:
        try:
            return way()
        except (DiskUnwritable, PermissionError) as e:
            said = str(e)
        except ConfigError as e:
            if not _denied(e):
                raise
            said = e.message
    why, owner = access.shut(path)
    unseen.append(Unseen(what, why or said, owner))
    return None


def _denied(error: ConfigError) -> bool:
    """Return whether an error is about who may do what, and no fault of the file."""
    return type(error) is ConfigError or "may not be written" in error.message


def _board(loaded: Loaded, open_key: bool, unseen: list[Unseen]) -> Board:
    path = loaded.resolve(loaded.settings.device.key)
    try:
        return read_board(loaded, open_key=open_key)
    except ConfigError as e:
        if os.access(path, os.R_OK):
            raise  # it can be read, and is no key, or lies open
        why, owner = access.shut(path)
        unseen.append(Unseen(KEY, why or e.message, owner))
    device = loaded.settings.device
    import secrets  # with all of hmac

    anyone = signing.PrivateKey(secrets.token_bytes(signing.KEY_BYTES))
    return KeylessBoard(device.fleet, device.name, anyone, read_fleet(loaded.resolve(device.fleet_key)))


def _agent(lock: Path, unseen: list[Unseen]) -> tuple[int | None, dict[str, Any] | None]:
    try:
        os.stat(lock)
    except FileNotFoundError:
        return None, None
    except OSError:
        why, owner = access.shut(lock)
        unseen.append(Unseen(AGENT, why, owner))
        return None, None
    pid = files.holder(lock)
    try:
        return pid, notice_of(pid) if pid is not None else None
    except OSError:
        owner = access.name_of(lock.stat().st_uid)
        unseen.append(Unseen("what the agent waits for", f"process {pid} is another user's", owner))
        return pid, None


def _disk(state: Path) -> FileSystem | None:
    try:
        return disk.file_system_of(state)
    except OSError:
        return None
