"""Takes over a model that the centre computed: one that forgot samples, which are dropped here too, or any other delta on the head.

Its difference from the head is applied, proven by its root, and becomes a new version of this device like any other. Nothing is half
done: the samples go first, and the same command does the rest again until it is answered.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeagent.samples.spool import Spool
from modelwire.errors import Malformed, ModelWireError
from modelwire.lattice.rebuild import apply, prove_root
from modelwire.lattice.snap import Snapped, no_residual
from modelwire.output_head.forgotten import KEY, Forgotten, forgotten_of
from modelwire.update.adopting import read_adopted, read_taken
from modelwire.update.container import Container
from modelwire.update.sections import Kind
from modelwire.wire import cbor
from modelwire.wire.records import Command

from .answers import Answered
from .lineage import Lineage
from .outcome import Outcome

TEXT_MAX = 500  # characters of an answer's text


def read(lineage: Lineage, asked: Command, carried: bytes) -> tuple[Container, Forgotten | None]:
    """Return the update that a command carries, and what it forgets, if anything. Raises WireError for one that is not for this model."""
    update = read_adopted(carried, asked)
    _check_kind(lineage, update, "adopt")
    return update, forgotten_of(update.header.extension)


def read_parts(lineage: Lineage, asked: Command, joined: bytes) -> Container:
    """Return the update that came in parts for a command `take`; it forgets nothing. Raises WireError as `read` does."""
    update = read_taken(joined, asked)
    if update.header.kind is not Kind.SNAPSHOT:
        _check_kind(lineage, update, "take")
    update.check_schema(lineage.manifest.schema)
    return update


def drop(lineage: Lineage, spool: Spool, forgotten: Forgotten | None) -> int:
    """Drop the samples that are to be forgotten from the spool, and return how many were there."""
    return spool.drop(lineage.name, forgotten.samples) if forgotten is not None else 0


def adopt(lineage: Lineage, asked: Command, update: Container, forgotten: Forgotten | None, dropped: int, now: int) -> Answered:
    """Move the head to the model that the centre asks for, as a new version, and queue its update; or say why it can't be.

    update, forgotten: what `read` gave; dropped: samples that went. The answer is kept with the version, in one transaction.
    """
    behind = f"; {dropped} samples were dropped from the spool" if dropped else ""

    def refused(text: str) -> Answered:
        answer = Answered(asked.number, False, f"{text[:TEXT_MAX]}{behind}")
        lineage.answers.keep(answer)
        return answer

    head = lineage.head()
    if (head.epoch, head.commit) != (update.header.epoch, update.header.parent):
        lineage.plans.release()  # what waits goes first: the centre asks on the head that it knows
        return refused(f"the head has moved on to @{head.version}; ask again")
    if head.blocked:
        return refused(f"nothing more can be sent in this epoch: {head.blocked}")
    what = f"forgot {forgotten}" if forgotten is not None else "adopted what the centre sent"
    if forgotten is None and lineage.wish() is not None:
        what = "took its last model back"
    extension: dict[str, cbor.Value] = {"note": what, **({KEY: forgotten.encode()} if forgotten is not None else {})}
    state = lineage.load().state
    try:
        apply(state, update)
        prove_root(state, update)
        sections = update.sections(lineage.manifest.schema)
        sealed = lineage.seal(head, update.header.kind, sections, state, extension)
    except ModelWireError as e:
        return refused(e.message)
    residual = no_residual(lineage.manifest)
    written = lineage.store.write(head.slot, state, residual)
    snapped = Snapped(update.header.kind, sections, state, residual, head.step, (), moved=sections)
    answer = Answered(asked.number, True, f"@{sealed.header.version} {what}{behind}")
    outcome = Outcome(head.rounds, None, None, 0, 0, head.trained_id, now)
    beside: Callable[[int], None] = (lambda version: None) if forgotten is None else (lambda version: lineage.forget_beside())
    lineage.adopt(head, snapped, written, sealed, outcome, answer=answer, note=what, beside=beside)
    if forgotten is not None:
        lineage.sweep_beside()
    return answer


def _check_kind(lineage: Lineage, update: Container, verb: str) -> None:
    kind = update.header.kind
    if kind is not (Kind.EXACT if lineage.manifest.all_exact else Kind.DELTA):
        raise Malformed(what=verb, reason=f"its update is of kind {kind.name.lower()}")
    update.check_schema(lineage.manifest.schema)
