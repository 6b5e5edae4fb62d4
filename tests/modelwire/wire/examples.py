"""One record of each kind, and who speaks in them."""

from __future__ import annotations

from modelwire.wire.records import Adopt, Command, Hello, Level, Presence, Receipt, Record, Response, Transfer, Wanted, Welcome

WHO = ("demo", "pi-7", "digits", 1_700_000_000)
EXAMPLES: list[Record] = [
    Hello(*WHO, bytes(32), bytes(16), bytes(32), 0, 0, bytes(32), "litert 2.3.0; x86_64; auto; 1 thread", "0.1.0"),
    Welcome(*WHO, bytes(16), "ok", 1, 12, bytes(32), 12, 11),
    Command(*WHO, 7, "snapshot"),
    Response(*WHO, 7, True, "queued as version 13"),
    Receipt(*WHO, 1, 12, bytes(32), Level.STORED, "", b"", 0),
    Receipt(*WHO, 1, 12, bytes(32), Level.REFUSED, "stale parent", bytes(32), 9),
    Presence(*WHO, 4, False),
    Transfer(*WHO, bytes(32), 200_000, 98_000, bytes(96)),
    Wanted(*WHO, bytes(32), b"\x05"),
    Adopt(*WHO, 8, bytes(range(200))),
]
