"""A staged base is served on trial, and then taken over or taken back. Each is one transaction; links and files follow it.

A kill before the transaction leaves all as it was, and one behind it is made good at the next start: `History.repair`.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace

from edgeagent.state.beside.rows import Lies, PlacedBase
from edgeagent.state.lineage import Lineage
from edgeagent.state.slots import SLOTS
from edgecommon import disk
from modelwire.errors import LineageError, TooLarge, WrongBase
from modelwire.lattice.candidates import Residual
from modelwire.lattice.snap import no_residual
from modelwire.lattice.state import ModelState
from modelwire.tflite.file import read_weights

from . import places
from .learned import ANEW, KEPT

_log = logging.getLogger("edgeagent.deploying")


def _nothing() -> None:
    pass


def soak(
    lineage: Lineage, state: ModelState, residual: Residual, word: str, *, now: int, beside: Callable[[], None] = _nothing
) -> PlacedBase:
    """Serve a model on the staged base; the head, and what the centre knows, stay where they are.

    state, residual: of the staged base; word: what became of what was learned. now: Unix seconds. beside: writes what else belongs to it,
    in the same transaction. Raises LineageError where nothing is staged, WrongBase for a state of another base, DiskUnwritable.
    """
    staged = _staged(lineage)
    if state.manifest.commit != staged.commit:
        raise WrongBase(what="what is to soak", kind="base", expected=staged.commit.hex()[:16], got=state.manifest.commit.hex()[:16])
    passive, head = lineage.beside.passive(), lineage.head()
    shared = passive.slot if passive is not None and passive.place == staged.place and passive.slot else SLOTS[1]
    written = lineage.beside_store(staged).write(shared, state, residual)  # the way back stays whole where both lie at one place
    alike = word == KEPT  # then the units are, and what was found about steps in them holds
    step = head.step
    _serve(lineage, replace(
        staged, lies=Lies.SOAKING, slot=written.slot, file_sha256=written.file_sha256, private_sha256=written.private_sha256,
        learned=word, widen=json.dumps(list(head.widen) if alike else []), step=json.dumps([step.m, step.s] if alike and step else []),
        learned_of=head.file_sha256, at=now,
    ), beside)  # fmt: skip
    return _soaking(lineage)


def soak_as_it_lies(lineage: Lineage, *, now: int, beside: Callable[[], None] = _nothing) -> PlacedBase:
    """Serve the model of the way back, as it was when it was left; its base as it is, where it has no model of its own any more.

    Raises LineageError unless something is staged: `places.back` does that.
    """
    staged, head = _staged(lineage), lineage.head()
    if not staged.slot:  # it had learned what was to be forgotten
        store, manifest = lineage.beside_store(staged), staged.parsed()
        base = ModelState.of_base(manifest, manifest.schema.flat(read_weights(store.base())))
        return soak(lineage, base, no_residual(manifest), ANEW, now=now, beside=beside)
    _serve(lineage, replace(staged, lies=Lies.SOAKING, learned=KEPT, learned_of=head.file_sha256, at=now), beside)
    return _soaking(lineage)


def revert(lineage: Lineage, why: str, *, beside: Callable[[], None] = _nothing) -> None:
    """Serve again what the head names, and let go of what was staged or soaking; a way back stays. Nothing happens where nothing is."""
    under_way = lineage.beside.under_way()
    with lineage.outbox.transaction():
        if under_way is not None:
            lineage.beside.drop(under_way)
        beside()
    lineage.serve()  # before its files go: the link leads there
    places.free(lineage)
    if under_way is not None:
        _log.warning("%s: the base %s is not taken: %s", lineage.name, under_way.commit.hex()[:12], why)


def confirm(lineage: Lineage, now: int, *, beside: Callable[[], None] = _nothing) -> int:
    """Take over what soaks: queue the snapshot that names its base, and return its version. What was served before is passive then.

    What was queued before goes before it, as it is. now: Unix seconds. Raises StateDamaged for files that are not whole, LineageError
    where nothing soaks or the model was moved meanwhile, NotWelcome without an epoch, TooLarge when no container holds it; all is as
    before then.
    """
    soaking = _soaking(lineage)
    stored = lineage.load_beside(soaking)
    if lineage.plans.joins():  # it waited to go as one, and later it can't: what follows is a barrier
        with contextlib.suppress(TooLarge):
            lineage.coalesce()
    note = f"went over to the base {soaking.commit.hex()[:12]}: {soaking.learned}"
    version = lineage.go_over(soaking, stored.state, now, note=note, beside=beside)
    lineage.serve()
    with disk.named(lineage.journal):
        lineage.journal.unlink(missing_ok=True)  # of a round on the base before
    places.free(lineage)
    return version


def _serve(lineage: Lineage, soaking: PlacedBase, beside: Callable[[], None]) -> None:
    with lineage.outbox.transaction():
        lineage.beside.put(soaking)
        beside()
    lineage.serve()


def _staged(lineage: Lineage) -> PlacedBase:
    placed = lineage.beside.under_way()
    if placed is None or placed.lies is not Lies.STAGED:
        raise LineageError(reason=f"no base is staged for {lineage.name}")
    return placed


def _soaking(lineage: Lineage) -> PlacedBase:
    placed = lineage.beside.soaking()
    if placed is None:
        raise LineageError(reason=f"no base of {lineage.name} is served on trial")
    return placed
