"""Bits that flip where nobody writes: in the bytes of updates, in any column of any row, anywhere in the registry's files."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from edgecloud.registry import SqliteStore, open_registry
from modelwire.errors import ModelWireError
from tests.edgecloud.centre import damage
from tests.simulator.audit import audit, wrong_in_log
from tests.simulator.crashes import copy_registry
from tests.simulator.every_step import Fleet
from tests.simulator.timeline import quiet


def flipped(data: bytes, rng: Random) -> bytes:
    """Return the bytes with one bit changed."""
    at = rng.randrange(8 * len(data))
    return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]


def flip_blob(store: SqliteStore, rng: Random) -> str:
    """Change one bit of the bytes of one update or squash, of no base; return which."""
    bases = {base.file for base in store.bases.all()}
    digests = [digest for digest in store.blobs.digests() if digest not in bases]
    if not digests:
        return "nothing to damage yet"
    digest = digests[rng.randrange(len(digests))]
    file = store.files.folder / digest.hex()[:2] / digest.hex()
    if file.exists():
        file.write_bytes(flipped(file.read_bytes(), rng))
    else:
        (data,) = store.database.one("SELECT bytes FROM blob WHERE sha256 = ?", digest)
        damage(store, "UPDATE blob SET bytes = ? WHERE sha256 = ?", flipped(bytes(data), rng), digest)
    return f"the bytes {digest.hex()[:16]}"


def flip_row(store: SqliteStore, rng: Random) -> str:
    """Change one bit of one value of one row of any table; return which."""
    tables = store.database.all("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '%sqlite%' ORDER BY name")
    while True:
        (table,) = tables[rng.randrange(len(tables))]
        columns = [row[1] for row in store.database.all(f'PRAGMA table_info("{table}")')]
        column = columns[rng.randrange(len(columns))]
        rows = store.database.all(f'SELECT "{column}" FROM "{table}" WHERE "{column}" IS NOT NULL')
        if not rows:
            continue
        at = rng.randrange(len(rows))
        old = rows[at][0]
        new = _other(old, rng)
        if new == old:
            continue
        where = f'rowid = (SELECT rowid FROM "{table}" WHERE "{column}" IS NOT NULL LIMIT 1 OFFSET {at})'
        store.database.run("PRAGMA foreign_keys = OFF")
        damage(store, f'UPDATE OR IGNORE "{table}" SET "{column}" = ? WHERE {where}', new)
        return f"{table}.{column}, row {at}"


def _other(old: object, rng: Random) -> object:
    if isinstance(old, bytes):
        return flipped(old, rng) if old else b"\1"
    if isinstance(old, int):
        return old ^ 1 << rng.randrange(40)
    if isinstance(old, str):
        return flipped(old.encode(), rng).decode("latin-1") if old else "x"
    return 0


def flip_file(path: Path, rng: Random) -> str:
    """Change one bit of one of the registry's files, as it lies there; return which byte it is in."""
    files = [one for one in sorted(path.parent.rglob("*")) if one.is_file() and one.stat().st_size and not one.name.endswith("-shm")]
    file = files[rng.randrange(len(files))]
    data = bytearray(file.read_bytes())
    at = rng.randrange(8 * len(data))
    data[at // 8] ^= 1 << at % 8
    file.write_bytes(data)
    return f"{file.name}, byte {at // 8}"


@dataclass
class Rotten:
    """What came of many flips of one bit, each in a registry that was whole."""

    flips: int = 0
    harmless: int = 0  # every version is exact all the same, be it by another way
    named: Counter[str] = field(default_factory=Counter)  # by what was said of it
    silent: list[str] = field(default_factory=list)  # a version is gone or another, and nobody says so


def rot(start: Path, folder: Path, fleet: Fleet, flips: int, seed: int) -> Rotten:
    """Return what comes of so many single flips: in the bytes of updates, in rows, and anywhere in the files, in turn."""
    out, rng = Rotten(), Random(f"rot {seed}")
    for n in range(flips):
        path = folder / "rotten" / "fleet.db"
        copy_registry(start, path)
        where = "?"
        try:
            if n % 3 == 2:
                where = flip_file(path, rng)
            else:
                store = open_registry(path, synchronous="OFF")
                where = (flip_blob, flip_row)[n % 3](store, rng)
                store.close()
            with quiet():
                _look(path, fleet, where, out)
        except ModelWireError as error:
            out.named[type(error).__name__] += 1
        except Exception as error:  # noqa: BLE001 - what has no name of ours is what is looked for
            out.silent.append(f"seed {seed}, flip {n}, {where}: it has no name: {type(error).__name__}: {error}")
        out.flips += 1
        shutil.rmtree(path.parent)
    return out


def _look(path: Path, fleet: Fleet, where: str, out: Rotten) -> None:
    store = open_registry(path, synchronous="OFF")
    try:
        said = store.problems() + wrong_in_log(store)
        verdict = audit(store, fleet.remembered(), fleet.keys(), again=10)
    finally:
        store.close()
    # A row that is gone from its model is no error of the model's: it is what the log says against the rows that names it.
    silent = verdict.wrong or (verdict.diverged if not said else [])
    out.silent += [f"{where}: {what}" for what in silent[:3]]
    names = [name for name in verdict.named if name not in ("Thinned", "refused", "given up by its board", "still at its board")]
    if names or said:
        out.named[names[0] if names else "said by doctor or audit"] += 1
    elif not silent:
        out.harmless += 1
