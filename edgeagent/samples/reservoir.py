"""Which samples a full spool keeps: an equal share of each class and context, and of each a fair sample of all that ever came.

A sample's rank is a hash of its id, and the highest rank goes first: what stays of a cell are the lowest ranks of all that came to it,
whenever they came. There is no other state, so a kill, a second writer or a changed bound cannot bring it out of order.
docs/samples.md says what follows for rare classes, floods and many contexts.
"""

from __future__ import annotations

from edgecommon.sqlite import Database, Row

FRESH = 2  # of a full cell one in so many may be samples that no round has seen, whatever their rank
# The condition for samples that don't leave: by the index. A sample's own cell lies behind its x, which may be a picture.
STAYS = "id NOT IN (SELECT id FROM sample WHERE cell=0)"
_MASK = (1 << 64) - 1


def rank_of(sample: int) -> int:
    """Return the rank of the sample with this id: 63 bits that have nothing to do with when it came (splitmix64)."""
    z = sample * 0x9E3779B97F4A7C15 & _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return (z ^ z >> 31) >> 1


def surplus(database: Database, model: str) -> Row | None:
    """Return the sample that has to go next (id, cell, bytes), or None when the model is within its bounds."""
    bound = database.one("SELECT max_samples, max_bytes, seen FROM model WHERE name=?", model)
    total = database.one("SELECT coalesce(sum(samples), 0) n, coalesce(sum(bytes), 0) b FROM cell WHERE model=?", model)
    if total["n"] <= 1 or (total["n"] <= bound["max_samples"] and total["b"] <= bound["max_bytes"]):
        return None
    largest = database.one("SELECT id, samples FROM cell WHERE model=? ORDER BY samples DESC, id LIMIT 1", model)
    if largest["samples"] > 1:
        return _highest(database, "cell=?", (largest["id"],), largest["samples"], bound["seen"])
    # More cells than room, each with one sample: which contexts stay is left to the ranks, and the classes still have equal shares.
    most = database.one("SELECT class, count(*) n FROM cell WHERE model=? GROUP BY class ORDER BY n DESC, class LIMIT 1", model)
    return _highest(database, f"model=? AND class=? AND {STAYS}", (model, most["class"]), most["n"], bound["seen"])


def _highest(database: Database, where: str, values: tuple[object, ...], samples: int, seen: int) -> Row:
    """Return the highest rank among `samples` samples, leaving out the newest that no round has seen: no more than their part."""
    fresh = database.maybe(
        f"SELECT id FROM sample WHERE {where} AND id>? ORDER BY id DESC LIMIT 1 OFFSET ?", *values, seen, max(0, samples // FRESH - 1)
    )
    end = seen + 1 if fresh is None else fresh["id"]
    if samples < FRESH:
        end = _MASK >> 1
    # +id: SQLite shall walk the ranks from the highest, not sort the ids.
    return database.one(f"SELECT id, cell, bytes FROM sample WHERE {where} AND +id<? ORDER BY rank DESC LIMIT 1", *values, end)
