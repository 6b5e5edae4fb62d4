"""What a round came to, as text and as a document."""

from __future__ import annotations

from typing import Any

from edgeagent.training.guard import Score

from .round import RoundReport


def as_document(r: RoundReport) -> dict[str, Any]:
    o = r.outcome
    return {
        "model": r.model, "round": r.round, "accepted": r.accepted, "reason": r.reason, "version": r.version, "kind": r.kind,
        "mode": o.mode, "why": r.why, "note": r.note, "forms": dict(r.forms),
        "decision": r.decided.document if r.decided is not None else None,
        "bytes": r.bytes, "kept": r.kept, "weights": r.weights, "samples": o.samples, "steps": o.steps, "seconds": round(r.seconds, 3),
        "loss_before": _loss(o.before), "loss_after": _loss(o.after),
        "accuracy_before": o.before.accuracy if o.before else None, "accuracy_after": o.after.accuracy if o.after else None,
    }  # fmt: skip


def as_text(r: RoundReport) -> str:
    o = r.outcome
    if not r.accepted:
        return f"{r.model}: round {r.round} rejected: {r.reason}"
    assert o.before is not None and o.after is not None
    accuracy = "" if o.after.accuracy is None else f", accuracy {o.before.accuracy:.3f} -> {o.after.accuracy:.3f}"
    least = min(r.forms, key=lambda kind: r.forms[kind], default="")
    dearer = f"; as a {least} it would take {r.forms[least]}" if least and r.bytes > r.forms[least] else ""
    waits = f"; {r.decided.plan.reason}" if r.decided is not None and r.decided.hold else ""
    return (
        f"{r.model}: round {r.round} ({o.mode}) is @{r.version}: loss {o.before.loss:.4f} -> {o.after.loss:.4f}{accuracy}; "
        f"{r.kind} of {r.bytes} bytes ({100 * r.bytes / (4 * r.weights):.2f} % of float32){dearer}{waits}{f'; {r.note}' if r.note else ''}"
    )


def _loss(score: Score | None) -> float | None:
    """Return the loss, or None where there is none: JSON has no NaN."""
    return score.loss if score is not None and score.loss == score.loss and abs(score.loss) != float("inf") else None
