"""Rebuild a version from its parent's state and its container, and prove it: the one way in which an update becomes a model."""

from __future__ import annotations

from .container import Container
from .errors import RootMismatch, WrongBase
from .state import ModelState
from .update import Kind


def rebuild(state: ModelState, container: Container, *, prove: bool = True) -> ModelState:
    """Return the state after the update; `state` itself is left as it was.

    state: of the parent (delta), or of any version of the same base (snapshot).
    prove: compare the root, which hashes all weights; the fingerprint is always compared, before anything is computed.
    Raises WrongBase, RootMismatch, or what ModelState.apply raises.
    """
    manifest, header = state.manifest, container.header
    if header.kind is Kind.SNAPSHOT and header.base != manifest.commit:
        raise WrongBase(what="the snapshot", kind="base", expected=manifest.commit.hex()[:16], got=header.base.hex()[:16])
    sections = container.sections(manifest.schema)
    after = state.copy()
    after.apply(header.kind, sections, expect=header.fingerprint)
    if prove and after.root != header.root:
        name = f"{header.device}/{header.model}@{header.version}"
        raise RootMismatch(what=name, kind="root", device=f"{header.device}/{header.model}")
    return after
