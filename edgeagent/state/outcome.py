"""What a round came to, and what its update says of it beside the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeagent.samples import cards
from edgeagent.training.guard import Score
from modelwire.cards.card import Card
from modelwire.output_head import forgotten, row_ids
from modelwire.wire import cbor

CLAMPED_MAX = 1000  # tensors that an update names as clamped: a reader takes 16 KiB of extension. The device itself knows all of them

OF_ONE = (row_ids.KEY, forgotten.KEY)  # what is true of one version alone and of no sum


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round of training came to, accepted or not."""

    round: int
    before: Score | None
    after: Score | None
    samples: int
    steps: int
    trained_id: int
    ended: int  # Unix seconds
    threshold: float | None = None  # from which score on a sample is an anomaly; None for a model that does not score
    mode: str = ""  # in which it was trained
    card: Card | None = None  # what may leave of the samples that came; without its losses
    untold: bool = False  # there was no room for the card: the next one tells of the same samples


def metrics(outcome: Outcome, clamped: Sequence[int] = ()) -> dict[str, cbor.Value]:
    """Return what an update says of its round beside the weights."""
    out: dict[str, cbor.Value] = {"samples": outcome.samples, "steps": outcome.steps}
    if outcome.mode:
        out["mode"] = outcome.mode
    for name, score in (("before", outcome.before), ("after", outcome.after)):
        if score is not None and score.loss == score.loss:
            out[f"loss_{name}"] = score.loss
        if score is not None and score.accuracy is not None:
            out[f"accuracy_{name}"] = score.accuracy
    if outcome.threshold is not None:
        out["threshold"] = outcome.threshold
    if clamped:
        out["clamped"] = list(clamped[:CLAMPED_MAX])
    if outcome.card is not None:
        losses = (score.loss if score is not None else None for score in (outcome.before, outcome.after))
        out["card"] = cards.sealed(outcome.card, *losses)
    return out


def merged(extensions: Sequence[Mapping[str, cbor.Value]], versions: Sequence[int]) -> dict[str, cbor.Value]:
    """Return the extension of one update that carries several: from the first one's `before` to the last one's `after`."""
    out: dict[str, cbor.Value] = {}
    skipped = set(versions[:-1])
    clamped: set[int] = set()
    told = [value for e in extensions if isinstance(value := e.get("card"), bytes)]
    for e in extensions:
        for key, value in e.items():
            if key == "skipped" and isinstance(value, list):
                skipped.update(n for first, last in _pairs(value) for n in range(first, last + 1))
            elif key == "clamped" and isinstance(value, list):
                clamped.update(n for n in value if isinstance(n, int))
            elif key == "steps" and isinstance(value, int):
                known = out.get("steps", 0)
                out["steps"] = value + (known if isinstance(known, int) else 0)
            elif key == "card":
                out["card"] = told[0] if len(told) == 1 else cards.merged_bytes(told)
            elif key in OF_ONE:
                continue
            elif key not in out or not key.endswith("_before"):
                out[key] = value
    if clamped:
        out["clamped"] = sorted(clamped)[:CLAMPED_MAX]  # type: ignore[assignment]
    out["skipped"] = [list(pair) for pair in ranges(sorted(skipped))]
    return out


def ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return rising numbers as (first, last) runs."""
    out: list[tuple[int, int]] = []
    for n in numbers:
        if out and out[-1][1] == n - 1:
            out[-1] = (out[-1][0], n)
        else:
            out.append((n, n))
    return out


def said(versions: Sequence[int]) -> str:
    """Return rising versions as a person reads them: @3, @5..@7."""
    return ", ".join(f"@{a}" if a == b else f"@{a}..@{b}" for a, b in ranges(versions))


def _pairs(value: list[cbor.Value]) -> list[tuple[int, int]]:
    return [(p[0], p[1]) for p in value if isinstance(p, list) and len(p) == 2 and isinstance(p[0], int) and isinstance(p[1], int)]
