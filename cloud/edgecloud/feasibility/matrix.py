"""The fleet's feasibility matrix: how each device's model does in each context of a probe set, from what was scored and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecloud.probes import sets
from edgecloud.registry import EvaluationRow, LineageRow, ProbeRow, Store, VersionRow
from modelwire.errors import BadArgument

from . import evaluating, fitness
from .fitness import UnfitVersion

HEADS, ALL_VERSIONS = "heads", "all"
OUTSTANDING = 3.5  # robust standard deviations from the median, above which a model stands out: Iglewicz and Hoaglin's bound


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One version; or a base, whose version is None."""

    name: str  # DEVICE/MODEL@VERSION, or the base's name
    device: str
    version: VersionRow | None
    scores: dict[str, EvaluationRow]  # by context; empty: not scored yet
    unfit: UnfitVersion | None

    @property
    def at(self) -> int | None:
        """When it was scored."""
        return max((row.at for row in self.scores.values()), default=None)

    @property
    def fault(self) -> str:
        return next((row.fault for row in self.scores.values() if row.fault), "")


@dataclass(frozen=True, slots=True)
class FeasibilityMatrix:
    """Models by contexts. values: accuracy, or mean loss where the labels are targets; NaN where nothing is known."""

    model: str
    probes: ProbeRow
    contexts: tuple[str, ...]  # the first is of all rows: ""
    sizes: tuple[int, ...]  # rows of each context
    classes: bool  # scores are accuracies: more is better; else mean losses
    bases: tuple[MatrixRow, ...]
    rows: tuple[MatrixRow, ...]
    others: int  # versions that take other rows than these

    @property
    def missing(self) -> list[VersionRow]:
        """The versions that are not scored yet."""
        return [row.version for row in self.rows if row.version is not None and not row.scores]

    @property
    def failed(self) -> list[VersionRow]:
        """Those that could not be run when they were scored."""
        return [row.version for row in self.rows if row.version is not None and row.fault]

    def values(self, rows: Sequence[MatrixRow] | None = None) -> NDArray[np.float64]:
        """Return the scores [rows, contexts], of all versions where none are named."""
        of = self.rows if rows is None else rows
        return np.array([[score_of(row.scores.get(context), self.classes) for context in self.contexts] for row in of]).reshape(
            len(of), len(self.contexts)
        )


@dataclass(frozen=True, slots=True)
class ContextSummary:
    """How a fleet does in one context."""

    context: str
    n: int  # rows of the probe set
    models: int  # that were scored
    best: str  # its name
    best_score: float
    worst: str
    worst_score: float
    median: float
    low: float  # the tenth and the ninetieth of a hundred
    high: float
    base: float  # NaN: it was not scored


def choose(store: Store, model: str | None, on: str | None) -> tuple[str, ProbeRow]:
    """Return the model and the probe set that are meant; where one is not named there must be one alone. Raises BadArgument."""
    models = sorted({lineage.model for lineage in store.lineages.all()})
    row = None if on is None else sets.find(store, on)
    if model is None and row is not None and row.model:
        model = row.model
    if model is None:
        if len(models) != 1:
            fix = f"--model NAME: {', '.join(models[:12])}" if models else "edgecloud devices lists what devices have"
            raise BadArgument(reason="the fleet has several models" if models else "no device has a model yet", fix=fix)
        model = models[0]
    if model not in models:
        raise BadArgument(reason=f"no device has a model {model!r}", fix=f"there are {', '.join(models[:12]) or 'none'}")
    if row is None:
        of = [one for one in store.probes.all() if one.model in ("", model)]
        if len(of) != 1:
            fix = f"--on NAME: {', '.join(one.name for one in of[:12])}" if of else "edgecloud probes add NAME FILE.npz"
            raise BadArgument(reason=f"there are several probe sets for {model}" if of else f"there is no probe set for {model}", fix=fix)
        row = of[0]
    elif row.model not in ("", model):
        raise BadArgument(reason=f"the probe set {row.name!r} is of the model {row.model!r}", fix=f"--model {row.model}")
    return model, row


def build(store: Store, model: str, probe: ProbeRow, versions: str = HEADS, *, labels: bool = False) -> FeasibilityMatrix:
    """Return the matrix as far as it was scored. versions: HEADS or ALL_VERSIONS. labels: classes are contexts, too.

    Raises BadArgument for a set without labels.
    """
    named = evaluating.heads(store, model) if versions == HEADS else evaluating.everything(store, model)
    held = sets.load(store, probe)
    evaluating.require_labels(probe, held)
    fits = {row.id for row in evaluating.fitting(store, probe, [row for _, row in named], held)}
    chosen = [(lineage, row) for lineage, row in named if row.id in fits]
    commits = sorted({row.base for _, row in chosen})
    ids = [row.id for _, row in chosen]
    known = store.evaluations.matrix(probe.digest, [*ids, *commits])
    unfit = fitness.unfit(store, ids, [probe.digest])
    prepared = {context: len(held.rows(context)) for context in ("", *held.contexts())}
    if labels:
        prepared |= _label_sizes(known, prepared)
    return FeasibilityMatrix(
        model, probe, tuple(prepared), tuple(prepared.values()), held.labels is not None,
        tuple(_base_row(store, commit, known[commit]) for commit in commits),
        tuple(_version_row(lineage, row, known[row.id], unfit.get(row.id)) for lineage, row in chosen), len(named) - len(chosen),
    )  # fmt: skip


def summarise(of: FeasibilityMatrix) -> list[ContextSummary]:
    """Return how the scored models do in each context; unfit ones are not among them."""
    rows = [row for row in of.rows if row.scores and not row.fault and row.unfit is None]
    values, base = of.values(rows), of.values(of.bases)
    out = []
    for k, context in enumerate(of.contexts):
        known = [(float(values[i, k]), row.name) for i, row in enumerate(rows) if np.isfinite(values[i, k])]
        if not known:
            continue
        order = sorted(known, key=lambda one: (-one[0] if of.classes else one[0], one[1]))
        some = np.array([one[0] for one in known])
        bases = base[:, k][np.isfinite(base[:, k])]
        low, median, high = np.quantile(some, (0.1, 0.5, 0.9)).tolist()
        out.append(
            ContextSummary(
                context, of.sizes[k], len(known), order[0][1], order[0][0], order[-1][1], order[-1][0], median, low, high,
                float(bases.mean()) if len(bases) else float("nan"),
            )
        )  # fmt: skip
    return out


def outstanding(of: FeasibilityMatrix) -> list[tuple[MatrixRow, str, float, float]]:
    """Return the scored models that stand out in a context: row, context, score, and robust standard deviations from the fleet's median.

    Each model by the context in which it is farthest out; the farthest first.
    """
    rows = [row for row in of.rows if row.scores and not row.fault]
    if len(rows) < 8:
        return []  # of so few none is usual
    values = of.values(rows)
    out = []
    with np.errstate(invalid="ignore"):
        middle = np.nanmedian(values, 0)
        noise = np.sqrt(np.maximum(middle * (1 - middle), 0.01) / np.array(of.sizes)) if of.classes else np.zeros(len(of.sizes))
        spread = np.maximum(1.4826 * np.nanmedian(np.abs(values - middle), 0), noise)
        apart = (values - middle) / np.where(spread > 0, spread, np.inf)
    for i, row in enumerate(rows):
        if np.isfinite(apart[i]).any():
            k = int(np.nanargmax(np.abs(apart[i])))
            if abs(apart[i, k]) > OUTSTANDING:
                out.append((row, of.contexts[k], float(values[i, k]), float(apart[i, k])))
    return sorted(out, key=lambda one: (-abs(one[3]), one[0].name))


def score_of(row: EvaluationRow | None, classes: bool) -> float:
    """Return the accuracy of a row, or its mean loss where there are no classes; NaN where it is not known."""
    if row is None or row.fault:
        return float("nan")
    if classes:
        return float("nan") if row.right is None else row.right / row.n
    return float("nan") if row.loss is None or row.broken else row.loss / row.n


def _base_row(store: Store, commit: bytes, scores: dict[str, EvaluationRow]) -> MatrixRow:
    base = store.bases.get(commit)
    return MatrixRow(f"base {base.name if base is not None else commit.hex()[:16]}", "", None, scores, None)


def _version_row(lineage: LineageRow, row: VersionRow, scores: dict[str, EvaluationRow], unfit: UnfitVersion | None) -> MatrixRow:
    return MatrixRow(f"{lineage}@{row.version}", lineage.device, row, scores, unfit)


def _label_sizes(known: dict[int | bytes, dict[str, EvaluationRow]], tags: dict[str, int]) -> dict[str, int]:
    """Return the classes that were scored as contexts, in their order, with their rows."""
    found = {
        context: row.n
        for scores in known.values()
        for context, row in scores.items()
        if context not in tags and context.startswith(f"{evaluating.LABEL}=")
    }
    return dict(sorted(found.items(), key=lambda one: int(one[0].partition("=")[2])))
