"""Which versions a random sample takes, and what it says of all when none of them is damaged."""

from __future__ import annotations

import hashlib
import heapq
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

from edgecloud.registry import Status, Store, VersionRow
from modelwire.errors import BadArgument

SURE = Fraction(99, 100)
COUNTED = 4096  # versions up to which the chance is counted in whole numbers; above, their logarithms are as good
_FORM = re.compile(r"(?P<share>[0-9]{1,3}(\.[0-9]{1,6})?)%\Z|(?P<count>[0-9]{1,12})\Z")


def size_of(text: str, total: int) -> int:
    """Return how many of `total` a sample of so many, or of such a share, takes: 1 at least. Raises BadArgument."""
    form = _FORM.match(text)
    share = Decimal(form["share"]) if form is not None and form["share"] else None
    if form is None or (share is not None and not 0 < share <= 100) or (share is None and int(form["count"]) < 1):
        raise BadArgument(reason=f"--sample: {text[:40]!r} is no number of versions and no share", fix="write 500, or 2%")
    wanted = int(form["count"]) if share is None else math.ceil(total * share / 100)
    return min(max(wanted, 1), total)


def drawn(store: Store, lineages: Iterable[int], text: str, seed: int) -> tuple[list[VersionRow], int]:
    """Return a sample of the served versions of these lineages, in the order of linking, and how many those are.

    It is those with the least SHA-256 of seed and commit: who knows the seed can draw it again, and who does not can't foresee it.
    """
    ids = [(hashlib.sha256(seed.to_bytes(8, "little") + v.commit).digest(), v.id) for v in _served(store, lineages)]
    taken = sorted(id for _, id in heapq.nsmallest(size_of(text, len(ids)), ids)) if ids else []
    return [row for row in map(store.versions.by_id, taken) if row is not None], len(ids)


def most_damaged(total: int, sampled: int, sure: Fraction = SURE) -> int:
    """Return how many of `total` may be damaged at most, with this certainty, when a sample of so many without damage was drawn.

    Without replacement: the largest D for which C(total - D, sampled) / C(total, sampled) is above 1 - sure.
    """
    missed = 1 - sure

    def above(damaged: int) -> bool:
        """Whether so many damaged ones are missed more often than the certainty allows."""
        if damaged > total - sampled:
            return False
        if total <= COUNTED:
            return math.comb(total - damaged, sampled) > missed * math.comb(total, sampled)
        return _log_comb(total - damaged, sampled) - _log_comb(total, sampled) > math.log(missed)

    low, high = 0, total  # low is above, high is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if above(middle) else (low, middle)
    return low


def _log_comb(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def in_words(total: int, sampled: int) -> str:
    """Return what a sample without damage says of all."""
    if sampled == total:
        return f"all {total} versions were looked at"
    most = most_damaged(total, sampled)
    share = 100 * most / total
    return f"{float(SURE):.0%} sure that at most {most} of {total} versions ({share:.2g} %) are damaged: {sampled} were drawn and none was"


def _served(store: Store, lineages: Iterable[int]) -> Iterable[VersionRow]:
    return (version for lineage in lineages for version in store.versions.of(lineage) if version.status is not Status.REFUSED)
