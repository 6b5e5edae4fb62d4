"""What lets this board in by itself: the proof that the token beside its key gives for this key, name and serial number, and no other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeagent.settings.reading import Loaded
from edgecommon import files
from modelwire.errors import BadArgument, ConfigError, MissingFile
from modelwire.text import is_plain
from modelwire.wire import claims, keys

from .history import Board
from .keys import told_whence

SERIAL = Path("/proc/device-tree/serial-number")  # ends with a zero byte
WHENCE = "take the file that edgecloud claim new -o wrote"
_SERIAL_READ = 256  # bytes


@dataclass(frozen=True, slots=True)
class BoardClaim:
    """What `enrol` says. The token itself is not kept in memory."""

    proof: bytes
    serial: str  # of the board, or empty

    @property
    def id(self) -> str:
        """Which claim it is, as `edgecloud claim list` names it."""
        return claims.claim_id(self.proof).hex()


def read_claim(loaded: Loaded, board: Board) -> BoardClaim | None:
    """Return the claim of this board, None when it was given no token. Raises WrongKeyKind, ConfigError or BadArgument for a bad file."""
    device = loaded.settings.device
    path = loaded.resolve(device.claim)
    if not device.claim or not path.exists():
        return None
    token, serial = claims.read_token(read_token_text(path), str(path)), device.serial or read_serial(SERIAL)
    return BoardClaim(claims.prove(token, board.identity.id, board.device, board.key.public, serial), serial)


def read_token_text(path: Path) -> str:
    """Return the line of a token's file. Raises MissingFile, WrongKeyKind, ConfigError, or BadArgument when others may read it."""
    try:
        data, fault = files.read_secret(path, keys.TEXT_MAX)
        text = data.decode("ascii")
        with told_whence(WHENCE):
            claims.read_token(text, str(path))  # first: of what is no token, the mode is not the matter
    except FileNotFoundError:
        raise MissingFile(path=path, what=claims.TITLE) from None
    except files.NotPrivateError as e:
        raise BadArgument(reason=str(e), fix=e.fix) from None
    except OSError as e:
        raise ConfigError(reason=f"{path}: {e.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(reason=f"{path}: it is no line of text, and {claims.TITLE} is one", fix=WHENCE) from None
    if fault is not None:
        raise BadArgument(reason=str(fault), fix=fault.fix)
    return text


def read_serial(path: Path) -> str:
    """Return the serial number that the board's firmware tells; empty where it tells none that could be said."""
    try:
        with path.open("rb") as file:
            text = file.read(_SERIAL_READ).split(b"\0")[0].decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if len(text) <= claims.SERIAL_MAX and is_plain(text) else ""
