"""How long a certificate is good, read without a library, is what the library reads; and nothing but a certificate is taken for one."""

from __future__ import annotations

import base64
import contextlib
import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from edgecommon.certificates import (
    CHAIN_MAX,
    FILE_MAX,
    Life,
    check_chain,
    is_authority,
    life_of,
    life_of_bytes,
    name_of,
    read_certificates,
    read_file,
)
from modelwire.errors import CertificateRefused, Malformed, MissingFile, ModelWireError
from tests.certificates import DAY, Authority


@pytest.fixture
def pem(tmp_path: Path) -> bytes:
    return Authority(tmp_path).issue("pi-7", client=True).certificate.read_bytes()


@pytest.mark.parametrize("days", [1, 400, 10_000, 40_000])
def test_a_life_is_what_the_library_reads(tmp_path: Path, days: int) -> None:
    data = Authority(tmp_path).issue("pi-7", since=-days * DAY / 10, until=days * DAY, client=True).certificate.read_bytes()
    read = x509.load_pem_x509_certificate(data)
    assert life_of(data) == Life(int(read.not_valid_before_utc.timestamp()), int(read.not_valid_after_utc.timestamp()))
    assert life_of_bytes(read.public_bytes(serialization.Encoding.DER)) == life_of(data)


def test_no_part_of_a_certificate_is_taken_for_one_and_no_changed_byte_is_a_traceback(pem: bytes) -> None:
    (one,) = read_certificates(pem, "x")
    der = one.public_bytes(serialization.Encoding.DER)
    for end in range(len(der)):
        with pytest.raises(Malformed):
            life_of_bytes(der[:end])
    for at in range(0, 200):
        for bit in (1, 0x80, 0xFF):
            changed = bytearray(der)
            changed[at] ^= bit
            with contextlib.suppress(ModelWireError):
                life_of_bytes(bytes(changed))


def test_no_byte_that_is_signed_can_be_changed(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    roots = read_certificates(ca.file.read_bytes(), "ca")
    (one,) = read_certificates(ca.issue("pi-7", client=True).certificate.read_bytes(), "x")
    der, signed = one.public_bytes(serialization.Encoding.DER), one.tbs_certificate_bytes
    begins = der.index(signed)  # behind it stands the signature, whose padding says nothing
    for at in range(begins, begins + len(signed)):
        changed = bytearray(der)
        changed[at] ^= 0x04
        text = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(changed) + b"\n-----END CERTIFICATE-----\n"
        with pytest.raises((Malformed, CertificateRefused)):
            check_chain(read_certificates(text, "x"), roots, "x")


@given(st.binary(max_size=300))
def test_bytes_of_chance_are_no_certificate(data: bytes) -> None:
    for read in (life_of, life_of_bytes, lambda d: read_certificates(d, "x")):
        with pytest.raises(Malformed):
            read(data)


def test_a_file_holds_one_to_eight_certificates(pem: bytes) -> None:
    assert len(read_certificates(pem * CHAIN_MAX, "x")) == CHAIN_MAX
    for many in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", pem * (CHAIN_MAX + 1)):
        with pytest.raises(Malformed):
            read_certificates(many, "x")


def test_a_file_that_is_none_or_too_large_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="the request is not there"):
        read_file(tmp_path / "none", "the request")
    (tmp_path / "large").write_bytes(bytes(FILE_MAX + 1))
    for path in (tmp_path / "large", tmp_path):
        with pytest.raises(CertificateRefused) as refused:
            read_file(path, "the request")
        assert str(path) in str(refused.value) and refused.value.next_step


def test_two_thirds_of_a_life_are_the_time_to_renew() -> None:
    life = Life(1_000_000, 1_300_000)
    assert life.renew_from == 1_200_000
    assert [life.word(now) for now in (999_999, 1_000_000, 1_199_999, 1_200_000, 1_300_000, 1_300_001)] == [
        "early", "good", "good", "due", "due", "ended",
    ]  # fmt: skip
    assert "1970-01-16" in life.told(1_300_001) and life.told(1_300_001).startswith("ended on")


def test_a_chain_leads_to_an_authority_by_signatures_and_not_by_names(tmp_path: Path) -> None:
    ca, twin = Authority(tmp_path), Authority(tmp_path, "twin", subject="ca of a test")
    (root,), (other,) = (read_certificates(one.file.read_bytes(), "x") for one in (ca, twin))
    assert root.subject == other.subject and is_authority(root)
    (mine,) = read_certificates(ca.issue("pi-7", client=True).certificate.read_bytes(), "x")
    (theirs,) = read_certificates(twin.issue("pi-7", client=True).certificate.read_bytes(), "x")
    check_chain([mine], [root], "x")
    for chain, roots in (([theirs], [root]), ([theirs, root], [root]), ([theirs, other], [root]), ([mine], []), ([mine, theirs], [other])):
        with pytest.raises(CertificateRefused, match="not signed by a CA"):
            check_chain(chain, roots, "x")
    assert name_of(mine) == "pi-7" and not is_authority(mine)


def test_who_is_no_authority_signs_nothing(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    (root,) = read_certificates(ca.file.read_bytes(), "x")
    board = ca.issue("pi-7", client=True)
    below = Authority.holding(tmp_path, board.certificate, board.key)
    (leaf, forged) = (
        read_certificates(board.certificate.read_bytes(), "x")[0],
        read_certificates(below.issue("pi-9", client=True).certificate.read_bytes(), "x")[0],
    )
    with pytest.raises(CertificateRefused):
        check_chain([forged, leaf], [root], "x")


def test_a_time_is_read_in_both_forms_that_certificates_have(tmp_path: Path) -> None:
    year = datetime.timedelta(days=366)
    data = Authority(tmp_path).issue("pi-7", until=40 * year, client=True).certificate.read_bytes()  # beyond 2049: another form
    (one,) = read_certificates(data, "x")
    assert life_of(data).until == int(one.not_valid_after_utc.timestamp())
