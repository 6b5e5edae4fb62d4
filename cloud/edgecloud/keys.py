"""The fleet's keys as files: fleet.key, secret and readable by its owner alone, and fleet.pub, which boards are given."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from edgecommon.files import write_named
from modelwire.errors import BadArgument, MissingFile
from modelwire.wire.signing import KEY_BYTES, PrivateKey, read_key

PRIVATE, PUBLIC = "fleet.key", "fleet.pub"


def make_keys(folder: Path) -> PrivateKey:
    """Return the fleet's key, written beside the registry; one that is there already is taken and kept."""
    path = folder / PRIVATE
    if not path.exists():
        write_named(path, (secrets.token_bytes(KEY_BYTES).hex() + "\n").encode(), mode=0o600, replace=False)
    key = load_key(path)
    write_named(folder / PUBLIC, (key.public.hex() + "\n").encode(), mode=0o644)
    return key


def load_key(path: Path) -> PrivateKey:
    """Return the private key in a file. Raises BadArgument when others than its owner may read it."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("ascii")
    except FileNotFoundError:
        raise MissingFile(path=path, what="the fleet's private key") from None
    except (UnicodeDecodeError, PermissionError) as error:
        raise BadArgument(reason=f"{path}: {error}", fix=f"check who owns it: ls -l {path}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise BadArgument(reason=f"{path} may be read by others than its owner", fix=f"chmod 600 {path}")
    return PrivateKey(read_key(text, str(path)))


def read_public(text: str) -> bytes:
    """Return a public key from 64 hexadecimal digits, or from a file that holds them."""
    path = Path(text)
    if os.sep in text or path.suffix == ".pub":
        if not path.is_file():
            raise MissingFile(path=path, what="the public key")
        text = path.read_text("ascii", errors="replace")
    return read_key(text, "the public key")
