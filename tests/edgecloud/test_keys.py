"""Keys are read by their kind, kept from others than their owner, and speak for the fleet only where its trust record says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud import keys
from edgecloud.keys import load_key, made_keys, read_device_key, require_speaks, trusted
from modelwire.errors import BadArgument, BadSignature, Malformed, MissingFile, WrongKeyKind
from modelwire.wire.keys import KeyKind, read_fleet, write_key
from modelwire.wire.records import encode
from modelwire.wire.signing import PrivateKey, Role
from tests.keys import COMMAND, FLEET, FLEET_ID, RECEIPT, ROOT, trust


def test_keys_that_were_made_are_read_back_by_their_kinds(tmp_path: Path) -> None:
    with made_keys(tmp_path) as made:
        pass
    assert read_fleet((tmp_path / "fleet.pub").read_text(), "fleet.pub") == made.fleet
    private = (made.root, made.receipt, made.command, made.director)
    for key, (name, kind) in zip(private, keys.SECRET.items(), strict=True):
        assert load_key(tmp_path / name, kind).public == key.public
        for other in set(keys.SECRET.values()) - {kind}:
            with pytest.raises(WrongKeyKind, match=kind.title):
                load_key(tmp_path / name, other)


def test_a_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    with made_keys(tmp_path):
        pass
    (tmp_path / "receipt.key").chmod(0o604)
    with pytest.raises(BadArgument, match="others than its owner"):
        load_key(tmp_path / "receipt.key", KeyKind.RECEIPT_PRIVATE)
    with pytest.raises(MissingFile):
        load_key(tmp_path / "none.key", KeyKind.RECEIPT_PRIVATE)
    (tmp_path / "bad.key").write_text("edge-receipt-key:nonsense")
    (tmp_path / "bad.key").chmod(0o600)
    with pytest.raises(Malformed, match="64 hexadecimal digits"):
        load_key(tmp_path / "bad.key", KeyKind.RECEIPT_PRIVATE)


def test_a_device_key_is_a_line_or_a_file_that_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = write_key(KeyKind.DEVICE, RECEIPT.public)
    (tmp_path / "pi-7.pub").write_text(line + "\n")
    (tmp_path / "plain").write_text(line)
    assert {read_device_key(text) for text in (line, "pi-7.pub", "./pi-7.pub", "plain", str(tmp_path / "plain"))} == {RECEIPT.public}
    for text in (RECEIPT.public.hex(), write_key(KeyKind.RECEIPT, RECEIPT.public), "nothing"):
        with pytest.raises(WrongKeyKind):
            read_device_key(text)
    with pytest.raises(MissingFile):
        read_device_key("other.pub")


def test_a_key_speaks_in_the_role_that_the_newest_trust_record_gives_it(tmp_path: Path) -> None:
    held = trusted(FLEET, [encode(trust("orchard", number=n), ROOT, FLEET_ID) for n in (1, 2)])
    assert held.number == 2
    require_speaks(RECEIPT, Role.RECEIPT, held, "it")
    require_speaks(COMMAND, Role.COMMAND, held, "it")
    for key, role in ((RECEIPT, Role.COMMAND), (COMMAND, Role.RECEIPT), (ROOT, Role.RECEIPT), (PrivateKey(b"x" * 32), Role.RECEIPT)):
        with pytest.raises(BadArgument, match="trust record 2"):
            require_speaks(key, role, held, "it")
    with pytest.raises(BadSignature):
        trusted(FLEET, [encode(trust("orchard"), RECEIPT, FLEET_ID, role=Role.ROOT)])
