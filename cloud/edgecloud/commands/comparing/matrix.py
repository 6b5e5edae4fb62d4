"""`edgecloud matrix`: how each device's model does in each context of a probe set."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from edgecloud.feasibility import evaluating
from edgecloud.feasibility import matrix as of_fleet
from edgecloud.feasibility.matrix import ContextSummary, FeasibilityMatrix, MatrixRow
from edgecloud.registry import EvaluationRow
from edgecommon.printing import Answer, visible
from edgecommon.tables import Column, cut, terminal_width

from ..answer import Document, ago, now, progress, registry_of, sentences, table
from .plots import add_plot, draw_matrix, plot_of

NAME = "matrix"
HELP = "Show how each device's model does in each context of a probe set."
EXAMPLES = (
    "edgecloud matrix --update", "edgecloud matrix --model digits --on roads", "edgecloud matrix --versions all --json",
    "edgecloud matrix --plot matrix.svg",
)  # fmt: skip
ROWS_SHOWN = 100  # models above which the fleet is summarised
NAMED = 12  # of a list in a sentence, at most
NAME_WIDTH, CELL, NOTE = 16, 7, 8  # cells of a terminal: of a name, a score and a mark


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="M", help="which model; needed where the fleet has several")
    parser.add_argument("--on", metavar="PROBES", help="the probe set; needed where the model has several")
    what = "each device's newest verified version (default), or every version that is held"
    parser.add_argument("--versions", choices=(of_fleet.HEADS, of_fleet.ALL_VERSIONS), default=of_fleet.HEADS, help=what)
    parser.add_argument("--labels", action="store_true", help="each class is a context, too")
    what = "score what is missing, and what could not be run before; kept as it goes, so it may be interrupted"
    parser.add_argument("--update", action="store_true", help=what)
    add_plot(parser, "the matrix")


def run(args: argparse.Namespace) -> Answer:
    scored, plot = None, plot_of(args)
    with registry_of(args, readonly=not args.update) as store:
        model, probe = of_fleet.choose(store, args.model, args.on)
        found = of_fleet.build(store, model, probe, args.versions, labels=args.labels)
        if args.update and (left := [*found.missing, *found.failed]):
            scored = evaluating.evaluate(store, probe, left, progress=progress("versions"))
            found = of_fleet.build(store, model, probe, args.versions, labels=args.labels)
    summary, odd = of_fleet.summarise(found), of_fleet.outstanding(found)
    known = [row for row in found.rows if row.scores]
    if plot is not None:
        drawn = [*found.bases, *_ordered(found, known)]
        draw_matrix(plot, found, drawn, [_short(row) for row in drawn])
    document: Document = {
        "model": model, "probes": probe.name, "digest": probe.digest, "measure": "accuracy" if found.classes else "mean loss",
        "contexts": [{"context": context, "n": n} for context, n in zip(found.contexts, found.sizes, strict=True)],
        "bases": [_document(row, found) for row in found.bases], "models": [_document(row, found) for row in found.rows],
        "missing": len(found.missing), "failed": len(found.failed), "others": found.others,
        "scored_now": 0 if scored is None else scored.versions, "seconds": None if scored is None else round(scored.seconds, 3),
        "summary": [_summary(one) for one in summary],
        "outstanding": [
            {"name": row.name, "context": context, "score": _number(score), "deviations": round(apart, 2)}
            for row, context, score, apart in odd
        ],
    }  # fmt: skip
    text = _head(found, known) + "\n"
    if not found.rows:
        text += f"no verified version of {found.model} takes these rows: edgecloud probes add NAME FILE.npz, with rows that it takes"
    elif not known:
        text += "nothing is scored yet: edgecloud matrix --update"
    elif len(known) > ROWS_SHOWN:
        text += _summed(summary, found.classes)
    else:
        text += _grid(found, known)
    return Answer(document, "\n".join([text, *filter(None, (sentences(_remarks(found, odd)),))]))


def _head(found: FeasibilityMatrix, known: Sequence[MatrixRow]) -> str:
    measure = "accuracy in %" if found.classes else "mean loss"
    at, times = now(), [row.at for row in known if row.at is not None]
    ages = list(dict.fromkeys([ago(max(times), at), ago(min(times), at)])) if times else []
    counts = f"{found.sizes[0]:,} rows; {len(known):,} of {len(found.rows):,} versions"
    return sentences([f"{found.model} on {found.probes.name}: {measure} on {counts}" + (f" scored {' to '.join(ages)}" if ages else "")])


def _grid(found: FeasibilityMatrix, known: Sequence[MatrixRow]) -> str:
    """Return the matrix in one screen: the bases, and the models, the best first."""
    values = {row.name: found.values([row])[0].tolist() for row in (*found.bases, *known)}
    width = terminal_width()
    short = {row.name: _short(row) for row in (*found.bases, *known)}
    names = max(map(len, short.values()), default=0) if width is None else min(NAME_WIDTH, max(map(len, short.values()), default=0))
    shown = len(found.contexts) if width is None else max(1, min(len(found.contexts), (width - names - NOTE) // CELL))
    heads = [context.partition("=")[2] or "all" for context in found.contexts[:shown]]
    cells = [max(CELL, len(head) + 2) if width is None else CELL for head in heads]
    tags = [context.partition("=")[0] for context in found.contexts[:shown]]
    above = "".join(_over(tag, sum(cells[i] for i in range(shown) if tags[i] == tag)) for tag in dict.fromkeys(tags))
    lines = [" " * names + above, " " * names + "".join(_head_cell(word, size) for word, size in zip(heads, cells, strict=True))]
    counts = (_head_cell(str(n), size) for n, size in zip(found.sizes, cells, strict=False))
    lines.append(cut("rows", names).ljust(names) + "".join(counts))
    for row in (*found.bases, *_ordered(found, known)):
        mark = "  unfit" if row.unfit is not None else "  failed" if row.fault else ""
        scores = zip(values[row.name][:shown], cells, strict=True)
        lines.append(cut(short[row.name], names).ljust(names) + "".join(_cell(v, size, found.classes) for v, size in scores) + mark)
    left = len(found.contexts) - shown
    return "\n".join(line.rstrip() for line in lines) + (f"\n{left} more contexts: | less -S shows all columns" if left else "")


def _ordered(found: FeasibilityMatrix, known: Sequence[MatrixRow]) -> list[MatrixRow]:
    """Return models, the best first."""
    first = dict(zip((row.name for row in known), found.values(known)[:, 0].tolist(), strict=True))
    return sorted(known, key=lambda row: _order(row, first[row.name], found.classes))


def _head_cell(word: str, size: int) -> str:
    return f"  {visible(word)[: size - 2]}".rjust(size)


def _over(tag: str, size: int) -> str:
    """Return the name of a tag over all of its values."""
    return f"  {cut(visible(tag), size - 2)} ".ljust(size, "-")[:size] if tag else " " * size


def _short(row: MatrixRow) -> str:
    """Return a model's name without the model's, which all have in common."""
    return visible(row.name if row.version is None else f"{row.device}@{row.version.version}")


def _cell(value: float, size: int, classes: bool) -> str:
    said = "-" if math.isnan(value) else f"{100 * value:.1f}" if classes else f"{value:.4g}"
    return f"  {said}".rjust(size)


def _order(row: MatrixRow, value: float, classes: bool) -> tuple[bool, bool, float, str]:
    """Return what a model stands by in the list: the best first, behind the others what is not known and what is unfit."""
    return row.unfit is not None, math.isnan(value), 0.0 if math.isnan(value) else -value if classes else value, row.name


def _summed(summary: Sequence[ContextSummary], classes: bool) -> str:
    def say(value: float) -> str:
        return _cell(value, 0, classes).strip()

    rows = [
        (s.context or "all rows", s.n, say(s.base), f"{say(s.low)} to {say(s.high)}", say(s.median), say(s.best_score),
         _without_model(s.best), say(s.worst_score), _without_model(s.worst))
        for s in summary
    ]  # fmt: skip
    head = (
        Column("context"), Column("rows", 3), Column("base", 1), Column("10 to 90 in 100", 2), Column("median"), Column("best"),
        Column("by", 4), Column("worst"), Column("of", 4),
    )  # fmt: skip
    return table(head, rows)


def _without_model(name: str) -> str:
    """Return DEVICE@VERSION of DEVICE/MODEL@VERSION."""
    return f"{name.partition('/')[0]}@{name.rpartition('@')[2]}"


def _remarks(found: FeasibilityMatrix, odd: Sequence[tuple[MatrixRow, str, float, float]]) -> list[str]:
    out = []
    if found.missing:
        names = [_short(row) for row in found.rows if not row.scores]
        out.append(f"{len(names):,} versions are not scored yet: {_listed(names)}: edgecloud matrix --update")
    for row in [row for row in found.rows if row.fault][:NAMED]:
        out.append(f"{row.name} could not be run: {row.fault}")
    unfit = [row for row in found.rows if row.unfit is not None]
    for row in unfit[:NAMED]:
        assert row.unfit is not None
        out.append(f"{row.name} is {row.unfit.words}")
    if len(unfit) > NAMED:
        out.append(f"{len(unfit) - NAMED:,} more are unfit: --json lists them")
    if odd and len(found.rows) > ROWS_SHOWN:
        said = [f"{_short(row)} ({context or 'all rows'}: {_cell(score, 0, found.classes).strip()})" for row, context, score, _ in odd]
        out.append(f"{len(odd):,} stand out: {_listed(said)}")
    if found.others:
        out.append(f"{found.others:,} versions take other rows than those of {found.probes.name}, or tell fewer classes")
    return out


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


def _document(row: MatrixRow, found: FeasibilityMatrix) -> Document:
    return {
        "name": row.name, "device": row.device or None, "version": None if row.version is None else row.version.version,
        "at": row.at, "fault": row.fault or None, "unfit": None if row.unfit is None else row.unfit.words,
        "scores": {c: _score(row.scores[c], found.classes) for c in found.contexts if c in row.scores and not row.fault},
    }  # fmt: skip


def _score(row: EvaluationRow, classes: bool) -> Document:
    return {
        "n": row.n, "right": row.right, "score": _number(of_fleet.score_of(row, classes)),
        "mean_loss": None if row.loss is None or row.n == row.broken else row.loss / (row.n - row.broken), "broken": row.broken,
    }  # fmt: skip


def _summary(one: ContextSummary) -> Document:
    return {
        "context": one.context, "n": one.n, "models": one.models, "best": one.best, "best_score": one.best_score, "worst": one.worst,
        "worst_score": one.worst_score, "median": one.median, "tenth": one.low, "ninetieth": one.high, "base": _number(one.base),
    }  # fmt: skip


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
