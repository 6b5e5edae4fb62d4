"""Whom a device believes: root-signed records that only rise, kept over restarts, by the newest time that the centre said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeagent.settings import reading
from edgeagent.state.folder import open_folder
from edgeagent.state.trust import TrustStore
from modelwire.errors import BadSignature, ConfigError, Malformed, WireError, WrongFleet
from modelwire.wire import log, records
from modelwire.wire.keys import write_fleet
from modelwire.wire.records import Trust, Wait
from modelwire.wire.signing import Fleet, PrivateKey
from tests import keys
from tests.edgeagent.boards import make

LATER = PrivateKey(b"\x77" * 32)


@contextmanager
def store(folder: Path) -> Iterator[TrustStore]:
    if not folder.exists():
        make(folder)
    with open_folder(reading.load(folder / reading.FILE, environment={}, flags={}), alone=False) as device:
        yield device.trust


def take(held: TrustStore, record: Trust, key: PrivateKey = keys.ROOT, fleet: bytes = keys.FLEET_ID) -> bool:
    data = records.encode(record, key, fleet)
    return held.take(records.parse(data), data)


def said_by(key: PrivateKey, fleet: bytes = keys.FLEET_ID) -> records.Signed:
    return records.parse(records.encode(Wait("home", "pi-7", "tiny", 0, 1, ""), key, fleet))


def test_nobody_speaks_for_the_centre_before_the_first_record(tmp_path: Path) -> None:
    with store(tmp_path / "d") as held:
        assert held.held.number == 0
        with pytest.raises(BadSignature):
            held.verify(said_by(keys.RECEIPT))
        assert take(held, keys.trust("home"))
        held.verify(said_by(keys.RECEIPT))
        with pytest.raises(BadSignature):
            held.verify(said_by(keys.COMMAND))


def test_any_higher_number_is_taken_and_the_newest_two_are_kept_over_restarts(tmp_path: Path) -> None:
    with store(tmp_path / "d") as held:
        for number in (4, 9, 1000):
            assert take(held, keys.trust("home", number=number))
        for number in (1000, 999, 1):
            assert not take(held, keys.trust("home", number=number)), "the centre says its record again at each hello"
    with store(tmp_path / "d") as held:
        assert held.held.number == 1000 and held.held.before is not None and held.held.before.number == 9
        held.verify(said_by(keys.RECEIPT))


FORGED: list[dict[str, Any]] = [{"key": keys.COMMAND}, {"key": LATER}, {"fleet": bytes(16)}, {"fleet": bytes(16), "key": LATER}]


@pytest.mark.parametrize("how", FORGED)
def test_what_the_root_key_of_this_fleet_did_not_sign_changes_nothing(tmp_path: Path, how: dict[str, Any]) -> None:
    with store(tmp_path / "d") as held:
        take(held, keys.trust("home"))
        with pytest.raises(WireError) as e:
            take(held, keys.trust("home", number=2), **how)
        assert isinstance(e.value, WrongFleet if "fleet" in how else BadSignature)
        assert held.held.number == 1
    with store(tmp_path / "d") as held:
        assert held.held.number == 1


def test_a_record_that_ends_before_it_begins_is_refused(tmp_path: Path) -> None:
    with store(tmp_path / "d") as held:
        with pytest.raises(Malformed):
            take(held, keys.trust("home", since=10, until=5))
        assert held.held.number == 0


def test_the_keys_before_are_good_until_the_centres_clock_has_passed_the_overlap(tmp_path: Path) -> None:
    with store(tmp_path / "d") as held:
        take(held, keys.trust("home"))
        take(held, replace(keys.trust("home", number=2, since=1000, overlap=50), receipt=LATER.public))
        for time, good in ((1000, True), (1050, True), (1051, False), (900, False)):
            held.saw(time, b"")
            held.verify(said_by(LATER))
            if good:
                held.verify(said_by(keys.RECEIPT))
            else:
                with pytest.raises(BadSignature):
                    held.verify(said_by(keys.RECEIPT))
        assert held.time == 1051, "it never goes back"


def test_the_next_record_is_signed_by_the_root_that_the_last_one_named(tmp_path: Path) -> None:
    with store(tmp_path / "d") as held:
        take(held, replace(keys.trust("home"), root=LATER.public))
        with pytest.raises(BadSignature):
            take(held, keys.trust("home", number=2))
        assert take(held, keys.trust("home", number=2), LATER)


def test_the_end_of_the_log_is_kept_and_only_rises(tmp_path: Path) -> None:
    with store(tmp_path / "d") as held:
        assert held.link is None
        held.saw(5, log.Link(3, b"\x01" * 32).encode())
        held.saw(6, log.Link(2, b"\x02" * 32).encode())
        held.saw(4, b"")
        with pytest.raises(Malformed):
            held.saw(99, bytes(40))
    with store(tmp_path / "d") as held:
        assert held.link == log.Link(3, b"\x01" * 32) and held.time == 6


def test_a_folder_whose_records_are_of_another_fleet_is_refused(tmp_path: Path) -> None:
    with store(tmp_path / "d") as held:
        take(held, keys.trust("home"))
    (tmp_path / "d" / "fleet.pub").write_text(write_fleet(Fleet(keys.ROOT.public, bytes(16))))
    with pytest.raises(ConfigError, match="of another fleet"), store(tmp_path / "d"):
        pass
