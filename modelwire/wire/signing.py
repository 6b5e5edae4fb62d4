"""Ed25519 keys and signatures. Each binds the fleet's id and has a domain of its own for who speaks and which way.

So a signature of one thing is never one of another, one role's never another's, and a namesake fleet's never ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from modelwire.errors import BadSignature, Malformed

from . import ed25519

KEY_BYTES = 32
FLEET_ID_BYTES = 16
SIGNATURE_BYTES = 64
UPDATE = b"modelwire update 1\0"  # of a device, over a container's commit
LINK = b"modelwire link 1\0"  # of the receipt key, over a link of the centre's log


class Role(IntEnum):
    """Who says a record, by its number in the envelope."""

    DEVICE = 1  # up, by the device's own key
    RECEIPT = 2  # down, by the key that the ingester holds
    COMMAND = 3  # down, by the operator's key
    ACT = 4  # to the registry, by the operator's key: never meant for a device
    DIRECTOR = 5  # down, by the key that rolls variants out
    ROOT = 6  # down, by the fleet's own key

    @property
    def domain(self) -> bytes:
        return b"modelwire %s 1\0" % self.name.lower().encode()


@dataclass(frozen=True, slots=True)
class Fleet:
    """What every board is given of its fleet, by a way that it trusts: `fleet.pub`."""

    root: bytes  # public key, 32 bytes
    id: bytes  # 16 random bytes: names collide


class Signer(Protocol):
    """What signs: a private key that is here, or one that somebody else keeps and signs with when asked."""

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""

    def sign(self, domain: bytes, fleet: bytes, message: bytes) -> bytes:
        """Return the 64-byte signature of `message` in `domain`, in the fleet with this id."""


class PrivateKey:
    """A key that signs by itself."""

    def __init__(self, seed: bytes) -> None:
        """seed: 32 secret bytes, the RFC 8032 private key. Raises Malformed for another length."""
        if len(seed) != KEY_BYTES:
            raise Malformed(what="private key", reason=f"{len(seed)} bytes instead of {KEY_BYTES}")
        self._seed = bytes(seed)
        self.public = ed25519.curve().public_of(self._seed)

    def sign(self, domain: bytes, fleet: bytes, message: bytes) -> bytes:
        """Return the 64-byte signature of `message` in `domain`, in the fleet with this id."""
        return ed25519.curve().sign(self._seed, domain + fleet + message)


def verify(public: bytes, domain: bytes, fleet: bytes, message: bytes, signature: bytes, *, what: str, signer: str) -> None:
    """Raise BadSignature unless `signature` is the one of `public` over `message`, in `domain` and the fleet with this id."""
    try:
        good = ed25519.curve().verifies(public, domain + fleet + message, signature)
    except ValueError:  # a public key that is none
        good = False
    if not good:
        raise BadSignature(what=what, signer=signer)
