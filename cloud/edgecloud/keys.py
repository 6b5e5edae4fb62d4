"""The fleet's keys as files beside the registry: four that are secret, and fleet.pub, which every board is given."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgecommon.files import NotPrivateError, read_secret, write_named
from modelwire.errors import BadArgument, MissingFile
from modelwire.tensors import ALL
from modelwire.wire import records, trust
from modelwire.wire.keys import TEXT_MAX, KeyKind, read_key, write_fleet, write_key
from modelwire.wire.records import Trust
from modelwire.wire.signing import FLEET_ID_BYTES, KEY_BYTES, Fleet, PrivateKey, Role

ROOT, RECEIPT, COMMAND, DIRECTOR, PUBLIC = "root.key", "receipt.key", "command.key", "director.key", "fleet.pub"
SECRET = {  # and their kinds
    ROOT: KeyKind.ROOT_PRIVATE, RECEIPT: KeyKind.RECEIPT_PRIVATE, COMMAND: KeyKind.COMMAND_PRIVATE, DIRECTOR: KeyKind.DIRECTOR_PRIVATE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FleetKeys:
    """All keys of a fleet, as `edgecloud init` makes them."""

    fleet: Fleet
    root: PrivateKey
    receipt: PrivateKey
    command: PrivateKey
    director: PrivateKey

    def trust(self, fleet: str, now: int) -> bytes:
        """Return the first trust record: these keys speak from now on, without an end. fleet: its name."""
        keys = (self.root.public, self.receipt.public, self.command.public, self.director.public)
        return records.encode(Trust(fleet, ALL, ALL, now, 1, now, 0, 0, *keys), self.root, self.fleet.id)


@contextmanager
def made_keys(folder: Path) -> Iterator[FleetKeys]:
    """Give new keys of a fleet, written into a folder: all of them, or none when what is done with them fails.

    Raises BadArgument when one of the files is there already: it is neither overwritten nor used.
    """
    there = [name for name in (*SECRET, PUBLIC) if (folder / name).exists()]
    if there:
        raise BadArgument(
            reason=f"{', '.join(str(folder / name) for name in there)}: there already, and keys are never overwritten",
            fix="keys of another fleet belong to it: move them away, or make the registry in another folder with --db",
        )
    seeds = {name: secrets.token_bytes(KEY_BYTES) for name in SECRET}
    private = {name: PrivateKey(seed) for name, seed in seeds.items()}
    fleet = Fleet(private[ROOT].public, secrets.token_bytes(FLEET_ID_BYTES))
    written: list[Path] = []
    try:
        for name, kind in SECRET.items():
            write_named(folder / name, (write_key(kind, seeds[name]) + "\n").encode(), mode=0o600, replace=False)
            written.append(folder / name)
        write_named(folder / PUBLIC, (write_fleet(fleet) + "\n").encode(), mode=0o644, replace=False)
        written.append(folder / PUBLIC)
        yield FleetKeys(fleet, private[ROOT], private[RECEIPT], private[COMMAND], private[DIRECTOR])
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def load_key(path: Path, kind: KeyKind) -> PrivateKey:
    """Return the private key of a kind in a file. Raises WrongKeyKind, Malformed, BadArgument when others than its owner may read it."""
    try:
        data, fault = read_secret(path, TEXT_MAX)
        text = data.decode("ascii")
    except FileNotFoundError:
        raise MissingFile(path=path, what=kind.title) from None
    except NotPrivateError as error:
        raise BadArgument(reason=str(error), fix=error.fix) from None
    except (UnicodeDecodeError, OSError) as error:
        raise BadArgument(reason=f"{path}: {error}", fix=f"check who owns it: ls -l {path}") from None
    key = PrivateKey(read_key(text, kind, str(path)))  # first: of a key that every board has, the mode is not the matter
    if fault is not None:
        raise BadArgument(reason=str(fault), fix=fault.fix)
    return key


def require_speaks(key: PrivateKey, role: Role, held: trust.Trusted, where: object) -> None:
    """Raise BadArgument unless the newest trust record names this key for a role, receipt or command."""
    newest = held.newest
    named = b"" if newest is None else newest.receipt if role is Role.RECEIPT else newest.command
    if key.public not in (named[i : i + KEY_BYTES] for i in range(0, len(named), KEY_BYTES)):
        raise BadArgument(
            reason=f"{where} is none of the {role.name.lower()} keys that the fleet's trust record {held.number} names",
            fix="name the right one with --key",
        )


def trusted(fleet: Fleet, given: Sequence[bytes]) -> trust.Trusted:
    """Return what a fleet's trust records come to, oldest first. Raises BadSignature, WrongFleet or Malformed where one does not follow."""
    out = trust.Trusted(fleet)
    for record in given:
        out = out.take(records.parse(record))
    return out


def read_device_key(text: str) -> bytes:
    """Return a device's public key from edge-device-pub:..., or from a file that holds that line. Raises WrongKeyKind or Malformed."""
    path = Path(text)
    if os.sep not in text and path.suffix != ".pub" and ":" in text:
        return read_key(text, KeyKind.DEVICE, "the device's key")
    if not path.is_file():
        if os.sep in text or path.suffix == ".pub":
            raise MissingFile(path=path, what=KeyKind.DEVICE.title)
        return read_key(text, KeyKind.DEVICE, "the device's key")
    with path.open("rb") as file:
        return read_key(file.read(TEXT_MAX).decode("ascii", errors="replace"), KeyKind.DEVICE, str(path))
