"""Signatures and their domains (protocol page, Signatures; container page, Ed25519)."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .errors import BadSignature

UPDATE = b"modelwire update 1\0"
LINK = b"modelwire link 1\0"


def verify(keys: Iterable[bytes], domain: bytes, fleet: bytes, message: bytes, signature: bytes) -> bytes:
    """Give the first of the keys that has signed, or refuse (C79, C84, C107 to C109, P6, P37, P40, P41, P43, P46, P79)."""
    for key in keys:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, domain + fleet + message)
        except (InvalidSignature, ValueError):
            continue
        return key
    raise BadSignature("C79, C84, C107 to C109, P6, P37, P40, P41, P43, P46, P79: none of the wanted keys has signed")


def public_key(private: bytes) -> bytes:
    """Give the public key of 32 private bytes."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def sign(private: bytes, domain: bytes, fleet: bytes, message: bytes) -> bytes:
    """Sign a message in a domain, for a fleet."""
    return Ed25519PrivateKey.from_private_bytes(private).sign(domain + fleet + message)
