"""What a device can go on from: whom a welcome answers, its numbers, which must leave room to count on, and the link that it witnesses."""

from __future__ import annotations

from modelwire.errors import Malformed

from .log import parse_link
from .records import Welcome
from .signing import KEY_BYTES

KEY = "key"  # in `more`: the public key whose hello it answers

EPOCHS = 1 << 32  # no container holds one as high
VERSIONS = 1 << 62  # half of what a container holds


def key_in(welcome: Welcome) -> bytes:
    """Return the public key whose hello a welcome says that it answers; empty where it does not say."""
    key = welcome.more.get(KEY)
    return key if isinstance(key, bytes) and len(key) == KEY_BYTES else b""


def check_numbers(welcome: Welcome) -> None:
    """Raise Malformed when no update can be of its epoch, after its version, or when its link of the log has no number."""
    if welcome.epoch >= EPOCHS or welcome.version >= VERSIONS:
        raise Malformed(what=welcome.KIND, reason=f"no update can be of epoch {welcome.epoch} after @{welcome.version}")
    if welcome.log:
        parse_link(welcome.log)
