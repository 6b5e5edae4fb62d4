"""A welcome brings a board's newer certificate, to that board alone, and only to one that is let in and says which it has."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from edgecloud.intake.decision import Result
from edgecloud.intake.routing import Ingest
from edgecommon.certificates import as_pem, chain_bytes, first_bytes
from modelwire.wire import renewal
from modelwire.wire.records import Hello, Welcome, parse
from tests.certificates import Authority
from tests.edgecloud.centre import SECRET, Centre, revoke
from tests.edgecloud.device import Base, ScriptedDevice


@pytest.fixture
def folder(tmp_path: Path, centre: Centre) -> Path:
    place = tmp_path / "issued"
    place.mkdir()
    centre.ingest = Ingest(centre.store, secret=SECRET, certificates=place)
    return place


def put(folder: Path, name: str) -> bytes:
    """Put a certificate for a name into the folder, with one behind it, and return the digest that its board would say."""
    ca = Authority(folder.parent)
    data = ca.issue(name, client=True).certificate.read_bytes() + ca.file.read_bytes()
    (folder / f"{name}.pem").write_bytes(data)
    return hashlib.sha256(first_bytes(data)).digest()


def brought(centre: Centre, device: ScriptedDevice, more: dict[str, Any]) -> bytes:
    """Return what the welcome brings to a hello that says this."""
    centre.said()
    assert centre.take(device.hello(more=more)).result is Result.WELCOMED
    (welcome,) = (r for r in centre.said() if isinstance(r, Welcome))
    return renewal.brought(welcome.more)


def test_a_board_that_has_another_certificate_is_sent_the_one_of_its_name(centre: Centre, device: ScriptedDevice, folder: Path) -> None:
    has = put(folder, device.name)
    chain = brought(centre, device, {renewal.KEY: bytes(32)})
    assert as_pem(chain) == (folder / f"{device.name}.pem").read_bytes().replace(b"\r", b"") and len(chain) < renewal.CHAIN_MAX
    assert brought(centre, device, {renewal.KEY: has}) == b"", "it has it"
    assert brought(centre, device, {}) == b"", "it says of none"


@pytest.mark.parametrize("value", [b"", b"short", bytes(33), 7, "x" * 32, [bytes(32)], {"a": 1}, None])
def test_a_digest_of_another_form_counts_for_nothing(centre: Centre, device: ScriptedDevice, folder: Path, value: object) -> None:
    put(folder, device.name)
    assert brought(centre, device, {renewal.KEY: value}) == b""


def test_what_is_not_there_or_no_certificate_is_not_sent(centre: Centre, device: ScriptedDevice, folder: Path) -> None:
    put(folder, "pi-9")
    asks = {renewal.KEY: bytes(32)}
    assert brought(centre, device, asks) == b"", "another board's is not this one's"
    for data in (b"", b"no certificate", chain_bytes((folder / "pi-9.pem").read_bytes())):
        (folder / f"{device.name}.pem").write_bytes(data)
        assert brought(centre, device, asks) == b""
    (folder / f"{device.name}.pem").unlink()
    (folder / f"{device.name}.pem").mkdir()
    assert brought(centre, device, asks) == b""


def test_who_is_not_let_in_is_sent_nothing(centre: Centre, device: ScriptedDevice, base: Base, folder: Path) -> None:
    for name in (device.name, "pi-9"):
        put(folder, name)
    stranger = ScriptedDevice(base, "pi-9")
    stranger.fleet_id = centre.store.identity.id
    centre.said()
    centre.take(stranger.hello(more={renewal.KEY: bytes(32)}))
    revoke(centre.store, device.name, 5)
    centre.take(device.hello(more={renewal.KEY: bytes(32)}))
    said = [r for r in centre.said() if isinstance(r, Welcome)]
    assert len(said) == 2 and all(r.more == {} and r.status == "quarantine" for r in said)


def test_a_hello_says_it_as_the_page_does(device: ScriptedDevice) -> None:
    said = parse(device.hello(more={renewal.KEY: bytes(range(32))})[1]).record
    assert isinstance(said, Hello) and renewal.held(said.more) == bytes(range(32))
