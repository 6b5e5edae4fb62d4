"""A device's state folder, opened: by one agent at a time, which puts it in order after a kill, and read by anyone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeagent.samples import spool_tables
from edgeagent.samples.spool import Spool
from edgeagent.settings.reading import Loaded
from edgeagent.settings.tree import Settings
from edgeagent.system.database import open_database
from edgecommon import files
from edgecommon.sqlite import Database
from modelwire.errors import MissingFile

from . import agent_tables
from .claim import BoardClaim, read_claim
from .history import Board
from .keys import read_board
from .lineage import Lineage
from .trust import TrustStore

LOCK = "lock"


@dataclass(frozen=True, slots=True)
class DeviceFolder:
    """An opened state folder."""

    settings: Settings
    board: Board
    state: bytes  # 16 random bytes made with the folder
    trust: TrustStore
    database: Database
    spool: Spool
    lineages: Mapping[str, Lineage]  # by model, in the order of the settings
    path: Path  # of the settings
    claim: BoardClaim | None  # for who holds the folder alone
    swept: tuple[str, ...]  # what was tidied away at opening: the version before the head, and what a kill had left

    def count_boot(self) -> int:
        """Return how often an agent was started on this folder, this start included."""
        with self.database.transaction():
            self.database.run("UPDATE meta SET value=value+1 WHERE key='boot'")
            return int(self.database.one("SELECT value FROM meta WHERE key='boot'")[0])

    def nudges(self) -> int:
        """Return a number that rises when somebody asks the running agent to send again."""
        return int(self.database.one("SELECT value FROM meta WHERE key='nudge'")[0])

    def nudge(self) -> None:
        with self.database.transaction():
            self.database.run("UPDATE meta SET value=value+1 WHERE key='nudge'")


@contextmanager
def open_folder(loaded: Loaded, *, alone: bool, open_key: bool = False) -> Iterator[DeviceFolder]:
    """Open the state folder of these settings. alone: take the lock and put the folder in order; else only read.

    open_key: also when others may read the private key. Raises MissingFile, StateBusy, StateDamaged, OldWire or ConfigError.
    """
    if not (loaded.state / agent_tables.FILE).exists():
        raise MissingFile(path=loaded.state, what="the agent's state folder")
    with files.locked(loaded.state / LOCK) if alone else nullcontext(), _open(loaded, alone, open_key) as folder:
        yield folder


@contextmanager
def _open(loaded: Loaded, alone: bool, open_key: bool) -> Iterator[DeviceFolder]:
    settings = loaded.settings
    database = open_database(
        loaded.state / agent_tables.FILE, agent_tables.RELEASE, migrate=agent_tables.migrate, older=agent_tables.older
    )
    try:
        board = read_board(loaded, open_key=open_key)  # an old folder is refused before its old key is
        lineages = {
            m.name: Lineage(database, board, m.name, loaded.state, history=settings.store.history) for m in settings.models
        }
        if not (loaded.state / spool_tables.FOLDER / spool_tables.FILE).exists():
            raise MissingFile(path=loaded.state / spool_tables.FOLDER / spool_tables.FILE, what="the spool of samples")
        with Spool(loaded.state) as spool:
            swept: list[str] = []
            if alone:
                _shut(database.path)
                for name, lineage in lineages.items():
                    swept += [f"{name}/{path}" for path in lineage.repair()]
                    shape = spool.shape(name)
                    if not lineage.journal.exists():  # a kill came before the first step of a round, or after its end
                        spool.release(name)
                    spool.register(
                        name, shape.x, shape.y, max_samples=settings.spool.max_samples, max_bytes=settings.spool.max_bytes,
                        channels=settings.model(name).card.channels,
                    )  # fmt: skip
                    spool.cards.carded(name, lineage.head().carded_id)  # a kill may have come between the two databases
            state = database.one("SELECT value FROM meta WHERE key='state'")[0]
            trust = TrustStore(database, board.identity)
            claim = read_claim(loaded, board) if alone else None
            yield DeviceFolder(settings, board, state, trust, database, spool, lineages, loaded.path, claim, tuple(swept))
    finally:
        database.close()


def _shut(path: Path) -> None:
    """Let nobody but its owner look into the agent's database, as folders of earlier releases did. Another's file stays as it is."""
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        with suppress(OSError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)
