"""Rebuild versions from states and containers, and prove them: the one way in which an update of any kind becomes a model."""

from __future__ import annotations

from collections.abc import Iterable

from modelwire import limits
from modelwire.errors import KernelError, ModelWireError, ReplayMismatch, RootMismatch
from modelwire.lattice.replay import kind_of, update_of
from modelwire.update.container import Container
from modelwire.update.sections import Kind, Sections

from .state import Counted, ModelState


def rebuild(state: ModelState, container: Container, *, prove: bool = True, limit: limits.Limits = limits.DEFAULT) -> ModelState:
    """Return the state after the update; `state` itself is left as it was. The base's arrays are shared.

    state: of the parent (delta, exact, recipe), or of any version of the same base (snapshot).
    prove: compare the root, which hashes all weights; the fingerprint is always compared.
    Raises WrongBase, RootMismatch, or what `apply` raises.
    """
    after = state.at_base() if container.header.kind is Kind.SNAPSHOT else state.copy()
    apply(after, container, limit)
    if prove:
        prove_root(after, container)
    return after


def apply(
    state: ModelState, container: Container, limit: limits.Limits = limits.DEFAULT, *, counted: Counted | None = None
) -> None:
    """Move `state` to the state after the update, in place, its fingerprint compared; on an error every bit is as it was.

    A recipe is replayed: that takes as long as its training, which `limit` bounds. Raises what ModelState.apply_container raises, and of
    a recipe TooLarge for too long a training, ModelError when its layers are not in this model, TrainingDiverged or NonFinite.
    counted: as `apply_container` says; a recipe has no stream, and counts nothing.
    """
    if container.header.kind is not Kind.RECIPE:
        state.apply_container(container, counted=counted)
        return
    sections = replayed(state, container, limit)
    try:
        state.apply(kind_of(state), sections, expect=container.header.fingerprint)
    except RootMismatch:
        raise _other(container, "fingerprint") from None
    except ModelWireError as error:
        raise _of(container, error) from None


def replayed(state: ModelState, container: Container, limit: limits.Limits = limits.DEFAULT) -> Sections:
    """Return the delta that the container's recipe comes to on `state`, its parent, which is left as it is. Raises as `apply` does."""
    container.check_schema(state.manifest.schema)
    try:
        return update_of(state, container.recipe(limit), limit)
    except ModelWireError as error:
        raise _of(container, error) from None


def apply_many(state: ModelState, chain: Iterable[Container], limit: limits.Limits = limits.DEFAULT) -> int:
    """Move `state` along a chain of updates, in place and without copies, and return how many there were. For notebooks and the bench.

    Each link is applied whole or not at all, and its fingerprint compared; `prove_root` is for the last one. On an error `state`
    is the one after the links before, and the error's fact `link` tells how many those are. Raises as `apply`.
    """
    done = 0
    for update in chain:
        try:
            apply(state, update, limit)
        except ModelWireError as error:
            error.facts["link"] = done
            raise
        done += 1
    return done


def prove_root(state: ModelState, update: Container) -> None:
    """Raise RootMismatch unless the state's weights have the root that the update names: hashing takes longer than applying."""
    if state.root != update.header.root:
        raise _other(update, "root")


def _other(update: Container, kind: str) -> RootMismatch:
    cls = ReplayMismatch if update.header.kind is Kind.RECIPE else RootMismatch
    return cls(what=update.name, kind=kind, device=f"{update.header.device}/{update.header.model}")


def _of(update: Container, error: ModelWireError) -> ModelWireError:
    """Return the error with the version's name in it; the processor's own trouble is nobody's recipe."""
    if isinstance(error, KernelError):
        return error
    facts = dict(error.facts)
    subject = next((name for name in ("model", "what", "tensor", "reason") if f"{{{name}}}" in error.text and name in facts), "")
    if subject and update.name not in str(facts[subject]):
        facts[subject] = f"the recipe of {update.name}: {facts[subject]}"
    return type(error)(**facts)
