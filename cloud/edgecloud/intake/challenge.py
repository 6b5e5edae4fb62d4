"""The challenge that a hello must answer before it opens an epoch: computed anew from what it binds, so that nothing is kept."""

from __future__ import annotations

import hashlib
import hmac
import struct

from modelwire.wire.records import Hello

SLOT = 300  # seconds; an answer is good in the slot of its challenge and in the one after it
SECRET_BYTES = 32


def challenge(secret: bytes, said: Hello, now: int) -> bytes:
    """Return what a hello is to answer that would open an epoch now. secret: random, made when the ingester starts."""
    return _of_slot(secret, said, now // SLOT)


def since(secret: bytes, commit: bytes) -> bytes:
    """Return a secret whose challenges can't be answered by a hello that was said before this commit was the head."""
    return hmac.new(secret, b"since 1\0" + commit, hashlib.sha256).digest()


def answered(secret: bytes, said: Hello, now: int) -> bool:
    """Return whether a hello answers the challenge of its device, model, key and state, in this slot of time or the one before."""
    slot = now // SLOT
    # Both are looked at, whichever fits: how long it takes tells nothing.
    fits = [hmac.compare_digest(said.answer, _of_slot(secret, said, s)) for s in (slot, slot - 1)]
    return any(fits)


def _of_slot(secret: bytes, said: Hello, slot: int) -> bytes:
    if len(secret) < SECRET_BYTES:
        raise ValueError("a challenge needs a secret")
    bound = b"\0".join((said.device.encode(), said.model.encode(), said.key + said.state + struct.pack("<q", slot)))
    return hmac.new(secret, b"challenge 1\0" + bound, hashlib.sha256).digest()
