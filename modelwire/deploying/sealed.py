"""Statements about deployments: a map in CBOR between a magic and a signature, read strictly. docs/protocol.md, "Desired and report"."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from modelwire import limits
from modelwire.errors import Malformed, TooLarge, WrongFleet
from modelwire.text import is_plain
from modelwire.wire import cbor, more, signing
from modelwire.wire.signing import SIGNATURE_BYTES, Role

TEXT_MAX = 1000  # characters
_HEAD = struct.Struct("<4sBBH16s")  # magic, version, role, bytes of CBOR, fleet id
_VERSION = 1


def seal(magic: bytes, values: Mapping[str, cbor.Value], key: signing.Signer, role: Role, fleet: bytes) -> bytes:
    """Return a statement, signed in a role for the fleet with this id. Raises TooLarge when no reader would take it."""
    content = cbor.encode(dict(values))
    size = _HEAD.size + len(content) + SIGNATURE_BYTES
    if size > limits.DEFAULT.record:
        raise TooLarge(what="the statement", size=size, limit=limits.DEFAULT.record)
    body = _HEAD.pack(magic, _VERSION, role, len(content), fleet) + content
    return body + key.sign(role.domain, fleet, body)


def opened(
    data: bytes, magic: bytes, what: str, public: bytes, role: Role, fleet: bytes, signer: str
) -> tuple[dict[str, cbor.Value], Mapping[str, cbor.Value]]:
    """Return the map of a statement that the key `public` signed in this role for this fleet, and what later releases say in it.

    The signature is proven before the map is looked at. Raises TooLarge, Malformed, WrongFleet, BadSignature, NotUnderstood.
    """
    if len(data) > limits.DEFAULT.record:
        raise TooLarge(what=what, size=len(data), limit=limits.DEFAULT.record)
    if len(data) < _HEAD.size + SIGNATURE_BYTES:
        raise Malformed(what=what, reason=f"{len(data)} bytes are too few")
    found, version, number, size, of = _HEAD.unpack_from(data)
    end = _HEAD.size + size
    if (found, version, number) != (magic, _VERSION, int(role)) or end + SIGNATURE_BYTES != len(data):
        raise Malformed(what=what, reason="it does not start as one of release 1, or its parts do not fill it exactly")
    if of != fleet:
        raise WrongFleet(what=what, got=of.hex(), expected=fleet.hex())
    signing.verify(public, role.domain, fleet, data[:end], data[end:], what=what, signer=signer)
    values = cbor.decode(data[_HEAD.size : end], what, limits.DEFAULT)
    if not isinstance(values, dict):
        raise Malformed(what=what, reason="it is no map")
    return values, more.taken(values, what)


def content(data: bytes, what: str) -> dict[str, cbor.Value]:
    """Return the map of a statement, of which no seal is looked at: for who has proven it before. Raises Malformed, TooLarge."""
    if len(data) < _HEAD.size + SIGNATURE_BYTES:
        raise Malformed(what=what, reason=f"{len(data)} bytes are too few")
    values = cbor.decode(data[_HEAD.size : -SIGNATURE_BYTES], what, limits.DEFAULT)
    if not isinstance(values, dict):
        raise Malformed(what=what, reason="it is no map")
    return values


class Reader:
    """Takes fields out of a map one after another, each of its type and range; what is left in the end is too much."""

    def __init__(self, values: Mapping[str, cbor.Value], what: str) -> None:
        self._values, self._what = dict(values), what

    def whole(self, name: str, least: int = 0, most: int = (1 << 63) - 1) -> int:
        """Return a whole number within least..most."""
        value = self._take(name)
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(name, f"is no whole number from {least} to {most}")
        return value

    def yes(self, name: str) -> bool:
        """Return true or false."""
        value = self._take(name)
        if type(value) is not bool:
            raise self._wrong(name, "is neither true nor false")
        return value

    def text(self, name: str, most: int = TEXT_MAX) -> str:
        """Return a plain text of so many characters at most."""
        value = self._take(name)
        if not isinstance(value, str) or len(value) > most or not is_plain(value):
            raise self._wrong(name, f"is no plain text of at most {most} characters")
        return value

    def exactly(self, name: str, *lengths: int) -> bytes:
        """Return bytes, as many as one of the lengths says."""
        value = self._take(name)
        if not isinstance(value, bytes) or len(value) not in lengths:
            raise self._wrong(name, f"is not of {' or '.join(map(str, lengths))} bytes")
        return value

    def blob(self, name: str, most: int) -> bytes:
        """Return bytes, so many at most."""
        value = self._take(name)
        if not isinstance(value, bytes) or len(value) > most:
            raise self._wrong(name, f"is not of {most} bytes at most")
        return value

    def map(self, name: str) -> dict[str, cbor.Value]:
        """Return a map within the map."""
        value = self._take(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "is no map")
        return value

    def each(self, name: str, most: int, good: Callable[[cbor.Value], bool], what: str) -> tuple[cbor.Value, ...]:
        """Return a list of at most so many, each of which is good. what: the words for one, as "is no list of {what}"."""
        value = self._take(name)
        if not isinstance(value, list) or len(value) > most or not all(good(one) for one in value):
            raise self._wrong(name, f"is no list of at most {most} {what}")
        return tuple(value)

    def end(self) -> None:
        """Raise Malformed when something is left."""
        if self._values:
            raise Malformed(what=self._what, reason=f"unknown fields {sorted(map(str, self._values))}"[:200])

    def _take(self, name: str) -> cbor.Value:
        if name not in self._values:
            raise Malformed(what=self._what, reason=f"the field {name} is missing")
        return self._values.pop(name)

    def _wrong(self, name: str, why: str) -> Malformed:
        return Malformed(what=self._what, reason=f"{name} {why}")
