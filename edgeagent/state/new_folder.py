"""Makes a device's state folder, with its settings and keys beside it: all of it, or nothing."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from edgeagent.samples import sharing
from edgeagent.samples.spool import Spool
from edgeagent.settings.reading import Loaded
from edgeagent.system.database import create_database
from edgecommon import disk, files
from modelwire.errors import ConfigError
from modelwire.tflite import file as tflite_file
from modelwire.tflite.notes import notes_of
from modelwire.wire.keys import KeyKind, write_fleet, write_key
from modelwire.wire.signing import Fleet

from . import agent_tables
from .models import place_model


def create_folder(
    folder: Path, loaded: Loaded, text: str, *, models: Mapping[str, bytes], seed: bytes, fleet: Fleet, exact: bool = False,
    token: str = "", resume: bool = False, group: int | None = None,
) -> None:  # fmt: skip
    """Make settings, keys and state in `folder`, all or nothing. models: the base's file by name, in order; text: of the settings;
    seed: the private key's 32 bytes; exact: the device adopts nothing; token: the line that lets it in by itself, or empty; resume: it
    would like its last models back; group: of users who may append samples, too.

    Raises NotTrainable for a base that can't be trained, ConfigError when anything of the kind is there already.
    """
    device = loaded.settings.device
    claim = [device.claim] if token else []
    places = [device.key, *claim, device.fleet_key, device.dir, loaded.path.name]  # the settings last: with them the folder is complete
    staging = folder / ".edgeagent-init"
    for place in places:
        if Path(place).is_absolute() or ".." in Path(place).parts or len(Path(place).parts) != 1:
            raise ConfigError(reason=f"{place!r} is not a plain name beside the settings; move it after init and change the setting")
    _take_back(folder, staging, places)
    for place in places:
        if os.path.lexists(folder / place):
            where = f" --dir {shlex.quote(str(folder))}" if str(folder) != "." else ""
            fix = f"edgeagent status{where} says which board it is; edgeagent model add{where} gives it one more model"
            raise ConfigError(reason=f"{folder / place} is there already; init never overwrites", fix=fix)
    for name, base in models.items():
        tflite_file.check_trainable(base, model=name)
        notes_of(base, model=name)
    import shutil  # with all the packers that it knows: not in the memory of an agent that runs

    shutil.rmtree(staging, ignore_errors=True)  # of an init that was killed
    with disk.named(folder):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        staging.mkdir(mode=0o700)
    try:
        _fill(staging, loaded, text, models, seed, fleet, exact, token, resume, group)
        with disk.named(folder):
            for place in places:
                os.rename(staging / place, folder / place)
            files.flush_folder(folder)
    except BaseException:
        _take_back(folder, staging, places)  # half of it would only take room, and the next try begins anew
        shutil.rmtree(staging, ignore_errors=True)
        raise
    staging.rmdir()


def _fill(
    staging: Path, loaded: Loaded, text: str, models: Mapping[str, bytes], seed: bytes, fleet: Fleet, exact: bool, token: str,
    resume: bool, group: int | None,
) -> None:  # fmt: skip
    device = loaded.settings.device
    files.write(staging / device.key, f"{write_key(KeyKind.DEVICE_PRIVATE, seed)}\n".encode(), mode=0o600)
    if token:
        files.write(staging / device.claim, f"{token.strip()}\n".encode(), mode=0o600)
    _create_state(staging / device.dir, loaded, models, exact, resume)
    files.write(staging / device.fleet_key, f"{write_fleet(fleet)}\n".encode())
    files.write(staging / loaded.path.name, text.encode())  # last: with them all is there
    if group is not None:
        sharing.share(staging / device.dir, staging / loaded.path.name, group)


def _take_back(folder: Path, staging: Path, places: list[str]) -> None:
    """Undo the renames of an init that was killed among them; what it did not move itself stays where it is."""
    if not (staging / places[-1]).exists():
        return  # killed before the first rename, or not at all
    for place in places:
        if not os.path.lexists(staging / place) and os.path.lexists(folder / place):
            os.rename(folder / place, staging / place)


def _create_state(state: Path, loaded: Loaded, models: Mapping[str, bytes], exact: bool, resume: bool) -> None:
    import secrets  # with all of hmac

    state.mkdir(mode=0o750)  # the application reads the served file and appends samples: same user, or one of its group
    (state / "models").mkdir(mode=0o755)
    Spool.create(state)
    files.make_private_file(state / agent_tables.FILE)
    database = create_database(state / agent_tables.FILE, agent_tables.TABLES, agent_tables.RELEASE)
    with Spool(state) as spool, database.transaction():
        for key, value in (("state", secrets.token_bytes(16)), ("boot", 0), ("nudge", 0), ("time", 0), ("log", b""), ("fork", b"")):
            database.insert("meta", key=key, value=value)
        for name, base in models.items():
            place_model(state, database, spool, loaded, name, base, exact=exact, resume=resume)
    database.close()
    files.flush_folder(state / "models")
    files.flush_folder(state)
