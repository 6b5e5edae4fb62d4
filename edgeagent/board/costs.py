"""What each mode of a model was found to take on this board, kept by base and runtime."""

from __future__ import annotations

from edgecommon.sqlite import Database

from .budget import Cost


class Costs:
    """The measured costs of one base's modes."""

    def __init__(self, database: Database, base: bytes) -> None:
        self._db, self._base = database, base

    def of(self, runtime: str) -> dict[str, Cost]:
        """Return what is known by mode. runtime: the key of the runtime that will train."""
        rows = self._db.all("SELECT * FROM mode_cost WHERE base=? AND runtime=?", self._base, runtime)
        return {r["mode"]: Cost(r["seconds"], r["memory"], r["samples"], bool(r["partial"])) for r in rows}

    def note(self, runtime: str, mode: str, cost: Cost, when: int) -> None:
        """Write down what a measurement or a round found. when: Unix seconds."""
        self._db.run(
            "INSERT OR REPLACE INTO mode_cost (base, runtime, mode, seconds, memory, samples, partial, at) VALUES (?,?,?,?,?,?,?,?)",
            self._base, runtime, mode, cost.seconds, cost.memory, cost.samples, int(cost.partial), when,
        )  # fmt: skip
