"""Certificates as both sides judge them: whose one is, who signed it, how long it is good, and when it is to be renewed.

How long is read without `cryptography`: an agent that only asks for the date does not load it.
"""

from __future__ import annotations

import binascii
import calendar
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecommon.files import open_regular
from modelwire.errors import CertificateRefused, Malformed, MissingFile

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

FILE_MAX = 256 * 1024  # bytes of a file with certificates, chains and bundles included
CHAIN_MAX = 8  # certificates in one file
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")
_SEQUENCE, _INTEGER, _VERSION = 0x30, 0x02, 0xA0


@dataclass(frozen=True, slots=True)
class Life:
    """How long a certificate is good, in Unix seconds."""

    since: int
    until: int

    @property
    def renew_from(self) -> int:
        """The time at which two thirds of its life are over."""
        return self.since + (self.until - self.since) * 2 // 3

    def word(self, now: float) -> str:
        """Return `good`, `due` from two thirds of its life on, `ended`, or `early` before it begins."""
        if now < self.since:
            return "early"
        return "ended" if now > self.until else "due" if now >= self.renew_from else "good"

    def told(self, now: float) -> str:
        """Return that as part of a sentence."""
        says = {"good": "is good until", "due": "is past two thirds of its life, and ends on", "ended": "ended on"}
        word = self.word(now)
        return f"is good from {day(self.since)} on" if word == "early" else f"{says[word]} {day(self.until)}"


def day(seconds: int) -> str:
    """Return a time as people read it, in UTC."""
    return time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(seconds))


def life_of(data: bytes, what: str = "certificate") -> Life:
    """Return the life of the first certificate in a PEM text. Raises Malformed."""
    return life_of_bytes(_ders(data, what)[0])


def life_of_bytes(der: bytes) -> Life:
    """Return the life of a certificate in DER. Raises Malformed."""
    try:
        return _life(der)
    except (IndexError, ValueError):
        raise Malformed(what="certificate", reason="is no certificate") from None


def chain_bytes(data: bytes, what: str = "certificate") -> bytes:
    """Return the certificates of a PEM text in DER, one behind the other. Raises Malformed."""
    return b"".join(_ders(data, what))


def first_bytes(data: bytes, what: str = "certificate") -> bytes:
    """Return the first certificate of a PEM text in DER. Raises Malformed."""
    return _ders(data, what)[0]


def as_pem(chain: bytes) -> bytes:
    """Return a PEM text of certificates in DER, one behind the other. Raises Malformed."""
    out, at = [], 0
    try:
        while at < len(chain):
            _, _, end = _element(chain, at, _SEQUENCE)
            text = binascii.b2a_base64(chain[at:end], newline=False)
            lines = b"\n".join(text[i : i + 64] for i in range(0, len(text), 64))
            out.append(b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n")
            at = end
    except (IndexError, ValueError):
        raise Malformed(what="certificate", reason="is no chain of certificates") from None
    return b"".join(out)


def read_file(path: Path, what: str) -> bytes:
    """Return what a file with certificates holds. Raises MissingFile, CertificateRefused."""
    try:
        with open_regular(path) as file:
            data = file.read(FILE_MAX + 1)
    except FileNotFoundError:
        raise MissingFile(path=path, what=what) from None
    except OSError as error:
        raise CertificateRefused(certificate=path, reason=str(error.strerror), fix="name a file with certificates in PEM") from None
    if len(data) > FILE_MAX:
        raise CertificateRefused(certificate=path, reason=f"is above {FILE_MAX} bytes", fix="name a file with certificates in PEM")
    return data


def read_certificates(data: bytes, what: str) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a PEM text, at least one. Raises Malformed."""
    from cryptography import x509

    try:
        return tuple(x509.load_der_x509_certificate(der) for der in _ders(data, what))
    except (ValueError, x509.InvalidVersion):
        raise Malformed(what=what, reason="is no certificate") from None


def check_chain(chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], what: str) -> None:
    """Raise CertificateRefused unless an authority signed the first certificate, or one that signed the next and so on to it."""
    fix = "have it issued by this fleet's CA: edgecloud ca issue"
    leaf, *between = chain
    for _ in range(CHAIN_MAX):
        if any(_signed(leaf, ca) for ca in authorities):
            return
        above = next((one for one in between if _signed(leaf, one)), None)
        if above is None:
            raise CertificateRefused(certificate=what, reason="is not signed by a CA that is trusted here", fix=fix)
        between.remove(above)
        leaf = above
    raise CertificateRefused(certificate=what, reason="has too long a chain", fix=fix)


def is_authority(certificate: x509.Certificate) -> bool:
    """Return whether a certificate may sign others."""
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return False


def name_of(certificate: x509.Certificate) -> str:
    """Return the one common name; empty where there is none, or more than one."""
    from cryptography.x509.oid import NameOID

    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def key_fingerprint(key: PublicKeyTypes) -> str:
    """Return what people compare of a public key, in groups of four."""
    import hashlib

    digest = hashlib.sha256(public_bytes(key)).hexdigest()[:20]
    return "-".join(digest[i : i + 4] for i in range(0, 20, 4))


def public_bytes(key: PublicKeyTypes) -> bytes:
    """Return a public key's one form in bytes."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        certificate.verify_directly_issued_by(by)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return is_authority(by)


def _ders(data: bytes, what: str) -> list[bytes]:
    found = _PEM.findall(data[: FILE_MAX + 1])
    if not 1 <= len(found) <= CHAIN_MAX:
        raise Malformed(what=what, reason=f"holds {len(found)} certificates in PEM, and 1 to {CHAIN_MAX} are read")
    try:
        return [binascii.a2b_base64(text) for text in found]
    except binascii.Error:
        raise Malformed(what=what, reason="is no certificate in PEM") from None


def _life(der: bytes) -> Life:
    _, at, _ = _element(der, 0, _SEQUENCE)
    _, at, _ = _element(der, at, _SEQUENCE)
    tag, _, end = _element(der, at)
    if tag == _VERSION:
        at = end
    for wanted in (_INTEGER, _SEQUENCE, _SEQUENCE):  # serial, algorithm, issuer
        _, _, at = _element(der, at, wanted)
    _, at, _ = _element(der, at, _SEQUENCE)
    _, start, at = _element(der, at)
    since = _time(der, start, at)
    _, start, end = _element(der, at)
    return Life(since, _time(der, start, end))


def _element(data: bytes, at: int, wanted: int = 0) -> tuple[int, int, int]:
    """Return the tag of the DER element at a place, and where its content starts and ends."""
    tag, size, at = data[at], data[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        if not 1 <= count <= 4:
            raise ValueError("no length of DER")
        size, at = int.from_bytes(data[at : at + count], "big"), at + count
    if at + size > len(data) or wanted not in (0, tag):
        raise ValueError("no certificate")
    return tag, at, at + size


def _time(data: bytes, start: int, end: int) -> int:
    text = data[start:end].decode("ascii")
    if len(text) == 13:  # UTCTime: years from 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))
