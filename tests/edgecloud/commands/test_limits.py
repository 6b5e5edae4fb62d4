"""`edgecloud limits`: what is set is what counts, for one device before all, and what is not set is as usual."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.commands.sizes import size_type
from edgecloud.registry import QuotaRow, open_registry
from edgecloud.registry.quota_rows import NAMES, USUAL
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import Base, ScriptedDevice


@pytest.fixture
def fleet(desk: Desk, base: Base) -> Desk:
    store = make_registry(desk.folder / "fleet.db", base)
    centre = Centre(store)
    device, _ = (centre.meet(ScriptedDevice(base, name=name)) for name in ("pi-7", "pi-8"))
    centre.deliver(device, device.train())
    store.close()
    return desk


def test_what_is_not_set_is_as_usual_and_what_is_set_holds_for_one_before_all(fleet: Desk) -> None:
    said = fleet.json("limits")
    assert said["all"] == asdict(USUAL) and said["devices"] == []
    fleet.ok("limits", "set", "--all", "--versions-an-hour", "600", "--disk-bytes", "8GiB")
    fleet.ok("limits", "set", "pi-7", "--bytes-a-day", "1.5MB")
    set_ = fleet.json("limits", "set", "pi-7", "--versions-an-hour", "7")
    usual = asdict(USUAL)
    assert set_["limits"] == {**usual, "bytes_a_day": 1_500_000, "versions_an_hour": 7, "disk_bytes": 8 << 30}
    assert set_["set"] == {**dict.fromkeys(NAMES), "bytes_a_day": 1_500_000, "versions_an_hour": 7}
    shown = fleet.json("limits", "show", "pi-7")
    used = shown["used"]
    assert isinstance(used, dict) and used["disk_bytes"] > 0
    assert fleet.json("limits", "show", "pi-8")["limits"] == {**usual, "versions_an_hour": 600, "disk_bytes": 8 << 30}
    assert [d["device"] for d in fleet.json("limits")["devices"]] == ["pi-7"]  # type: ignore[union-attr]
    text = fleet.ok("limits", "show", "pi-7")
    assert "for it" in text and "for all" in text and "as usual" in text and "1.5 MB" in text
    fleet.ok("limits", "reset", "pi-7")
    fleet.ok("limits", "reset", "--all")
    store = open_registry(fleet.folder / "fleet.db", readonly=True)
    assert store.quotas.rows() == {} and store.quotas.of("pi-7") == USUAL
    store.close()


def test_zero_is_a_limit_and_nothing_is_none(fleet: Desk) -> None:
    assert fleet.json("limits", "set", "pi-7", "--open-transfers", "0")["limits"]["open_transfers"] == 0  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("set", "pi-7"), "BadArgument"), (("set", "--versions-an-hour", "1"), "BadArgument"), (("reset",), "BadArgument"),
        (("set", "pi-7", "--all", "--versions-an-hour", "1"), "BadArgument"), (("set", "pi-9", "--versions-an-hour", "1"), "UnknownDevice"),
        (("show", "pi-9"), "UnknownDevice"), (("reset", "../pi"), "Malformed"), (("set", "pi-7", "--disk-bytes", "-1"), "Usage"),
        (("set", "pi-7", "--open-transfers", "17"), "Usage"), (("set", "pi-7", "--disk-bytes", "9e9"), "Usage"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said_and_changes_nothing(fleet: Desk, words: tuple[str, ...], error: str) -> None:
    said = fleet.error("limits", *words)
    assert said["error"] == error
    store = open_registry(fleet.folder / "fleet.db", readonly=True)
    assert store.quotas.rows() == {}
    store.close()


def test_who_is_erased_leaves_no_limit_and_no_use(fleet: Desk) -> None:
    from edgecloud.keeping import erasing
    from tests.keys import COMMAND

    store = open_registry(fleet.folder / "fleet.db", synchronous="OFF")
    store.quotas.set("pi-7", QuotaRow(versions_an_hour=1), 1)
    assert "pi-7" in store.quotas.users()
    with store.transaction():
        erasing.begin(store, COMMAND, "pi-7", 99, 1)
    erasing.resume(store)
    assert store.quotas.rows() == {} and store.quotas.users() == []
    store.close()


@given(st.integers(0, 1 << 50), st.sampled_from(["", "B", "kB", "MiB", "GB", "tib"]))
def test_sizes_are_read_exactly_or_not_at_all(count: int, unit: str) -> None:
    factor = {"": 1, "B": 1, "kB": 1000, "MiB": 1 << 20, "GB": 10**9, "tib": 1 << 40}[unit]
    if count * factor <= 1 << 60:
        assert size_type(f"{count}{unit}") == count * factor
    else:
        with pytest.raises(argparse.ArgumentTypeError):
            size_type(f"{count}{unit}")


@given(st.text(max_size=12))
def test_no_text_ends_the_reader_of_sizes_otherwise(text: str) -> None:
    with contextlib.suppress(argparse.ArgumentTypeError):
        assert 0 <= size_type(text) <= 1 << 60
