"""What the models of biased devices lack, how they do there, and whose samples or model would help."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgecloud.feasibility import fitness
from edgecloud.registry import EvaluationRow, LineageRow, Store, VersionRow

from .fleet import FleetCards
from .skew import BiasFinding, Judgement
from .telling import CardBlock

HELPERS = 3  # devices that are named for each lack
_LABEL = "label"  # the name of a class in contexts of evaluations


@dataclass(frozen=True, slots=True)
class Scored:
    """What one model came to in a context, on a probe set."""

    name: str  # DEVICE/MODEL@VERSION, or the base's
    right: int
    n: int
    probes: bytes

    @property
    def score(self) -> float:
        return self.right / self.n


@dataclass(frozen=True, slots=True)
class Lack:
    """A context that the fleet sees and one device hardly does."""

    device: str
    model: str  # DEVICE/MODEL@VERSION that it has
    context: str  # TAG=VALUE, as evaluations and `feasible --context` write it
    share: float  # of the device's samples, at most
    fleet_share: float  # of the others'
    own: Scored | None  # its model there; None: not scored yet
    base: Scored | None  # the base it started from, there
    best: Scored | None  # the best model of another device, there, but for unfit ones
    seen_by: tuple[tuple[str, int], ...]  # devices that saw it the most, and how many samples


def lacks_of(store: Store, fleet: FleetCards, judgement: Judgement) -> list[Lack]:
    """Return what the biased devices' models lack, those of the largest bias first. Scores are those that were kept: none is measured."""
    out: list[Lack] = []
    heads = {device: head for device, lineage in fleet.lineages.items() if (head := _head(store, lineage)) is not None}
    if not any(finding.lacks for finding in judgement.biased):
        return out
    kept = _Scores(store, fleet, heads)
    for finding in judgement.biased:
        for value in finding.lacks:
            out.append(_lack(finding, value, fleet, heads, kept))
    return out


def _lack(finding: BiasFinding, value: str, fleet: FleetCards, heads: dict[str, VersionRow], kept: _Scores) -> Lack:
    context = context_of(finding.field, value)
    totals = {one.device: _count(one.fields.get(finding.field, ()), value) for one in fleet.told}
    mine, seen = totals[finding.device]
    others = [pair for device, pair in totals.items() if device != finding.device]
    fleet_share = sum(count for count, _ in others) / max(1, sum(size for _, size in others))
    seen_by = [(device, count) for device, (count, _) in totals.items() if count and device != finding.device]
    often = sorted(seen_by, key=lambda one: -one[1])
    lineage, head = fleet.lineages[finding.device], heads.get(finding.device)
    own, base, best = kept.of(finding.device, context)
    return Lack(
        finding.device, f"{lineage}@{head.version}" if head else str(lineage), context, mine / max(1, seen), fleet_share,
        own, base, best, tuple(often[:HELPERS]),
    )  # fmt: skip


def context_of(field: str, value: str) -> str:
    """Return a cell of a field as a context is written."""
    return f"{_LABEL if field == 'labels' else field.partition('.')[2]}={value}"


def _count(blocks: Iterable[CardBlock], value: str) -> tuple[int, int]:
    """Return the samples of a cell and of the field."""
    held = [block.counts for block in blocks]
    return sum(n for counts in held for key, n in counts.items() if str(key) == value), sum(sum(counts.values()) for counts in held)


def _head(store: Store, lineage: LineageRow) -> VersionRow | None:
    epoch = store.lineages.current(lineage.id)
    head = store.lineages.head(lineage.id, epoch.epoch) if epoch else None
    return store.versions.by_id(head.version_id) if head and head.version_id else None


class _Scores:
    """What was kept of the fleet's newest models and their bases, read when it is asked for."""

    def __init__(self, store: Store, fleet: FleetCards, heads: dict[str, VersionRow]) -> None:
        self._store, self._fleet, self._heads = store, fleet, heads
        self._rows: dict[int | bytes, list[EvaluationRow]] = {}
        found = fitness.unfit(store, [head.id for head in heads.values()])
        self._unfit = {device for device, head in heads.items() if head.id in found}

    def of(self, device: str, context: str) -> tuple[Scored | None, Scored | None, Scored | None]:
        """Return what the device's own model, its base, and the best of the others came to in a context: on one probe set."""
        head = self._heads.get(device)
        if head is None:
            return None, None, None
        own = max(self._known(head.id, context), key=lambda row: (row.n, row.probes), default=None)
        others = [(name, row) for name, one in self._heads.items() if name != device for row in self._known(one.id, context)]
        probes = own.probes if own else max(((row.n, row.probes) for _, row in others), default=(0, b""))[1]
        some = [(self._name(name), row) for name, row in others if row.probes == probes and name not in self._unfit]
        best = max(some, key=lambda one: ((one[1].right or 0) / one[1].n, one[0]), default=None)
        base = next((row for row in self._known(head.base, context) if row.probes == probes), None)
        held = self._store.bases.get(head.base)
        named = held.name if held else head.base.hex()[:12]
        return _scored(self._name(device), own), _scored(named, base), _scored(*best) if best else None

    def _name(self, device: str) -> str:
        return f"{self._fleet.lineages[device]}@{self._heads[device].version}"

    def _known(self, subject: int | bytes, context: str) -> Sequence[EvaluationRow]:
        if subject not in self._rows:
            self._rows[subject] = self._store.evaluations.of(subject)
        return [row for row in self._rows[subject] if row.context == context and row.right is not None and not row.fault and row.n]


def _scored(name: str, row: EvaluationRow | None) -> Scored | None:
    return None if row is None or row.right is None else Scored(name, row.right, row.n, row.probes)
