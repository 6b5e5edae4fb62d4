"""Whom a rollout is for: the devices that were asked for, and which of them are left out, each with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgecloud.registry import LineageRow, LineageStanding, SqliteStore
from edgecloud.registry.rollout_rows import PAUSED, ROLLING_BACK, RUNNING, SOAKING, FrozenRow
from edgecloud.searching.told import newest_cards
from modelwire.deploying.terms import Learned
from modelwire.deploying.variants import Variant
from modelwire.errors import ModelWireError, UnknownVersion
from modelwire.update.manifest import parse_manifest

from .verbs import follows

Progress = Callable[[int, int], None]
# Memory of the boards that profiles are for, in MiB, by how their own name begins; the largest that is sold under the name.
BOARDS = {
    "NVIDIA Jetson Nano": 4096, "NVIDIA Jetson Orin Nano": 8192, "Raspberry Pi 3": 1024, "Raspberry Pi 4": 8192, "Raspberry Pi 5": 16384,
    "Raspberry Pi Zero 2": 512,
}  # fmt: skip
MIB = 1 << 20
UNFIT = (SCHEMA, RUNTIME, MEMORY) = ("another schema", "another runtime", "too little memory")
_HOLDING = frozenset({RUNNING, SOAKING, PAUSED, ROLLING_BACK})  # a device that is in such a rollout is in no other


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom an operator named: devices, or facts that their data cards tell, all of them; the whole fleet where both are empty."""

    devices: tuple[str, ...] = ()
    where: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A device that was asked for and gets nothing."""

    device: str
    why: str  # one kind of reason, in words
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """The devices of a rollout, as they are now."""

    lineages: tuple[LineageRow, ...]  # by name
    left_out: tuple[LeftOut, ...]  # likewise
    seen: Mapping[str, int | None]  # when each was heard of last, in Unix seconds

    @property
    def names(self) -> list[str]:
        return [one.device for one in self.lineages]

    @property
    def reasons(self) -> dict[str, int]:
        """How many are left out for each reason, the most first."""
        return dict(Counter(one.why for one in self.left_out).most_common())


def gather(
    store: SqliteStore, variant: Variant, audience: Audience, *, learned: str = Learned.AUTO, progress: Progress = lambda done, total: None
) -> RolloutGroup:
    """Return who of an audience a variant can go to. Raises UnknownVersion for a device that has never had the model."""
    standings = {one.lineage.device: one for one in store.lineages.standings() if one.lineage.model == variant.model}
    missing = [name for name in audience.devices if name not in standings]
    if missing:
        fix = f"edgecloud devices lists who has {variant.model}; a device is known once it has said hello"
        raise UnknownVersion(name=f"{missing[0]}/{variant.model}", fix=fix)
    asked = [standings[name] for name in sorted(set(audience.devices))] if audience.devices else [standings[n] for n in sorted(standings)]
    look = _Look(store, variant, learned)
    inside, left = list[LineageStanding](), list[LeftOut]()
    for done, one in enumerate(asked):
        progress(done, len(asked))
        facts = facts_of(store, one.lineage) if audience.where or variant.ram else {}
        if any(facts.get(key) != value for key, value in audience.where):
            continue  # not left out: nobody asked for it
        why = look.why_not(one, facts)
        if why is None:
            inside.append(one)
        else:
            left.append(LeftOut(one.lineage.device, *why))
    return RolloutGroup(tuple(one.lineage for one in inside), tuple(left), {one.lineage.device: one.seen_at for one in inside})


def facts_of(store: SqliteStore, lineage: LineageRow) -> dict[str, str]:
    """Return what a device's newest data cards say of it under one value alone: its board, its runtime, a region."""
    return {name: next(iter(values)) for name, values in newest_cards(store, lineage).card.tags.items() if len(values) == 1}


def held_out(store: SqliteStore, lineage: LineageRow) -> int:
    """Return how many held-out samples a device has: by its last trial of a variant, else by its newest data cards; 0: not known."""
    tried = [one.rows for one in store.rollouts.assigned(lineage.id) if one.rows]
    if tried:
        return tried[-1]
    gathered = newest_cards(store, lineage)
    return gathered.card.judged // gathered.updates if gathered.updates else 0


class VariantFit:
    """Whether a variant can run where another base does, by what the centre knows: weights, runtime, memory. Remembers what it has read."""

    def __init__(self, store: SqliteStore, variant: Variant, learned: str) -> None:
        self._store, self._variant, self._anew = store, variant, learned == Learned.ANEW
        self._schemas = dict[bytes, bytes]()

    def unfit(self, base: bytes, runtime: str, facts: Mapping[str, str]) -> tuple[str, str] | None:
        """Return why it can't, one of UNFIT, and more of it; None where it can.

        base: commit of what the device runs; runtime: its key, as its hello says it; facts: of its data cards.
        """
        variant = self._variant
        if not self._anew and self._schema(base) != variant.schema:
            return SCHEMA, "--learned anew begins from the variant as it is"
        runs = runtime.partition(" ")[0]
        if variant.runtime and runs and runs != variant.runtime:
            return RUNTIME, f"{runs}, and not {variant.runtime}"
        board = next((name for name in BOARDS if facts.get("board", "").startswith(name)), None)
        if board is not None and BOARDS[board] * MIB < variant.ram:
            return MEMORY, f"{board} has {BOARDS[board]} MiB at most"
        return None

    def _schema(self, base: bytes) -> bytes:
        if base not in self._schemas:
            row = self._store.bases.get(base)
            try:
                self._schemas[base] = parse_manifest(row.manifest).schema.id if row is not None else b""
            except ModelWireError:  # one damaged base keeps its own devices out, and nobody else
                self._schemas[base] = b""
        return self._schemas[base]


class _Look:
    """Looks at one device after another for what keeps a variant from it."""

    def __init__(self, store: SqliteStore, variant: Variant, learned: str) -> None:
        self._store, self._variant, self._fit = store, variant, VariantFit(store, variant, learned)
        self._keys = store.devices.all_keys()
        self._frozen = [one for one in store.rollouts.frozen() if one.model in ("", variant.model)]
        self._busy = dict[int, str]()
        for rollout in store.rollouts.all(ended=False):
            if rollout.model == variant.model and rollout.state in _HOLDING and not follows(rollout):
                self._busy |= {one.lineage: rollout.name for one in store.rollouts.assignments(rollout.id)}

    def why_not(self, one: LineageStanding, facts: Mapping[str, str]) -> tuple[str, str] | None:
        """Return why a device is left out, and more of it; None where it is not."""
        variant, device = self._variant, one.lineage.device
        frozen: FrozenRow | None = next((f for f in self._frozen if f.device == device), None)
        if frozen is not None:
            return "frozen", frozen.reason
        if not one.epoch:
            return "never said hello", ""
        if all(key.revoked_at is not None for key in self._keys.get(device, ())):
            return "its key is revoked", ""
        base = self._base(one)
        if base == variant.commit:
            return "runs it already", ""
        if (unfit := self._fit.unfit(base, one.runtime, facts)) is not None:
            return unfit
        return ("in another rollout", self._busy[one.lineage.id]) if one.lineage.id in self._busy else None

    def _base(self, one: LineageStanding) -> bytes:
        """Return the commit of the base that a device's head is on."""
        head = self._store.versions.by_id(one.head_id) if one.head_id is not None else None
        if head is not None:
            return head.base
        epoch = self._store.lineages.epoch(one.lineage.id, one.epoch)
        return epoch.base if epoch is not None else b""


def named(devices: Sequence[str], most: int = 3) -> str:
    """Return the first of some names, and how many more there are."""
    shown = ", ".join(devices[:most])
    return f"{shown} and {len(devices) - most} more" if len(devices) > most else shown
