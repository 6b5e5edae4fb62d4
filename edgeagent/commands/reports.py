"""What a round came to, as text and as a document; and how rounds get at the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeagent.features.exact_course import MODE as FEATURES
from edgeagent.features.gathering import Extractors
from edgeagent.rounds.round import Report
from edgeagent.state.folder import Device
from edgeagent.training import int8_head
from edgeagent.training.batches import Trainable
from edgeagent.training.guard import Score

if TYPE_CHECKING:
    from edgecommon.runtime import Runtime


class Opener:
    """Opens models for rounds. The runtime takes 10 to 60 MB: it is loaded with the first model, and what never opens one never does."""

    def __init__(self, state: Path) -> None:
        """state: the agent's state folder."""
        self.extractors = Extractors(state)
        self._found: Runtime | None = None

    def __call__(self, file: bytes, name: str) -> Trainable:
        """Return a model to train; an int8 head needs no runtime. Raises RuntimeUnusable or NotTrainable."""
        if int8_head.trains(file, model=name):
            return int8_head.Int8Model(file, model=name)
        if self._found is None:
            from edgecommon import runtime

            self._found = runtime.load()
        return self._found.open(file, model=name, signature="")


def opener(device: Device, *, eager: bool) -> Opener:
    """Return what opens a model for a round. eager: find the runtime now, and what it will be known as in hello.

    Raises RuntimeUnusable, at once or at the first round; an int8 head needs no runtime.
    """
    made = Opener(device.database.path.parent)
    for name, lineage in device.lineages.items() if eager else ():
        if device.settings.model(name).train.mode == FEATURES:
            lineage.set_runtime(made.extractors.runtime_key(lineage))
        else:
            lineage.set_runtime(made(lineage.load().file, name).runtime_key)
    return made


def as_document(r: Report) -> dict[str, Any]:
    o = r.outcome
    return {
        "model": r.model, "round": r.round, "accepted": r.accepted, "reason": r.reason, "version": r.version, "kind": r.kind,
        "mode": o.mode, "why": r.why, "note": r.note,
        "bytes": r.bytes, "kept": r.kept, "weights": r.weights, "samples": o.samples, "steps": o.steps, "seconds": round(r.seconds, 3),
        "loss_before": _loss(o.before), "loss_after": _loss(o.after),
        "accuracy_before": o.before.accuracy if o.before else None, "accuracy_after": o.after.accuracy if o.after else None,
    }  # fmt: skip


def as_text(r: Report) -> str:
    o = r.outcome
    if not r.accepted:
        return f"{r.model}: round {r.round} rejected: {r.reason}"
    assert o.before is not None and o.after is not None
    accuracy = "" if o.after.accuracy is None else f", accuracy {o.before.accuracy:.3f} -> {o.after.accuracy:.3f}"
    return (
        f"{r.model}: round {r.round} ({o.mode}) is @{r.version}: loss {o.before.loss:.4f} -> {o.after.loss:.4f}{accuracy}; "
        f"{r.kind} of {r.bytes} bytes ({100 * r.bytes / (4 * r.weights):.2f} % of float32){f'; {r.note}' if r.note else ''}"
    )


def _loss(score: Score | None) -> float | None:
    """Return the loss, or None where there is none: JSON has no NaN."""
    return score.loss if score is not None and score.loss == score.loss and abs(score.loss) != float("inf") else None
