"""Flips of random bits and bytes in a registry's pages, and what verify makes of each: a count of tracebacks and of false "exact"."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

PAGE = 4096
Verify = Callable[[Path], tuple[int, str]]  # of a registry: exit code and what was said

# What a history is; what stands beside it (times, notes, what waits) is not what "exact" speaks of.
_HISTORY = (
    'SELECT l.device, l.model, v.epoch, v.version, v.kind, v."commit", v.parent, v.base, v.root, v.fingerprint, v.blob, v.status'
    " FROM version v JOIN lineage l ON l.id = v.lineage ORDER BY v.id",
    "SELECT device, key, revoked_at IS NULL FROM device_key ORDER BY id",
    'SELECT l.device, l.model, h.epoch, h."commit", h.version FROM head h JOIN lineage l ON l.id = h.lineage ORDER BY 1, 2, 3',
    "SELECT number, record FROM act ORDER BY number",
    "SELECT number, record FROM trust ORDER BY number",
    # The bytes of a refused version are never served, and verify says of them no more than that.
    "SELECT sha256, bytes FROM blob WHERE sha256 NOT IN (SELECT blob FROM version WHERE status = 'refused') ORDER BY sha256",
)


@dataclass
class Flips:
    """What came of them."""

    tried: int = 0
    named: int = 0
    harmless: int = 0  # verify says exact, and the whole history reads as before
    false_exact: int = 0
    tracebacks: int = 0


def history(path: Path) -> list[object] | None:
    """Return all that a registry knows of its versions, keys and heads; None where it can't be read."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            database.text_factory = bytes
            return [database.execute(sql).fetchall() for sql in _HISTORY]
    except sqlite3.Error:
        return None


def flip(registry: bytes, copy: Path, verify: Verify, *, count: int, seed: int = 0) -> Flips:
    """Flip `count` places of a registry that nobody has open, one at a time, in a copy, and verify each. Raises what verify raises."""
    rng, out = random.Random(seed), Flips()
    copy.write_bytes(registry)
    before = history(copy)
    assert before is not None
    for n in range(count):
        data = bytearray(registry)
        page = rng.randrange(len(data) // PAGE) * PAGE
        if n % 3 == 0:
            data[page + rng.randrange(PAGE)] ^= 1 << rng.randrange(8)
        elif n % 3 == 1:
            start = page + rng.randrange(PAGE - 64)
            data[start : start + 64] = rng.randbytes(64)
        else:
            data[page : page + PAGE] = rng.randbytes(PAGE) if n % 2 else bytes(PAGE)
        for end in ("-wal", "-shm"):
            copy.with_name(copy.name + end).unlink(missing_ok=True)
        copy.write_bytes(data)
        out.tried += 1
        code, said = verify(copy)
        if "Traceback" in said:
            out.tracebacks += 1
        elif code:
            out.named += 1
        elif history(copy) == before:
            out.harmless += 1
        else:
            out.false_exact += 1
    return out
