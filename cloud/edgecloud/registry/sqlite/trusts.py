"""Trust records and the operator's acts in SQLite: kept with their entry in the log, and never forgotten."""

from __future__ import annotations

from edgecloud.registry.rows import ActRow, TrustRow
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
