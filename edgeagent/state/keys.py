"""Who this device is: its names, its private key, and what it was given of its fleet, read from their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeagent.settings.reading import Loaded
from edgecommon import files
from modelwire.errors import BadArgument, ConfigError, Malformed, MissingFile
from modelwire.wire import ed25519, keys, signing
from modelwire.wire.keys import KeyKind
from modelwire.wire.signing import Fleet

from .history import Board

WHENCE = {  # where the right one is
    KeyKind.FLEET: "take the centre's fleet.pub, which edgecloud init wrote",
    KeyKind.DEVICE_PRIVATE: "take this device's own device.key, which edgeagent init wrote",
}

_Reader = Callable[[Path, int], tuple[bytes, files.NotPrivateError | None]]


def read_board(loaded: Loaded, *, open_key: bool = False) -> Board:
    """Return names and keys. open_key: take a private key that others may read, too.

    Raises MissingFile, WrongKeyKind, ConfigError, or BadArgument for such a key.
    """
    device = loaded.settings.device
    ed25519.use_loaded()  # a board has no room for a second OpenSSL
    key = signing.PrivateKey(read_private(loaded.resolve(device.key), open_key=open_key))
    return Board(device.fleet, device.name, key, read_fleet(loaded.resolve(device.fleet_key)))


def read_private(path: Path, *, open_key: bool = False) -> bytes:
    """Return the 32 bytes of a device's private key in its file. open_key: also of one that others may read.

    Raises MissingFile, WrongKeyKind, ConfigError, or BadArgument when others than its owner may read it.
    """
    with told_whence(WHENCE[KeyKind.DEVICE_PRIVATE]):
        text, fault = _text(path, KeyKind.DEVICE_PRIVATE, files.read_secret)
        key = keys.read_key(text, KeyKind.DEVICE_PRIVATE, str(path))  # first: of a key that every board has, the mode is not the matter
    if fault is not None and not open_key:
        raise BadArgument(reason=str(fault), fix=fault.fix)
    return key


def read_fleet(path: Path) -> Fleet:
    """Return the root key and the id of the fleet in the file. Raises MissingFile, WrongKeyKind or ConfigError."""
    with told_whence(WHENCE[KeyKind.FLEET]):
        return keys.read_fleet(_text(path, KeyKind.FLEET, _read)[0], str(path))


@contextmanager
def told_whence(fix: str) -> Iterator[None]:
    """Let the errors of what is no such key say where the right one is."""
    try:
        yield
    except Malformed as e:
        raise ConfigError(reason=e.message, fix=fix) from None
    except ConfigError as e:
        e.facts.setdefault("fix", fix)
        raise


def _read(path: Path, most: int) -> tuple[bytes, None]:
    with files.open_regular(path) as f:
        return f.read(most), None


def _text(path: Path, kind: KeyKind, read: _Reader) -> tuple[str, files.NotPrivateError | None]:
    try:
        data, fault = read(path, keys.TEXT_MAX)
        return data.decode("ascii"), fault
    except FileNotFoundError:
        raise MissingFile(path=path, what=kind.title) from None
    except files.NotPrivateError as e:
        raise BadArgument(reason=str(e), fix=e.fix) from None
    except OSError as e:
        import shlex  # for who reads it

        raise ConfigError(reason=f"{path}: {e.strerror}", fix=f"see what stands there: ls -ld {shlex.quote(str(path))}") from None
    except UnicodeDecodeError:
        raise ConfigError(reason=f"{path}: it is no line of text, and {kind.title} is one") from None
