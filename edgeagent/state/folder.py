"""A device's state folder, opened: by one agent at a time, which puts it in order after a kill, and read by anyone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgeagent.board import fitting
from edgeagent.board.sensors import Sensors
from edgeagent.samples import sharing
from edgeagent.samples.spool import Spool
from edgeagent.settings.reading import Loaded
from edgeagent.settings.tree import Settings
from edgeagent.system.clock import Clock
from edgeagent.system.database import open_database
from edgeagent.troubles import mending, naming, noted, places
from edgecommon import files
from edgecommon.sqlite import Database, Unnamed
from modelwire.errors import ModelWireError, StateDamaged
from modelwire.tflite.file import contract

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
    lowered: str = ""  # why its budget of memory is a smaller one than the settings say; empty: it is as they say

    def count_boot(self) -> int:
        """Return how often an agent was started on this folder, this start included."""
        with self.database.transaction():
            self.database.run("UPDATE meta SET value=value+1 WHERE key='boot'")
            return int(self.database.one("SELECT value FROM meta WHERE key='boot'")[0])

    def make_good(self) -> None:
        """Let files and spool follow each model's head: a kill, or a full disk, may have come behind the transaction that moved it."""
        for name, lineage in self.lineages.items():
            lineage.serve()
            self.spool.cards.carded(name, lineage.head().carded_id)

    def make_room(self) -> None:
        """Give back the room of SQLite's logs, as far as others who read let it: they grow to megabytes before they begin anew."""
        for database in (self.database, self.spool.database):
            with suppress(ModelWireError):
                database.shorten_log()

    def renew_state(self) -> None:
        """Make this another folder to the centre: it grants its models new epochs, in which what they serve goes on."""
        import secrets  # with all of hmac

        with self.database.transaction():
            self.database.run("UPDATE meta SET value=? WHERE key='state'", secrets.token_bytes(16))
            for lineage in self.lineages.values():
                lineage.leave_epoch()

    def note_ousted(self, why: str) -> None:
        """Note that the running agent stands back for another client of its name at the broker; empty when it does no more."""
        if why != ousted(self.database):
            with self.database.transaction():
                self.database.run("INSERT OR REPLACE INTO meta VALUES ('ousted', ?)", why)

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
    with naming.in_folder(loaded):
        naming.state_is_there(loaded.state, agent_tables.FILE)
        places.check_places(loaded.state, agent_tables.FILE, (m.name for m in loaded.settings.models), LOCK)
        with files.locked(loaded.state / LOCK) if alone else nullcontext(), _open(loaded, alone, open_key) as folder:
            yield folder


@contextmanager
def _open(loaded: Loaded, alone: bool, open_key: bool) -> Iterator[DeviceFolder]:
    settings, lowered = fitting.fitted(loaded.settings, Sensors())
    mending.check_length(loaded.state / agent_tables.FILE)
    database = open_database(
        loaded.state / agent_tables.FILE, agent_tables.RELEASE, migrate=agent_tables.migrate, older=agent_tables.older
    )
    try:
        board = read_board(loaded, open_key=open_key)  # an old folder is refused before its old key is
        lineages = {
            m.name: Lineage(database, board, m.name, loaded.state, history=settings.store.history) for m in settings.models
        }
        swept: list[str] = []
        if alone:
            database.make_durable()
            sharing.unstick(sharing.folder_of(loaded.state))
            if text := mending.check_pages(database):
                noted.note(database, "index-damaged", text, Clock().wall())
            _sound_spool(loaded, lineages, database)
        with Spool(loaded.state) as spool:
            if alone:
                _shut(database.path)
                for name, lineage in lineages.items():
                    swept += [f"{name}/{path}" for path in _sound_model(lineage, database)]
                    shape = spool.shape(name)
                    if not lineage.journal.exists():  # a kill came before the first step of a round, or after its end
                        spool.release(name)
                    register = partial(
                        spool.register, name, shape.x, shape.y, max_samples=settings.spool.max_samples, max_bytes=settings.spool.max_bytes,
                        channels=settings.model(name).card.channels,
                    )  # fmt: skip
                    try:
                        register()
                    except StateDamaged:  # others may write there: without their rows it may be well
                        with suppress(StateDamaged):
                            sweep_spool(spool, lineage)
                        register()
                    spool.cards.carded(name, lineage.head().carded_id)  # a kill may have come between the two databases
            state = database.one("SELECT value FROM meta WHERE key='state'")[0]
            trust = TrustStore(database, board.identity)
            claim = read_claim(loaded, board) if alone else None
            yield DeviceFolder(settings, board, state, trust, database, spool, lineages, loaded.path, claim, tuple(swept), lowered)
    finally:
        database.close()


def sweep_spool(spool: Spool, lineage: Lineage) -> int:
    """Drop from a model's samples what is none, and return how many rows that were.

    Raises StateDamaged when the spool says that they look otherwise than the model's file wants them: none would be left.
    """
    shape = spool.shape(lineage.name)
    with files.mapped(lineage.store.base_file) as data:
        like = contract(data, model=lineage.name)
    if (shape.x, shape.y, shape.codes) != (tuple(like.x_shape), tuple(like.y_shape), like.codes):
        path = spool.database.path
        error = StateDamaged(path=path, reason=f"it holds another shape of {lineage.name}'s samples than the model's file")
        error.hint = f"see who may write to {path.parent}; then {StateDamaged.hint}"
        raise error
    return spool.sweep(lineage.name, after=lineage.head().trained_id)


def _sound_model(lineage: Lineage, database: Database) -> list[str]:
    """Put a model's files in order, and its outbox; return what was swept away. Raises StateDamaged, with the name of the trouble."""
    if text := lineage.store.mend_served():
        noted.note(database, "served-gone", text, Clock().wall())
    for trouble, text in lineage.mend_beside():
        noted.note(database, trouble, text, Clock().wall())
    try:
        swept = lineage.repair()
    except StateDamaged as e:
        if lineage.sent_unknown() and not str(e.facts.get("path", "")).endswith("base.tflite"):
            naming.named(e, "database-older")
        raise
    if lineage.sent_unknown():
        noted.note(database, "database-older", f"{lineage.name}: it knows nothing of the last update that left", Clock().wall())
    if text := lineage.mend_outbox(int(Clock().wall())):
        noted.note(database, "outbox-damaged", text, Clock().wall())
    return swept


def _sound_spool(loaded: Loaded, lineages: Mapping[str, Lineage], database: Database) -> None:
    """Make an empty spool where there is none, or none that can be read: a group may write there, and the models are whole without it."""
    see = f"see who may write to {sharing.folder_of(loaded.state)}"
    if Spool.missing(loaded.state):
        _make_spool(loaded, lineages)
        text = f"the spool of samples was gone, and its samples with it; an empty one was made: {see}"
        noted.note(database, "samples-gone", text, Clock().wall())
        return
    try:
        with Spool(loaded.state) as spool:
            _check_spool(spool)
    except StateDamaged as e:
        if naming.name_of(e):  # another release's, or no file: nothing that was kept there goes
            raise
        try:
            aside = mending.put_aside(Path(str(e.facts["path"])))
        except OSError:
            raise e from None
        _make_spool(loaded, lineages)
        text = f"the spool of samples can't be read ({e.facts['reason']}); it was put aside as {aside}, and an empty one was made: {see}"
        noted.note(database, "samples-damaged", text, Clock().wall())


def _check_spool(spool: Spool) -> None:
    try:
        spool.check()
    except Unnamed as e:  # others may write there: tables that take for ever to look through, or that are none of ours
        raise StateDamaged(path=spool.database.path, reason=str(e)) from None


def _make_spool(loaded: Loaded, lineages: Mapping[str, Lineage]) -> None:
    """Make an empty spool in the place of one that is gone."""
    bounds, heads = loaded.settings.spool, [lineage.head() for lineage in lineages.values()]
    Spool.create(loaded.state, after=max(max(head.trained_id, head.carded_id, head.looked_id) for head in heads))
    with Spool(loaded.state) as spool:
        for name, lineage in lineages.items():
            like = contract(lineage.store.base(), model=name)
            spool.register(name, like.x_shape, like.y_shape, max_samples=bounds.max_samples, max_bytes=bounds.max_bytes, codes=like.codes)


def _shut(path: Path) -> None:
    """Let nobody but its owner look into the agent's database, as folders of earlier releases did. Another's file stays as it is."""
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        with suppress(OSError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)


def ousted(database: Database) -> str:
    """Return what `DeviceFolder.note_ousted` noted."""
    row = database.maybe("SELECT value FROM meta WHERE key='ousted'")
    return "" if row is None else str(row[0])
