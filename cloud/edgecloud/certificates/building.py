"""Certificates, requests and lists of revoked ones as X.509 writes them: P-256 throughout, which every broker's TLS knows."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgecommon.certificates import name_of, public_bytes
from modelwire.errors import CertificateRefused

REQUEST_MAX = 16 * 1024  # bytes
HOSTS_MAX = 20
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\Z")


@dataclass(frozen=True, slots=True)
class AuthorityKey:
    """A CA's key with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_text(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key in PEM, as a file of mode 0600 holds it."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def pem(made: x509.Certificate | x509.CertificateRevocationList) -> str:
    return made.public_bytes(serialization.Encoding.PEM).decode("ascii")


def authority(
    name: str, key: ec.EllipticCurvePrivateKey, since: int, until: int, *, by: AuthorityKey | None = None
) -> x509.Certificate:
    """Return the certificate of a CA: signed by itself, or by the CA before it, so that who knows that one alone believes this one."""
    subject = _name(name)
    issuer = subject if by is None else by.certificate.subject
    builder = _begun(subject, issuer, key.public_key(), since, until)
    # An older CA signs a newer one, which signs boards: one step between, and no more.
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1 if by is None else 0), critical=True)
    builder = builder.add_extension(_usage(sign=True), critical=True)
    return _signed(builder, key if by is None else by.key)


def leaf(
    name: str, key: CertificatePublicKeyTypes, since: int, until: int, *, by: AuthorityKey, hosts: Sequence[str] = ()
) -> x509.Certificate:
    """Return the certificate of a client, or of a server when it has hosts. One is never good as the other."""
    use = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = _begun(_name(name), by.certificate.subject, key, since, until)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(sign=False), critical=True).add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
    return _signed(builder, by.key)


def revocation_list(
    revoked: Sequence[tuple[int, int]], number: int, at: int, until: int, *, by: AuthorityKey
) -> x509.CertificateRevocationList:
    """Return the list of revoked (serial, when) of one CA.

    A broker that holds an outdated list lets nobody in: the list is good as long as the CA, and it is a file of ours that is replaced,
    not one that a stranger hands over.
    """
    builder = x509.CertificateRevocationListBuilder().issuer_name(by.certificate.subject)
    builder = builder.last_update(_time(at)).next_update(_time(until)).add_extension(x509.CRLNumber(number), critical=False)
    for serial, when in revoked:
        one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_time(when)).build()
        builder = builder.add_revoked_certificate(one)
    return builder.sign(by.key, hashes.SHA256())


def public_key_of_request(data: bytes, name: str, what: str) -> CertificatePublicKeyTypes:
    """Return the public key that a device asks a certificate for. Of the request nothing else is taken. Raises CertificateRefused."""
    fix = f"on the board of {name}: edgeagent certificate request"
    try:
        request = x509.load_pem_x509_csr(data)
        asked, key = name_of(request), request.public_key()  # type: ignore[arg-type]
        genuine = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CertificateRefused(certificate=what, reason=f"is no request for a certificate: {error}", fix=fix) from None
    if not genuine:
        raise CertificateRefused(certificate=what, reason="is not signed by the key that it asks for", fix=fix)
    if asked != name:
        raise CertificateRefused(certificate=what, reason=f"asks for {asked[:80]!r}, not for {name!r}", fix=fix)
    if not _strong(key):
        raise CertificateRefused(certificate=what, reason="asks for a key that is too weak, or of no use here", fix=fix)
    return key


def public_key_of(certificate: str) -> CertificatePublicKeyTypes:
    """Return the public key of a certificate of ours, in PEM."""
    key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    assert isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey))
    return key


def valid_host(text: str) -> bool:
    """Return whether a text is the name or the address of one host."""
    try:
        _host(text)
    except ValueError:
        return False
    return True


def key_digest(key: CertificatePublicKeyTypes) -> str:
    """Return what stands for a public key in the ledger."""
    import hashlib

    return hashlib.sha256(public_bytes(key)).hexdigest()


def _strong(key: CertificatePublicKeyTypes) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return 2048 <= key.key_size <= 8192
    return isinstance(key, ed25519.Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in ("secp256r1", "secp384r1", "secp521r1")
    )


def _begun(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, since: int, until: int
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(_time(since)).not_valid_after(_time(until))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return builder.add_extension(identifier, critical=False).sign(key, hashes.SHA256())


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign, key_cert_sign=sign, crl_sign=sign, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        if not _HOST.match(text):
            raise ValueError(f"{text!r} is no name of a host") from None
        return x509.DNSName(text)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
