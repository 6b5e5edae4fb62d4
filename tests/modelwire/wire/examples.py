"""One record of each kind at least, who speaks in them, and in which role."""

from __future__ import annotations

from modelwire.wire.log import next_link
from modelwire.wire.records import (
    Act,
    Command,
    Desired,
    Enrol,
    Hello,
    Level,
    Presence,
    Receipt,
    Record,
    Report,
    Response,
    Transfer,
    Wait,
    Wanted,
    Welcome,
)
from modelwire.wire.signing import PrivateKey, Role
from tests import keys

DEVICE = PrivateKey(bytes(range(32)))
KEYS = {
    Role.DEVICE: DEVICE, Role.RECEIPT: keys.RECEIPT, Role.COMMAND: keys.COMMAND, Role.ACT: keys.COMMAND, Role.DIRECTOR: keys.DIRECTOR,
    Role.ROOT: keys.ROOT,
}  # fmt: skip
WHO = ("demo", "pi-7", "digits", 1_700_000_000)
OF_ALL = ("demo", "pi-7", "all", 1_700_000_000)
DAY = bytes(range(100, 132))  # a digest
EXAMPLES: list[Record] = [
    Hello(*WHO, DEVICE.public, bytes(range(16)), DAY, 0, 0, DAY, "litert 2.3.0; x86_64; auto; 1 thread", "0.1.0", 0, b"", b"", False, (1,)),
    Hello(
        *WHO, DEVICE.public, bytes(range(16)), DAY, 0, 0, DAY, "none", "0.1.0", 3, bytes(32), b"token", True, (1, 2), more={"site": "hall"}
    ),
    Welcome(*WHO, bytes(range(16)), "ok", 1, 12, DAY, 12, 11, 1_700_000_009, b"", 0, b"", b"", 0, (1,)),
    Welcome(*WHO, bytes(range(16)), "challenge", 0, 0, DAY, 0, 0, 1_700_000_009, DAY, 60, next_link(None, b"x").encode(), DAY, 7, (1, 2)),
    Wait(*WHO, 90, "the disk is nearly full"),
    Command(*WHO, 7, 1_700_090_000, bytes(range(16)), 1, b"", "snapshot", {}),
    Command(*WHO, 8, 1_700_090_000, bytes(range(16)), 1, DAY, "adopt", {"update": bytes(range(200))}),
    Command(*WHO, 9, 1_700_090_000, bytes(range(16)), 1, b"", "leaves", {"tensor": 2, "first": 0}, more={"why": [1, None, {"x": 0.5}]}),
    Response(*WHO, 7, True, "queued as version 13", {}),
    Response(*WHO, 9, True, "", {"leaves": bytes(64), "of": 2}),
    Receipt(*WHO, 1, 12, DAY, Level.STORED, "", b"", 0, 0),
    Receipt(*WHO, 1, 12, DAY, Level.VERIFIED, "", b"", 0, 31),
    Receipt(*WHO, 1, 12, DAY, Level.REFUSED, "stale parent", DAY, 9, 0),
    Presence(*WHO, 4, False),
    Transfer(*WHO, DAY, 200_000, 65_536, "update", DAY, DAY),
    Transfer(*WHO, DAY, 600 << 20, 65_536, "base", DAY, b""),
    Wanted(*WHO, DAY, b"\x05"),
    Desired(*WHO, 3, 1_700_090_000, DAY, 1_048_576, 2),
    Report(*WHO, 3, DAY, "soaking", 2, "active", 1_048_576, 0.875, None, ""),
    Enrol(*OF_ALL, DEVICE.public, b"token", "10000000abcdef", "0.1.0"),
    keys.trust("demo", since=1_700_000_000, at=1_700_000_000),
    keys.trust("demo", number=2, since=1_700_000_000, until=1_800_000_000, overlap=86_400, at=1_700_000_000),
    Act(*OF_ALL, 1, "admit", DEVICE.public),
]


def example(kind: type[Record]) -> Record:
    """Return the first record of a kind."""
    return next(record for record in EXAMPLES if type(record) is kind)
