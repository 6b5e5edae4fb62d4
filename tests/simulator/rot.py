"""Bits that flip where nobody writes: in the bytes of updates, in any column of any row, anywhere in the registry's files."""

from __future__ import annotations

from pathlib import Path
from random import Random

from edgecloud.registry import SqliteStore
from tests.edgecloud.centre import damage


def flipped(data: bytes, rng: Random) -> bytes:
    """Return the bytes with one bit changed."""
    at = rng.randrange(8 * len(data))
    return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]


def flip_blob(store: SqliteStore, rng: Random) -> str:
    """Change one bit of the bytes of one version; return which."""
    rows = store.database.all("SELECT v.id, v.version, l.device, v.blob FROM version v JOIN lineage l ON l.id = v.lineage ORDER BY v.id")
    if not rows:
        return "nothing to damage yet"
    _, version, device, digest = rows[rng.randrange(len(rows))]
    file = store.files.folder / digest.hex()[:2] / digest.hex()
    if file.exists():
        file.write_bytes(flipped(file.read_bytes(), rng))
    else:
        (data,) = store.database.one("SELECT bytes FROM blob WHERE sha256 = ?", digest)
        damage(store, "UPDATE blob SET bytes = ? WHERE sha256 = ?", flipped(bytes(data), rng), digest)
    return f"{device}@{version}"


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
    """Change one bit of a file; return which byte it is in."""
    data = bytearray(path.read_bytes())
    at = rng.randrange(8 * len(data))
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(data)
    return f"{path.name}, byte {at // 8}"
