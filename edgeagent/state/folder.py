"""A device's state folder: made once, then opened by one agent at a time, put in order after a kill, and read by anyone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeagent.samples.spool import Spool
from edgeagent.settings.reading import Loaded
from edgeagent.settings.tree import Settings
from edgeagent.system.database import create_database, open_database
from edgecommon import files
from edgecommon.sqlite import Database
from modelwire.errors import ConfigError, Malformed, MissingFile
from modelwire.lattice.snap import no_residual
from modelwire.tflite import file as tflite_file
from modelwire.update.manifest import manifest_of
from modelwire.wire import ed25519, signing

from . import agent_tables as schema
from .history import Board
from .lineage import Lineage
from .slots import ModelStore

LOCK = "lock"
KEY_MAX = 4096  # bytes of a key file


@dataclass(frozen=True, slots=True)
class Device:
    """An opened state folder."""

    settings: Settings
    board: Board
    state: bytes  # 16 random bytes made with the folder
    database: Database
    spool: Spool
    lineages: Mapping[str, Lineage]  # by model, in the order of the settings
    path: Path  # of the settings
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
def opened(loaded: Loaded, *, alone: bool) -> Iterator[Device]:
    """Open the state folder of these settings. alone: take the lock and put the folder in order; else only read.

    Raises MissingFile, StateBusy, StateDamaged or ConfigError.
    """
    if not (loaded.state / schema.FILE).exists():
        raise MissingFile(path=loaded.state, what="the agent's state folder")
    if not alone:
        with _open(loaded, alone) as device:
            yield device
        return
    with files.locked(loaded.state / LOCK), _open(loaded, alone) as device:
        yield device


@contextmanager
def _open(loaded: Loaded, alone: bool) -> Iterator[Device]:
    settings, board = loaded.settings, read_board(loaded)
    database = open_database(loaded.state / schema.FILE, schema.RELEASE, migrate=schema.migrate)
    try:
        lineages = {
            m.name: Lineage(database, board, m.name, loaded.state, history=settings.store.history) for m in settings.models
        }
        with Spool(loaded.state) as spool:
            swept: list[str] = []
            if alone:
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
            yield Device(settings, board, state, database, spool, lineages, loaded.path, tuple(swept))
    finally:
        database.close()


def read_board(loaded: Loaded) -> Board:
    """Return names and keys. Raises MissingFile or ConfigError."""
    device = loaded.settings.device
    ed25519.use_loaded()  # a board has no room for a second OpenSSL
    key = signing.PrivateKey(read_key(loaded.resolve(device.key), "the device's private key"))
    return Board(device.fleet, device.name, key, read_key(loaded.resolve(device.fleet_key), "the fleet's public key"))


def read_key(path: Path, what: str) -> bytes:
    """Return the 32 bytes of a key file. Raises MissingFile or ConfigError."""
    try:
        with path.open("rb") as f:
            return signing.read_key(f.read(KEY_MAX).decode("ascii"), what)
    except FileNotFoundError:
        raise MissingFile(path=path, what=what) from None
    except (OSError, UnicodeDecodeError, Malformed) as e:
        raise ConfigError(reason=f"{path}: {e}") from None


def create(
    folder: Path, loaded: Loaded, text: str, *, models: Mapping[str, bytes], seed: bytes, fleet_key: bytes, exact: bool = False
) -> None:
    """Make settings, keys and state in `folder`, all or nothing. models: the base's file by name, in order; text: of the settings;
    seed: the private key's 32 bytes; exact: the device adopts nothing.

    Raises NotTrainable for a base that can't be trained, ConfigError when anything of the kind is there already.
    """
    device = loaded.settings.device
    places = [device.key, device.fleet_key, device.dir, loaded.path.name]  # the settings last: with them the folder is complete
    staging = folder / ".edgeagent-init"
    for place in places:
        if Path(place).is_absolute() or ".." in Path(place).parts or len(Path(place).parts) != 1:
            raise ConfigError(reason=f"{place!r} is not a plain name beside the settings; move it after init and change the setting")
    _take_back(folder, staging, places)
    for place in places:
        if os.path.lexists(folder / place):
            raise ConfigError(reason=f"{folder / place} is there already; init never overwrites")
    for name, base in models.items():
        tflite_file.check_trainable(base, model=name)
    folder.mkdir(parents=True, exist_ok=True)
    import shutil  # with all the packers that it knows: not in the memory of an agent that runs

    shutil.rmtree(staging, ignore_errors=True)  # of an init that was killed
    staging.mkdir(mode=0o700)
    files.write(staging / device.key, f"{seed.hex()}\n".encode(), mode=0o600)
    _create_state(staging / device.dir, loaded, models, exact)
    files.write(staging / device.fleet_key, f"{fleet_key.hex()}\n".encode())
    files.write(staging / loaded.path.name, text.encode())  # last: with them all is there
    for place in places:
        os.rename(staging / place, folder / place)
    files.flush_folder(folder)
    staging.rmdir()


def _take_back(folder: Path, staging: Path, places: list[str]) -> None:
    """Undo the renames of an init that was killed among them; what it did not move itself stays where it is."""
    if not (staging / places[-1]).exists():
        return  # killed before the first rename, or not at all
    for place in places:
        if not os.path.lexists(staging / place) and os.path.lexists(folder / place):
            os.rename(folder / place, staging / place)


def _create_state(state: Path, loaded: Loaded, models: Mapping[str, bytes], exact: bool) -> None:
    import secrets  # with all of hmac

    state.mkdir(mode=0o750)  # the application reads the served file and appends samples: same user, or same group
    (state / "models").mkdir()
    Spool.create(state)
    database = create_database(state / schema.FILE, schema.TABLES, schema.RELEASE)
    with Spool(state) as spool, database.transaction():
        for key, value in (("state", secrets.token_bytes(16)), ("boot", 0), ("nudge", 0)):
            database.insert("meta", key=key, value=value)
        for name, base in models.items():
            manifest, contract = manifest_of(base, exact=exact), tflite_file.contract(base, model=name)
            _, written = ModelStore.create(state / "models" / name, base, manifest, no_residual(manifest))
            database.insert(
                "model", name=name, manifest=manifest.encode(), base_commit=manifest.commit, head_commit=manifest.commit,
                slot=written.slot, file_sha256=written.file_sha256, private_sha256=written.private_sha256,
            )  # fmt: skip
            bounds = loaded.settings.spool
            spool.register(
                name, contract.x_shape, contract.y_shape, max_samples=bounds.max_samples, max_bytes=bounds.max_bytes,
                channels=loaded.settings.model(name).card.channels, codes=contract.codes,
            )  # fmt: skip
    database.close()
    files.flush_folder(state / "models")
    files.flush_folder(state)
