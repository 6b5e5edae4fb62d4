"""Trust records, the operator's acts and the keys of devices in SQLite: the first two kept with their entry in the log."""

from __future__ import annotations

from edgecloud.registry.rows import ActRow, DeviceKey, Rejection, TrustRow
from edgecloud.registry.seams.trust import Log
from edgecommon.sqlite import Database
from modelwire.errors import RegistryDamaged


class SqliteTrusts:
    """Implements Trusts."""

    _ALL = "SELECT number, record FROM trust"

    def __init__(self, database: Database, log: Log) -> None:
        self._database, self._log = database, log

    def add(self, trust: TrustRow) -> None:
        with self._database.transaction():
            self._database.run("INSERT INTO trust VALUES (?, ?)", trust.number, trust.record)
            self._log.append("trust", record=trust.record)

    def all(self) -> list[TrustRow]:
        return [TrustRow(*row) for row in self._database.all(f"{self._ALL} ORDER BY number")]

    def newest(self) -> TrustRow:
        row = self._database.maybe(f"{self._ALL} ORDER BY number DESC LIMIT 1")
        if row is None:
            raise RegistryDamaged(path=self._database.path, reason="it holds no trust record")
        return TrustRow(*row)


class SqliteActs:
    """Implements Acts."""

    def __init__(self, database: Database, log: Log) -> None:
        self._database, self._log = database, log

    def add(self, act: ActRow) -> None:
        with self._database.transaction():
            self._database.run("INSERT INTO act VALUES (?, ?, ?, ?, ?)", act.number, act.device, act.verb, act.key, act.record)
            self._log.append("act", record=act.record)

    def last(self) -> int:
        return self._database.number("SELECT coalesce(max(number), 0) FROM act")

    def of(self, device: str) -> list[ActRow]:
        rows = self._database.all("SELECT number, device, verb, key, record FROM act WHERE device = ? ORDER BY number", device)
        return [ActRow(*row) for row in rows]


class SqliteDevices:
    """Implements Devices."""

    _KEYS = "SELECT id, device, key, added_at, revoked_at FROM device_key"

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, device: str, key: bytes, now: int) -> None:
        with self._database.transaction():
            self._database.run("INSERT INTO device VALUES (?, ?) ON CONFLICT DO NOTHING", device, now)
            self._database.run("INSERT INTO device_key (device, key, added_at) VALUES (?, ?, ?)", device, key, now)

    def keys(self, device: str) -> list[DeviceKey]:
        return [DeviceKey(*row) for row in self._database.all(f"{self._KEYS} WHERE device = ? ORDER BY id", device)]

    def revoke(self, device: str, now: int, key: bytes | None = None) -> int:
        only, values = ("", []) if key is None else (" AND key = ?", [key])
        return self._database.run(
            f"UPDATE device_key SET revoked_at = ? WHERE device = ? AND revoked_at IS NULL{only}", now, device, *values
        )

    def owner(self, key: bytes) -> str | None:
        row = self._database.maybe("SELECT device FROM device_key WHERE key = ? AND revoked_at IS NULL", key)
        return None if row is None else str(row[0])

    def reject(self, device: str, key: bytes, now: int) -> None:
        with self._database.transaction():
            self._database.run("INSERT INTO rejection VALUES (?, ?, ?) ON CONFLICT DO NOTHING", device, key, now)
            self._database.run("DELETE FROM quarantine WHERE device = ? AND kind = 'hello' AND mark = ?", device, key)

    def rejections(self, device: str | None = None) -> list[Rejection]:
        where, values = ("WHERE device = ?", [device]) if device is not None else ("", [])
        rows = self._database.all(f"SELECT device, key, at FROM rejection {where} ORDER BY device, at, key", *values)
        return [Rejection(*row) for row in rows]

    def is_rejected(self, device: str, key: bytes) -> bool:
        return self._database.maybe("SELECT 1 FROM rejection WHERE device = ? AND key = ?", device, key) is not None

    def names(self) -> list[str]:
        return [str(name) for (name,) in self._database.all("SELECT name FROM device ORDER BY name")]

    def all_keys(self) -> dict[str, list[DeviceKey]]:
        out: dict[str, list[DeviceKey]] = {name: [] for name in self.names()}
        for row in self._database.all(f"{self._KEYS} ORDER BY id"):
            out.setdefault(row[1], []).append(DeviceKey(*row))
        return out
