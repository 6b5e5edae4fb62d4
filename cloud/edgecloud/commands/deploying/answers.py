"""What the commands of deployments have in common: how a variant and a rollout are found, described and said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edgecloud.registry import SqliteStore
from edgecloud.registry.rollout_rows import ENDED, HALTED, RolloutRow, RolloutTally, VariantRow
from edgecloud.rollouts import statements
from modelwire.deploying.variants import Variant
from modelwire.errors import BadSignature, UnknownVersion

from ..answer import Document, ago, now

QUIET = 120  # seconds without a look of the director after which it counts as away
OVER = ENDED | {HALTED}
DIRECTOR = "director"  # the figure under which it notes its looks


def find_variant(store: SqliteStore, text: str) -> VariantRow:
    """Return the variant of a name, or of the commit or the beginning of one. Raises UnknownVersion."""
    rows = store.rollouts.variants()
    newest = {row.commit: row for row in rows}  # the highest number of a base counts
    found = [row for row in newest.values() if row.name == text]
    if not found and len(text) >= 8:
        found = [row for row in newest.values() if row.commit.hex().startswith(text.lower())]
    if len(found) != 1:
        many = f"{len(found)} variants are called so: give the commit of one; " if found else ""
        base = store.bases.named(text)
        fix = f"edgecloud variants add {text} --model MODEL" if base is not None and not found else f"{many}edgecloud variants list"
        raise UnknownVersion(name=f"variant:{text}", fix=fix)
    return found[0]


def find_rollout(store: SqliteStore, text: str) -> RolloutRow:
    """Return the rollout of a name, or of the beginning of its id. Raises UnknownVersion."""
    row = store.rollouts.named(text)
    if row is None:
        raise UnknownVersion(name=f"rollout:{text}", fix="edgecloud rollouts")
    return row


def described(variant: Variant, *, speaks: bool = True) -> Document:
    """Return a variant as a document. speaks: whether the root key that sealed it is the fleet's still."""
    return {
        "variant": variant.name, "model": variant.model, "number": variant.number, "commit": variant.commit, "file_sha256": variant.file,
        "bytes": variant.size, "schema": variant.schema, "exact": variant.exact, "runtime": variant.runtime or None,
        "ram": variant.ram or None, "parents": list(variant.parents), "type_id": variant.type_id or None, "sealed_at": variant.at,
        "speaks": speaks,
    }  # fmt: skip


def read_variant(store: SqliteStore, row: VariantRow) -> tuple[Variant, bool]:
    """Return a variant, and whether the root key that speaks now sealed it."""
    try:
        return statements.variant_of(store, row), True
    except BadSignature:
        return statements.variant_of(store, row, now=False), False


def counted(tallies: Sequence[RolloutTally]) -> dict[str, int]:
    """Return how many devices of a rollout are in each state; those on the way back, or there, are `back` to it."""
    out = Counter[str]()
    for one in tallies:
        out[f"{one.state}, back" if one.back else one.state] += one.devices
    return dict(out)


def director_said(store: SqliteStore) -> tuple[int | None, str]:
    """Return when the director has looked last, and that in a sentence with what to do."""
    seen = store.tallies.measured(DIRECTOR)
    if seen is None:
        return None, "no director has run on this registry: edgecloud director"
    at = now()
    if at - seen[0] > QUIET:
        return seen[0], f"the director looked {ago(seen[0], at)} at last: is edgecloud director running?"
    return seen[0], f"a director is running; it looked {ago(seen[0], at)}"
