"""Who this device is: its names, its private key, and the fleet's public one, read from their files."""

from __future__ import annotations

from pathlib import Path

from edgeagent.settings.reading import Loaded
from modelwire.errors import ConfigError, Malformed, MissingFile
from modelwire.wire import ed25519, signing

from .history import Board

KEY_MAX = 4096  # bytes of a key file


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
