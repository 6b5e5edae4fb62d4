"""What the centre compares as rows for programs and notebooks: probes, distances, the matrix, whose model fits, bias, merges. Read only."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgecommon.files import read_model_file
from modelwire.errors import BadArgument, ModelError
from modelwire.tensors import F32

from .bias import fleet as fleets
from .bias import helping
from .bias.helping import Scored
from .feasibility import matrix, ranking
from .merging import parents
from .probes import agreeing, intermediates, running, sets
from .probes.comparing import layers_apart
from .probes.intermediates import VersionSeen
from .registry import SqliteStore
from .searching import cluster, drift, identify, nearest
from .searching.nearest import Search
from .versions import changes, comparing, listing, materialise, naming
from .versions.listing import Listing

Row = dict[str, Any]


class Comparisons:
    """The comparing part of a registry. Each answer is a `Listing`: plain dicts with the same keys, as `pandas.DataFrame` takes them.

    Names are DEVICE[/MODEL][@VERSION], the newest version where none is said. A number that is not known is nan.
    """

    _store: SqliteStore
    _bases: materialise.LoadedBases
    _recent: nearest.Recent
    _spare: running.Spare

    def probes(self) -> Listing:
        """Return a row a probe set."""
        columns = ("name", "model", "rows", "shape", "bytes", "added", "digest")
        rows = (
            {"name": r.name, "model": r.model, "rows": r.rows, "shape": r.shape, "bytes": r.size, "added": listing.time_of(r.added_at),
             "digest": r.digest.hex()}
            for r in self._store.probes.all()
        )  # fmt: skip
        return Listing(rows, columns)

    def nearest(self, name: str, count: int = 5, *, every: bool = False, exact: bool = False) -> Listing:
        """Return a row a version that is near to one, the nearest first, by exact distance in units of the base's lattice.

        every: look among all versions, and not the newest of each model alone; exact: measure all, and leave nothing to sketches.
        Raises UnknownVersion, BadArgument.
        """
        _require_count(count)
        (place,) = self._places((name,))
        found = nearest.nearest(
            self._store, place, count=count, every=every, exact=exact, bases=self._bases, recent=self._recent
        )  # fmt: skip
        return _neighbours(found)

    def identify(self, file: str | os.PathLike[str], count: int = 3) -> Listing:
        """Return a row a version whose model a file is: its weights are those, bit for bit; where it is nobody's, what it is nearest to.

        No rows for a base as it is. Raises MissingFile, NotTrainable, NonFinite, or WrongBase for tensors of no base in the registry.
        """
        _require_count(count)
        path = Path(file)
        found = identify.identify(self._store, read_model_file(path, "the model file"), name=path.name, count=count)
        if found.search is not None:
            return _neighbours(found.search)
        rows = (
            {"version": str(one), "device": one.lineage.device, "model": one.lineage.model, "number": one.version.version, "distance": 0.0,
             "changed": 0}
            for one in found.owners
        )  # fmt: skip
        return Listing(rows, _NEAR)

    def cluster(self, model: str | None = None, cohorts: int | None = None) -> Listing:
        """Return a row a device: its cohort of alike models, the largest first, and what tells that from the rest.

        cohorts: how many on a base; None finds it. alike: the mean cosine of two of its models. Raises AmbiguousName, BadArgument.
        """
        found = cluster.cluster(self._store, model=model, count=cohorts)
        columns = ("cohort", "device", "version", "alike", "nearest", "why")
        rows = (
            {"cohort": one.number, "device": lineage.device, "version": f"{lineage}@{version.version}", "alike": one.alike,
             "nearest": one.nearest, "why": one.why}
            for one in found.cohorts for lineage, version in one.members
        )  # fmt: skip
        return Listing(rows, columns)

    def drift(self, name: str, since: int | None = None) -> Listing:
        """Return a row a version: how far a model had gone by then from its base, or from the version `since`, by sketches.

        far and step are in units of the base's lattice; turn is the cosine of a step and the one before.
        """
        found = drift.drift(self._store, naming.parse(name), since=since)
        columns = ("version", "far", "step", "turn", "stands_out", "reverses", "recoverable", "received")
        rows = (
            {"version": one.version.version, "far": one.far, "step": one.step, "turn": one.turn, "stands_out": one.stands_out,
             "reverses": one.reverses, "recoverable": one.recoverable, "received": listing.time_of(one.version.received_at)}
            for one in found.steps
        )  # fmt: skip
        return Listing(rows, columns)

    def changes(self, name: str, most: int = 100) -> Listing:
        """Return a row a version and tensor: how far it moved, over the norm of what was there; of a model's newest versions.

        nan where a version can't be rebuilt any more.
        """
        lineage = naming.find_lineage(self._store, naming.parse(name))
        found = changes.changes(self._store, changes.newest(self._store, lineage, most))
        columns = ("version", "tensor", "relative")
        if found is None:
            return Listing(columns=columns)
        rows = (
            {"version": number, "tensor": tensor, "relative": float(found.relative[t, v])}
            for v, number in enumerate(found.versions) for t, tensor in enumerate(found.tensors)
        )  # fmt: skip
        return Listing(rows, columns)

    def compare(self, first: str, second: str) -> Listing:
        """Return a row a tensor: how far the weights of two versions are apart. Raises UnknownVersion, WrongBase for other tensors."""
        states = [
            materialise.rebuild(self._store, place.version, self._bases) if place.version else self._bases[place.base].state()
            for place in self._places((first, second))
        ]
        columns = ("tensor", "entries", "changed", "units", "exponent", "largest", "l2", "relative", "leaves", "leaves_changed")
        rows = (
            {"tensor": t.name, "entries": t.entries, "changed": t.changed, "units": t.units, "exponent": t.exponent, "largest": t.largest,
             "l2": t.l2, "relative": math.nan if t.relative is None else t.relative, "leaves": t.leaves, "leaves_changed": t.leaves_changed}
            for t in comparing.distance(*states).tensors
        )  # fmt: skip
        return Listing(rows, columns)

    def agreement(self, first: str, second: str, on: str) -> Listing:
        """Return a row for all rows of a probe set, and for those of each class and context: how often two versions are right there.

        p is McNemar's, corrected for all lines. No rows for a set without classes. Raises BadArgument, ShapeMismatch, ModelError.
        """
        both, probes = self._seen((first, second), on, layers=False)
        columns = ("of", "rows", "right_first", "right_second", "only_first", "only_second", "p")
        found = agreeing.agreement(_output(both[0]), _output(both[1]), probes)
        rows = (
            {"of": r.of or "all", "rows": r.n, "right_first": r.right_a, "right_second": r.right_b, "only_first": r.only_a,
             "only_second": r.only_b, "p": r.p}
            for r in found.accuracies
        )  # fmt: skip
        return Listing(rows, columns)

    def layers(self, first: str, second: str, on: str) -> Listing:
        """Return a row a layer: how far what it gives for a probe set is apart in two versions, over the norm of the first's."""
        both, _ = self._seen((first, second), on, layers=True)
        columns = ("layer", "values", "equal", "relative")
        rows = ({"layer": r.name, "values": r.values, "equal": r.equal, "relative": r.relative} for r in layers_apart(*both)[0])
        return Listing(rows, columns)

    def matrix(self, model: str | None = None, on: str | None = None, versions: str = matrix.HEADS) -> Listing:
        """Return a row a model and context that was scored; the bases are among them. versions: "heads" or "all".

        score is the accuracy, or the mean loss where the labels are targets. Raises BadArgument where it isn't clear what is meant.
        """
        found = matrix.build(self._store, *matrix.choose(self._store, model, on), versions)
        columns = ("name", "device", "version", "context", "rows", "score", "mean_loss", "unfit", "scored")
        rows = (
            {"name": row.name, "device": row.device, "version": 0 if row.version is None else row.version.version, "context": context,
             "rows": one.n, "score": matrix.score_of(one, found.classes),
             "mean_loss": math.nan if one.loss is None or one.n == one.broken else one.loss / (one.n - one.broken),
             "unfit": "" if row.unfit is None else row.unfit.words, "scored": listing.time_of(one.at)}
            for row in (*found.bases, *found.rows) if not row.fault for context, one in row.scores.items() if context in found.contexts
        )  # fmt: skip
        return Listing(rows, columns)

    def feasible(
        self, device: str | None = None, context: str = "", *, model: str | None = None, on: str | None = None, count: int = 10
    ) -> Listing:
        """Return a row a model, the best first: whose would do for a device, or in a context; the base and the device's own among them.

        low and high: a 95 % interval; p_no_better_than_base: by a paired test. Raises BadArgument, as the command does.
        """
        lineage = None if device is None else naming.find_lineage(self._store, naming.parse(device))
        if count < 1:
            raise BadArgument(reason=f"count is {count}", fix="a whole number above 0: how many models of others are told")
        of, probe = matrix.choose(self._store, model if lineage is None else lineage.model, on)
        asked = sets.context_name(sets.parse_context(context))
        found = ranking.rank(self._store, of, probe, device=lineage, context=asked, count=count, bases=self._bases, spare=self._spare)
        columns = ("name", "role", "device", "score", "low", "high", "rows", "p_no_better_than_base", "data_apart", "hardware")
        rows = (
            {"name": one.name, "role": one.role, "device": one.device, "score": one.score.value, "low": one.score.low,
             "high": one.score.high, "rows": one.score.rows, "p_no_better_than_base": one.ahead,
             "data_apart": math.nan if one.apart is None else one.apart, "hardware": dict(one.hardware)}
            for one in found.models
        )  # fmt: skip
        return Listing(rows, columns)

    def biased(self, model: str | None = None, fields: Sequence[str] = ()) -> Listing:
        """Return a row a device and field, the most unlike the fleet first; `biased` says which differ beyond chance.

        fields: those alone. Raises AmbiguousName, UnknownVersion, BadArgument.
        """
        found = fleets.judge_fleet(fleets.read_fleet(self._store, model), fields)
        columns = ("device", "field", "biased", "psi", "chance", "p", "words", "where", "share", "fleet_share", "samples")
        rows = (
            {"device": one.device, "field": one.field, "biased": one.beyond, "psi": one.psi, "chance": one.by_chance, "p": one.p,
             "words": one.words, "where": one.event, "share": one.share, "fleet_share": one.fleet_share, "samples": one.samples}
            for one in found.findings
        )  # fmt: skip
        return Listing(rows, columns)

    def lacks(self, model: str | None = None) -> Listing:
        """Return a row a device and context that it hardly sees: how its model, the base and the best other do there, and who sees it."""
        fleet = fleets.read_fleet(self._store, model)
        found = helping.lacks_of(self._store, fleet, fleets.judge_fleet(fleet))
        columns = ("device", "context", "share", "fleet_share", "own", "base", "best", "best_score", "seen_by")
        rows = (
            {"device": one.device, "context": one.context, "share": one.share, "fleet_share": one.fleet_share, "own": _score(one.own),
             "base": _score(one.base), "best": "" if one.best is None else one.best.name, "best_score": _score(one.best),
             "seen_by": [device for device, _ in one.seen_by]}
            for one in found
        )  # fmt: skip
        return Listing(rows, columns)

    def merges(self) -> Listing:
        """Return a row a version that a base was made of; of a device that was erased there is none."""
        columns = ("base", "rule", "merged", "of", "parent", "commit", "weight")
        return Listing(self._merges(), columns)

    def _merges(self) -> Iterator[Row]:
        for base in self._store.bases.all():
            origin = parents.origin_of(self._store, base.file)
            for one in () if origin is None else origin.parents:
                assert origin is not None
                yield {
                    "base": base.name, "rule": origin.merge.rule, "merged": listing.time_of(origin.merge.at), "of": origin.base,
                    "parent": str(one), "commit": one.version.commit.hex(), "weight": one.weight,
                }  # fmt: skip

    def _places(self, names: Iterable[str]) -> list[naming.Place]:
        return [naming.find(self._store, naming.parse(name)) for name in names]

    def _seen(self, names: tuple[str, str], on: str, *, layers: bool) -> tuple[list[VersionSeen], sets.ProbeSet]:
        row = sets.find(self._store, on)
        probes, places = sets.load(self._store, row), self._places(names)
        for place in places:
            sets.check_fits(probes, [sets.input_of(self._bases[place.base].file, str(place))], row.name)
        both = intermediates.seen(self._store, places, row, probes, self._bases, now=0, layers=layers, exact=True, keep=False)
        for one in both:
            if one.reason:
                raise ModelError(model=one.name, reason=f"on {row.name}: {one.reason}", fix="fleet.compare compares weights alone")
        return both, probes


def _require_count(count: int) -> None:
    if count < 1:
        raise BadArgument(reason=f"count is {count}, and rows are counted from 1 on", fix="count=5")


_NEAR = ("version", "device", "model", "number", "distance", "changed")


def _neighbours(found: Search) -> Listing:
    rows = (
        {"version": str(one), "device": one.lineage.device, "model": one.lineage.model, "number": one.version.version,
         "distance": one.apart.distance, "changed": one.apart.changed}
        for one in found.neighbours
    )  # fmt: skip
    return Listing(rows, _NEAR)


def _output(one: VersionSeen) -> F32:
    assert one.output is not None  # or it has a reason, which `_seen` raises
    return one.output


def _score(one: Scored | None) -> float:
    return math.nan if one is None else one.score
