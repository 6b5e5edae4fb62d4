"""What later releases say beside what this one knows: a map `more`, some of whose keys must be understood. docs/protocol.md, "More"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from modelwire.errors import Malformed, NotUnderstood
from modelwire.text import is_plain

from . import cbor

KEY = "more"
CRITICAL = "!"  # a key that starts so must be understood; this release knows none
TROUBLES = "troubles"  # of a hello: what befalls the board and its operator is to know
TROUBLES_MAX = 8  # in one hello
TROUBLE_TEXT_MAX = 200  # characters, for people
_TROUBLE = re.compile(r"[a-z]+(-[a-z]+)*\Z")
_TROUBLE_MAX = 32  # characters of an id


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


def troubles_said(troubles: Mapping[str, str]) -> dict[str, cbor.Value]:
    """Return what a hello says of a board's troubles, in words by their ids; nothing when there are none."""
    said: list[cbor.Value] = [[name, text[:TROUBLE_TEXT_MAX]] for name, text in sorted(troubles.items())[:TROUBLES_MAX]]
    return {TROUBLES: said} if said else {}


def troubles_in(values: Mapping[str, cbor.Value]) -> dict[str, str]:
    """Return the troubles that a hello says; none when the key is not there, or has another form."""
    said = values.get(TROUBLES)
    if not isinstance(said, list) or len(said) > TROUBLES_MAX:
        return {}
    out: dict[str, str] = {}
    for one in said:
        if not isinstance(one, list) or len(one) != 2:
            return {}
        name, text = one
        if not isinstance(name, str) or not isinstance(text, str) or len(name) > _TROUBLE_MAX or len(text) > TROUBLE_TEXT_MAX:
            return {}
        if not _TROUBLE.match(name) or not is_plain(text):
            return {}
        out[name] = text
    return out
