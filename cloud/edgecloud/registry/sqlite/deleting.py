"""What may be deleted from a registry whose rows are write-once: what is thinned, and what is of a device under erasure. Nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_OF_LINEAGE = "e.device = (SELECT device FROM lineage WHERE id = OLD.lineage)"
_OF_VERSION = "e.device = (SELECT l.device FROM version v JOIN lineage l ON l.id = v.lineage WHERE v.id = OLD.version_id)"
# Table: which of its rows are of the device of an erasure `e`. That of one that is done is NULL, so it is nobody's.
OF_DEVICE = {
    "device": "e.device = OLD.name",
    **dict.fromkeys(("device_key", "act", "rejection", "lineage", "witness", "alarm"), "e.device = OLD.device"),
    **dict.fromkeys(("epoch", "version", "head", "command", "lost"), _OF_LINEAGE),
    **dict.fromkeys(("skipped", "score", "thinned", "squash"), _OF_VERSION),
    "annotation": "OLD.kind <> 'base' AND (OLD.object = e.device OR substr(OLD.object, 1, length(e.device) + 1) = e.device || '/')",
}
_ERASED = "EXISTS (SELECT 1 FROM erasure e WHERE {})"
UNLESS_ERASED = f"NOT {_ERASED.format(_OF_VERSION)}"  # of a table that came later, whose rows are of a version
UNLESS_ERASED_LINEAGE = f"NOT {_ERASED.format(_OF_LINEAGE)}"  # likewise, of a lineage
_GONE = "EXISTS (SELECT 1 FROM thinned t WHERE t.version_id = OLD.version_id AND t.gone = 1)"
# A blob that somebody needs is never put on the list of those that go.
NEEDED = (
    "EXISTS (SELECT 1 FROM base WHERE file = {0}) OR EXISTS (SELECT 1 FROM squash WHERE blob = {0})"
    " OR EXISTS (SELECT 1 FROM version v JOIN lineage l ON l.id = v.lineage WHERE v.blob = {0}"
    " AND NOT EXISTS (SELECT 1 FROM thinned t WHERE t.version_id = v.id)"
    " AND NOT EXISTS (SELECT 1 FROM erasure e WHERE e.device = l.device))"
)
# An entry keeps its place and its link; its digest, which the link binds, stands where it stood.
_ONLY_ERASED = (
    "NEW.number = OLD.number AND NEW.link = OLD.link AND NEW.subject = x'' AND EXISTS (SELECT 1 FROM erasure e WHERE e.device <> '')"
)


def unless_erased(table: str) -> str:
    """Return when a row of a table that is of a device stays."""
    return f"NOT {_ERASED.format(OF_DEVICE[table])}"


def allow(tables: Any, trigger: Callable[[str, str, str, str], str]) -> None:
    """Make the triggers that say so, in the place of those that forbid all. trigger: text of one, by table, name, event and condition."""
    made: dict[tuple[str, str], tuple[str, str]] = {
        (table, "no_delete"): ("DELETE", unless_erased(table)) for table in OF_DEVICE if table != "squash"
    }
    made["squash", "no_delete"] = "DELETE", f"NOT ({_GONE} OR {_ERASED.format(OF_DEVICE['squash'])})"
    made["squash", "write_once"] = "UPDATE OF version_id", "1"
    made["thinned", "no_update"] = "UPDATE", (
        "NOT (OLD.gone = 0 AND NEW.gone = 1 AND NEW.version_id = OLD.version_id AND NEW.proof = OLD.proof)"
    )
    made["blob", "no_delete"] = "DELETE", "NOT EXISTS (SELECT 1 FROM discard d WHERE d.sha256 = OLD.sha256)"
    made["discard", "no_insert"] = "INSERT", NEEDED.format("NEW.sha256")
    made["discard", "no_update"] = "UPDATE", "1"
    made["erasure", "no_delete"] = "DELETE", "1"
    made["erasure", "no_update"] = "UPDATE", "NOT (NEW.number = OLD.number AND NEW.record = OLD.record AND coalesce(NEW.device, '') = '')"
    made["log", "no_update"] = "UPDATE", f"NOT ({_ONLY_ERASED})"
    for (table, name), (event, when) in made.items():
        tables.execute(f"DROP TRIGGER IF EXISTS {table}_{name}")
        tables.execute(trigger(table, name, event, when))
