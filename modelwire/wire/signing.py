"""Ed25519 keys and signatures, with a domain for each use so that a signature of one thing is never one of another."""

from __future__ import annotations

from modelwire.errors import BadSignature, Malformed

from . import ed25519

KEY_BYTES = 32
SIGNATURE_BYTES = 64
UPDATE = b"modelwire update 1\0"
RECORD = b"modelwire record 1\0"


class PrivateKey:
    """A device's or the fleet's own key."""

    def __init__(self, seed: bytes) -> None:
        """seed: 32 secret bytes, the RFC 8032 private key. Raises Malformed for another length."""
        if len(seed) != KEY_BYTES:
            raise Malformed(what="private key", reason=f"{len(seed)} bytes instead of {KEY_BYTES}")
        self._seed = bytes(seed)
        self.public = ed25519.curve().public_of(self._seed)

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """Return the 64-byte signature of `message` in `domain`."""
        return ed25519.curve().sign(self._seed, domain + message)


def verify(public: bytes, domain: bytes, message: bytes, signature: bytes, *, what: str, signer: str) -> None:
    """Raise BadSignature unless `signature` is the one of `public` over `message` in `domain`."""
    try:
        good = ed25519.curve().verifies(public, domain + message, signature)
    except ValueError:  # a public key that is none
        good = False
    if not good:
        raise BadSignature(what=what, signer=signer)


def read_key(text: str, what: str) -> bytes:
    """Return the 32 bytes of a key written as 64 hexadecimal digits. Raises Malformed."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise Malformed(what=what, reason="a key is 64 hexadecimal digits")
    return key
