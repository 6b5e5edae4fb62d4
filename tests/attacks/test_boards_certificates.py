"""What whoever holds the receipt key alone, or a CA gone wrong, can do to a board by a certificate in a welcome: not lock it out."""

from __future__ import annotations

import contextlib
import datetime
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from edgeagent.link.certificate import OwnCertificate
from edgeagent.settings.tree import LinkSettings
from edgecommon.certificates import chain_bytes
from modelwire.errors import ModelWireError
from modelwire.wire import renewal
from tests.certificates import DAY, Authority

SETTINGS = LinkSettings(broker="mqtts://h", tls_ca="ca.pem", tls_cert="tls.pem", tls_key="server.key")


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue("pi-7", client=True).certificate.rename(tmp_path / "tls.pem")
    return made


def bring(folder: Path, der: bytes) -> None:
    """Let a welcome bring it."""
    with contextlib.suppress(ModelWireError):  # which the session logs; a welcome is a welcome all the same
        OwnCertificate(SETTINGS, folder, "pi-7").take({renewal.KEY: der}, time.time())


def weak() -> bytes:
    """Return a certificate, in PEM, whose key is so short that TLS does not load it."""
    key = rsa.generate_private_key(65537, 1024)
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "junk")]), datetime.datetime.now(datetime.timezone.utc)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
    made = built.not_valid_before(now - DAY).not_valid_after(now + DAY).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def works(folder: Path) -> bool:
    """Return whether the agent could start and the broker could take it now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_cert_chain(folder / "tls.pem", folder / "server.key")
    except ssl.SSLError:
        return False
    held = x509.load_pem_x509_certificate((folder / "tls.pem").read_bytes())
    return held.not_valid_before_utc <= datetime.datetime.now(datetime.timezone.utc) <= held.not_valid_after_utc


def test_a_right_certificate_with_one_behind_it_that_tls_does_not_load_is_not_put_in_place(ca: Authority, tmp_path: Path) -> None:
    right = ca.issue_for("pi-7", tmp_path / "server.key", since=-DAY, until=9 * DAY)
    bring(tmp_path, chain_bytes(right + weak()))
    assert works(tmp_path)
    bring(tmp_path, chain_bytes(right))
    assert works(tmp_path) and (tmp_path / "tls.pem").read_bytes().split() == right.split()


def test_a_certificate_that_begins_later_is_not_put_in_place_before(ca: Authority, tmp_path: Path) -> None:
    bring(tmp_path, chain_bytes(ca.issue_for("pi-7", tmp_path / "server.key", since=900 * DAY, until=9000 * DAY)))
    assert works(tmp_path)


NO_CHAINS = (
    b"0" * 33, b"0\x00" * 4096, b"0\x80" * 40, b"0\x84\xff\xff\xff\xff" * 20, b"\xff" * 8192, b"0\x82\x10\x00" + b"0" * 4096,
)  # fmt: skip


@pytest.mark.parametrize("der", NO_CHAINS)
def test_bytes_that_are_no_chain_end_at_once(ca: Authority, tmp_path: Path, der: bytes) -> None:
    held = (tmp_path / "tls.pem").read_bytes()
    bring(tmp_path, der)
    assert (tmp_path / "tls.pem").read_bytes() == held
