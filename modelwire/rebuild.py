"""Rebuild versions from states and containers, and prove them: the one way in which an update becomes a model."""

from __future__ import annotations

from collections.abc import Iterable

from .container import Container
from .errors import ModelWireError, RootMismatch
from .state import ModelState
from .update import Kind


def rebuild(state: ModelState, container: Container, *, prove: bool = True) -> ModelState:
    """Return the state after the update; `state` itself is left as it was. The base's arrays are shared.

    state: of the parent (delta), or of any version of the same base (snapshot).
    prove: compare the root, which hashes all weights; the fingerprint is always compared.
    Raises WrongBase, RootMismatch, or what ModelState.apply_container raises.
    """
    after = state.at_base() if container.header.kind is Kind.SNAPSHOT else state.copy()
    after.apply_container(container)
    if prove:
        prove_root(after, container)
    return after


def apply_many(state: ModelState, chain: Iterable[Container]) -> int:
    """Move `state` along a chain of updates, in place and without copies, and return how many there were.

    Each link is applied whole or not at all, and its fingerprint compared; `prove_root` is for the last one. On an error `state`
    is the one after the links before, and the error's fact `link` tells how many those are. Raises as ModelState.apply_container.
    """
    done = 0
    for update in chain:
        try:
            state.apply_container(update)
        except ModelWireError as error:
            error.facts["link"] = done
            raise
        done += 1
    return done


def prove_root(state: ModelState, update: Container) -> None:
    """Raise RootMismatch unless the state's weights have the root that the update names: hashing takes longer than applying."""
    header = update.header
    if state.root != header.root:
        device = f"{header.device}/{header.model}"
        raise RootMismatch(what=f"{device}@{header.version}", kind="root", device=device)
