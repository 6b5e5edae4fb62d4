"""What a certificate must be before it gets in place on this device: its own, for its key, by its CA."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from edgecommon import files
from edgecommon.certificates import Life, check_chain, day, is_authority, life_of, name_of, public_bytes, read_certificates
from modelwire.errors import BadArgument, CertificateRefused, MissingFile

KEY_MAX = 16 * 1024
Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
_CLOCK_WAS_SET = 1_700_000_000  # Unix seconds, November 2023: a clock before it was never set, and judges nothing


def checked(data: bytes, bundle: bytes, device: str, key: Path, given: str, now: float) -> Life:
    """Return how long the certificate in a PEM text is good, which `bundle` signed for this device and its key.

    given: what it is called in errors. Raises CertificateRefused, Malformed, MissingFile, BadArgument.
    """
    chain, authorities = read_certificates(data, given), read_certificates(bundle, "the CA's ca.pem")
    if not all(is_authority(one) for one in authorities):
        raise CertificateRefused(certificate="the CA's ca.pem", reason="holds a certificate that is no CA's", fix="name the CA's own file")
    check_chain(chain, authorities, given)
    _check_own(chain[0], device, private_key(key), given)
    life = life_of(data, given)
    if life.word(now) in ("ended", "early") and now > _CLOCK_WAS_SET:
        reason = f"{life.told(now)}; this machine's clock says {day(int(now))}"
        raise CertificateRefused(certificate=given, reason=reason, fix="on the centre: edgecloud ca renew; or set this machine's clock")
    _check_loads(data, key, given)
    return life


def private_key(path: Path) -> Private:
    """Return the private key for TLS. Raises MissingFile, BadArgument when it lies open."""
    try:
        files.require_closed(path)
        with files.open_regular(path) as file:
            key = serialization.load_pem_private_key(file.read(KEY_MAX), None)
    except FileNotFoundError:
        raise MissingFile(path=path, what="this device's private key for TLS", fix="edgeagent certificate request makes it") from None
    except files.NotPrivateError as error:
        raise BadArgument(reason=f"link.tls_key: {error}", fix=error.fix) from None
    except (OSError, ValueError, TypeError) as error:
        raise BadArgument(reason=f"link.tls_key: {path} holds no private key that can be used: {error}", fix=f"ls -l {path}") from None
    if not isinstance(key, Private):
        raise BadArgument(reason=f"link.tls_key: {path} holds a key of a kind that is not used", fix="remove it: a request makes a new one")
    return key


def _check_loads(data: bytes, key: Path, given: str) -> None:
    """Raise CertificateRefused for what TLS would not load: one behind the first, which nothing proves, keeps an agent from starting."""
    import ssl  # the link has it, where a certificate comes by it

    with os.fdopen(os.memfd_create("certificate"), "wb") as file:  # no file of the disk, which may be full
        file.write(data)
        file.flush()
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(f"/proc/self/fd/{file.fileno()}", key)
        except (ssl.SSLError, OSError) as error:
            fix = "on the centre: edgecloud ca renew"
            raise CertificateRefused(certificate=given, reason=f"can't be used for TLS: {error}", fix=fix) from None


def _check_own(one: x509.Certificate, device: str, key: Private, given: str) -> None:
    if name_of(one) != device:
        fix = f"edgecloud ca issue {device}"
        raise CertificateRefused(certificate=given, reason=f"is {name_of(one)[:80]!r}'s, and this device is {device!r}", fix=fix)
    if public_bytes(one.public_key()) != public_bytes(key.public_key()):
        fix = "edgeagent certificate request, and have that one issued"
        raise CertificateRefused(certificate=given, reason="is for another key than this device has", fix=fix)
    try:
        uses = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    if is_authority(one) or ExtendedKeyUsageOID.CLIENT_AUTH not in uses:
        raise CertificateRefused(certificate=given, reason="is no client's certificate", fix=f"edgecloud ca issue {device}")
