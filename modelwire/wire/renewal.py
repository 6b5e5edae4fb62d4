"""What hello and welcome say in `more` of the certificate by which a broker knows a device. docs/protocol.md, "Certificate"."""

from __future__ import annotations

from collections.abc import Mapping

from . import cbor

KEY = "certificate"
DIGEST = 32  # bytes, of a hello: SHA-256 of the certificate that the device has
CHAIN_MAX = 8192  # bytes, of a welcome: certificates in DER, one behind the other


def held(more: Mapping[str, cbor.Value]) -> bytes:
    """Return the digest of the certificate that a hello says the device has; empty when it says none, or something else."""
    value = more.get(KEY)
    return value if isinstance(value, bytes) and len(value) == DIGEST else b""


def brought(more: Mapping[str, cbor.Value]) -> bytes:
    """Return the certificates that a welcome brings; empty when it brings none, or something else."""
    value = more.get(KEY)
    return value if isinstance(value, bytes) and DIGEST < len(value) <= CHAIN_MAX else b""
