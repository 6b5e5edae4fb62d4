"""What later releases say beside what this one knows: a map `more`, some of whose keys must be understood. docs/protocol.md, "More"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modelwire.errors import Malformed, NotUnderstood

from . import cbor

KEY = "more"
CRITICAL = "!"  # a key that starts so must be understood; this release knows none


def to_be_sent(values: Mapping[str, cbor.Value]) -> dict[str, cbor.Value]:
    """Return what stands for `values` in the map around them: nothing when there are none."""
    return {KEY: dict(values)} if values else {}


def taken(around: dict[str, cbor.Value], what: str) -> Mapping[str, cbor.Value]:
    """Take `more` out of the map around it and return it. Raises Malformed, NotUnderstood for an unknown critical key."""
    if KEY not in around:
        return {}
    values = around.pop(KEY)
    if not isinstance(values, dict) or not values:
        raise Malformed(what=what, reason="more is not a map with content")
    check_keys(values, what)
    return values


def check_keys(keys: Iterable[str], what: str) -> None:
    """Raise NotUnderstood when a key is critical: whoever wrote it wants no answer from a reader that does not know it."""
    for key in keys:
        if key.startswith(CRITICAL):
            raise NotUnderstood(what=what, got=f"the critical key {key[:40]!r}")
