"""A certificate that comes with a welcome: taken when it is this device's own and good for longer, else nothing is changed."""

from __future__ import annotations

import datetime
import hashlib
import time
from pathlib import Path

import pytest

from edgeagent.link.certificate import OwnCertificate
from edgeagent.settings.tree import LinkSettings
from edgecommon.certificates import chain_bytes, first_bytes
from modelwire.errors import CertificateRefused, Malformed, ModelWireError
from modelwire.wire import renewal
from tests.certificates import DAY, Authority

HOUR = datetime.timedelta(hours=1)
SETTINGS = LinkSettings(broker="mqtts://h", tls_ca="ca.pem", tls_cert="tls.pem", tls_key="server.key")


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue("pi-7", client=True).certificate.rename(tmp_path / "tls.pem")
    return made


def newer(
    ca: Authority, folder: Path, name: str = "pi-7", *, since: datetime.timedelta = -HOUR, until: datetime.timedelta = 9 * DAY
) -> bytes:
    return ca.issue_for(name, folder / "server.key", since=since, until=until)


def bring(folder: Path, pem: bytes, settings: LinkSettings = SETTINGS) -> str:
    return OwnCertificate(settings, folder, "pi-7").take({renewal.KEY: chain_bytes(pem)}, time.time())


def test_a_hello_says_which_certificate_the_device_has(ca: Authority, tmp_path: Path) -> None:
    own = OwnCertificate(SETTINGS, tmp_path, "pi-7")
    data = (tmp_path / "tls.pem").read_bytes()
    assert own.said() == {renewal.KEY: hashlib.sha256(first_bytes(data)).digest()}
    assert OwnCertificate(LinkSettings(broker="mqtt://h", tls_ca="ca.pem", tls_cert="tls.pem", tls_key="k"), tmp_path, "pi-7").said() == {}
    assert OwnCertificate(LinkSettings(), tmp_path, "pi-7").said() == {}
    (tmp_path / "tls.pem").write_bytes(b"none")
    assert own.said() == {}


def test_one_that_is_good_for_longer_is_put_in_place_once(ca: Authority, tmp_path: Path) -> None:
    pem = newer(ca, tmp_path)
    assert "renewed" in bring(tmp_path, pem)
    assert first_bytes((tmp_path / "tls.pem").read_bytes()) == first_bytes(pem)
    assert bring(tmp_path, pem) == ""


def test_one_that_is_said_again_later_takes_nothing_back(ca: Authority, tmp_path: Path) -> None:
    old = (tmp_path / "tls.pem").read_bytes()
    bring(tmp_path, newer(ca, tmp_path))
    held = (tmp_path / "tls.pem").read_bytes()
    assert bring(tmp_path, old) == "" and (tmp_path / "tls.pem").read_bytes() == held


def test_what_is_not_this_devices_is_refused_and_nothing_is_changed(ca: Authority, tmp_path: Path) -> None:
    place = tmp_path / "x"
    place.mkdir()
    held = (tmp_path / "tls.pem").read_bytes()
    twin = Authority(place, "twin", subject="ca of a test")
    for pem in (
        newer(Authority(place, "other"), tmp_path), newer(twin, tmp_path), newer(twin, tmp_path) + ca.file.read_bytes(),
        newer(ca, tmp_path, "pi-8"), newer(ca, tmp_path, "CENTRE"),
        Authority.of_file(place, ca).issue("pi-7", client=True).certificate.read_bytes(),
        newer(ca, tmp_path, since=-9 * DAY, until=-HOUR), ca.file.read_bytes(),
    ):  # fmt: skip
        with pytest.raises(CertificateRefused):
            bring(tmp_path, pem)
        assert (tmp_path / "tls.pem").read_bytes() == held


def test_bytes_that_are_no_chain_are_refused_and_other_forms_count_for_nothing(ca: Authority, tmp_path: Path) -> None:
    held, own, good = (tmp_path / "tls.pem").read_bytes(), OwnCertificate(SETTINGS, tmp_path, "pi-7"), chain_bytes(newer(ca, tmp_path))
    for value in (b"x" * 40, bytes(40), good[:-1], good + b"\x30", b"\x30\x84\xff\xff\xff\xff" + good):
        with pytest.raises(ModelWireError):
            own.take({renewal.KEY: value}, time.time())
    with pytest.raises(Malformed, match="9 certificates"):
        own.take({renewal.KEY: good * 9}, time.time())
    for other in (b"", bytes(32), 7, "text", [good], good * 100, None):
        assert own.take({renewal.KEY: other}, time.time()) == ""  # type: ignore[dict-item]
    assert (tmp_path / "tls.pem").read_bytes() == held


def test_a_device_without_a_certificate_is_given_none(ca: Authority, tmp_path: Path) -> None:
    pem = newer(ca, tmp_path)
    (tmp_path / "tls.pem").unlink()
    assert bring(tmp_path, pem) == "" and not (tmp_path / "tls.pem").exists()
    assert bring(tmp_path, pem, LinkSettings(broker="mqtts://h")) == ""
