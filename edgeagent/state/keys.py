"""Who this device is: its names, its private key, and what it was given of its fleet, read from their files."""

from __future__ import annotations

from pathlib import Path

from edgeagent.settings.reading import Loaded
from modelwire.errors import ConfigError, Malformed, MissingFile
from modelwire.wire import ed25519, keys, signing
from modelwire.wire.keys import KeyKind
from modelwire.wire.signing import Fleet

from .history import Board


def read_board(loaded: Loaded) -> Board:
    """Return names and keys. Raises MissingFile, WrongKeyKind or ConfigError."""
    device = loaded.settings.device
    ed25519.use_loaded()  # a board has no room for a second OpenSSL
    key = signing.PrivateKey(read_private(loaded.resolve(device.key)))
    return Board(device.fleet, device.name, key, read_fleet(loaded.resolve(device.fleet_key)))


def read_private(path: Path) -> bytes:
    """Return the 32 bytes of a device's private key in its file. Raises MissingFile, WrongKeyKind or ConfigError."""
    try:
        return keys.read_key(_text(path, KeyKind.DEVICE_PRIVATE), KeyKind.DEVICE_PRIVATE, str(path))
    except Malformed as e:
        raise ConfigError(reason=e.message) from None


def read_fleet(path: Path) -> Fleet:
    """Return the root key and the id of the fleet in the file. Raises MissingFile, WrongKeyKind or ConfigError."""
    try:
        return keys.read_fleet(_text(path, KeyKind.FLEET), str(path))
    except Malformed as e:
        raise ConfigError(reason=e.message) from None


def _text(path: Path, kind: KeyKind) -> str:
    try:
        with path.open("rb") as f:
            return f.read(keys.TEXT_MAX).decode("ascii")
    except FileNotFoundError:
        raise MissingFile(path=path, what=kind.title) from None
    except OSError as e:
        raise ConfigError(reason=f"{path}: {e.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(reason=f"{path}: it is no line of text, and {kind.title} is one") from None
