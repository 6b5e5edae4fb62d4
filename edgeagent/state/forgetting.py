"""Does what the centre asks when samples are to be unlearned: drops them here, and takes over the model that never saw them.

The centre computes that model by replaying recipes; here its difference from the head is applied, proven by its root, and becomes a
new version of this device like any other. Nothing is half done: the samples go first, and the same command does the rest again.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.samples.spool import Spool
from modelwire.errors import Malformed, ModelWireError
from modelwire.lattice.rebuild import apply, prove_root
from modelwire.lattice.snap import Snapped, no_residual
from modelwire.limits import DEFAULT, Limits
from modelwire.output_head.forgotten import KEY, Forgotten, forgotten_of
from modelwire.update import container
from modelwire.update.sections import Kind
from modelwire.wire.records import Adopt

from .lineage import Lineage
from .outcome import Outcome

LIMIT = Limits(container=DEFAULT.record)  # what fits in a record


@dataclass(frozen=True, slots=True)
class Done:
    """What came of the command."""

    ok: bool
    text: str  # for the operator


def read(lineage: Lineage, asked: Adopt) -> tuple[container.Container, Forgotten]:
    """Return the update that a command carries, and what it forgets. Raises WireError for one that is not for this model."""
    update = container.parse_unsigned(asked.update, LIMIT)
    header = update.header
    if (header.device, header.model) != (lineage.board.device, lineage.name):
        raise Malformed(what=asked.KIND, reason=f"its update is of {header.device}/{header.model}")
    if header.kind is not (Kind.EXACT if lineage.manifest.all_exact else Kind.DELTA):
        raise Malformed(what=asked.KIND, reason=f"its update is of kind {header.kind.name.lower()}")
    update.check_schema(lineage.manifest.schema)
    forgotten = forgotten_of(header.extension)
    if forgotten is None:
        raise Malformed(what=asked.KIND, reason="its update says not what is forgotten")
    return update, forgotten


def drop(lineage: Lineage, spool: Spool, asked: Adopt) -> int:
    """Drop the samples that a command says from the spool, and return how many were there. Raises WireError."""
    return spool.drop(lineage.name, read(lineage, asked)[1].samples)


def adopt(lineage: Lineage, asked: Adopt, now: int) -> Done:
    """Move the head to the model that the centre asks for, as a new version, and queue its update; or say why it can't be.

    The same command again changes nothing. Raises WireError for a command that is not for this model.
    """
    update, forgotten = read(lineage, asked)
    done = lineage.done(asked.id)
    if done:
        return Done(True, f"@{done} forgot {forgotten}")
    head = lineage.head()
    if (head.epoch, head.commit) != (update.header.epoch, update.header.parent):
        return Done(False, f"the head has moved on to @{head.version}; ask again")
    if head.blocked:
        return Done(False, f"nothing more can be sent in this epoch: {head.blocked}"[:500])
    state, note = lineage.load().state, f"forgot {forgotten}"
    try:
        apply(state, update)
        prove_root(state, update)
        sections = update.sections(lineage.manifest.schema)
        sealed = lineage.seal(head, update.header.kind, sections, state, {"note": note, KEY: forgotten.encode()})
    except ModelWireError as e:
        return Done(False, e.message[:500])
    residual = no_residual(lineage.manifest)
    written = lineage.store.write(head.slot, state, residual)
    snapped = Snapped(update.header.kind, sections, state, residual, head.step, (), moved=sections)
    outcome = Outcome(head.rounds, None, None, 0, 0, head.trained_id, now)
    version = lineage.adopt(head, snapped, written, sealed, outcome, command=asked.id, note=note)
    return Done(True, f"@{version} forgot {forgotten}")
