"""`edgecloud init`: a registry, four keys, fleet.pub and the first trust record; all of it or nothing."""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest

from edgecloud import keys
from edgecloud.commands.registry import init
from edgecloud.registry import open_registry
from modelwire.errors import BadArgument
from modelwire.wire.keys import read_fleet
from tests.edgecloud.desk import Desk


def test_init_makes_a_registry_and_keys_that_only_the_owner_can_read(desk: Desk) -> None:
    said = desk.json("init", "--fleet", "orchard")
    assert sorted(p.name for p in desk.folder.iterdir()) == [
        "command.key", "director.key", "fleet.db", "fleet.pub", "receipt.key", "root.key",
    ]  # fmt: skip
    private = {}
    for name, kind in keys.SECRET.items():
        path = desk.folder / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        private[name] = keys.load_key(path, kind)
    assert len({key.public for key in private.values()}) == 4
    fleet = read_fleet((desk.folder / "fleet.pub").read_text(), "fleet.pub")
    assert (said["fleet_id"], said["root_public_key"]) == (fleet.id.hex(), fleet.root.hex()) and fleet.root == private[keys.ROOT].public
    store = open_registry(desk.folder / "fleet.db")
    assert (store.fleet, store.identity) == ("orchard", fleet)
    trust = keys.trusted(fleet, [row.record for row in store.trusts.all()]).newest
    assert trust is not None and (trust.number, trust.until, trust.overlap, trust.root) == (1, 0, 0, fleet.root)
    names = (keys.RECEIPT, keys.COMMAND, keys.DIRECTOR)
    assert [trust.receipt, trust.command, trust.director] == [private[name].public for name in names]
    store.close()


def test_init_never_overwrites_and_makes_all_or_nothing(desk: Desk) -> None:
    desk.ok("init")
    before = {p.name: p.read_bytes() for p in desk.folder.iterdir()}
    assert desk.error("init")["error"] == "BadArgument"
    said = desk.error("init", "--db", "other.db")
    assert "root.key" in str(said["message"]) and "fleet.pub" in str(said["message"]) and "move them away" in str(said["hint"])
    assert {p.name: p.read_bytes() for p in desk.folder.iterdir()} == before
    assert desk.error("init", "--db", "no/such/fleet.db")["error"] == "BadArgument"


@pytest.mark.parametrize("name", ["root.key", "receipt.key", "command.key", "director.key", "fleet.pub"])
def test_init_uses_no_key_that_is_there(desk: Desk, name: str) -> None:
    (desk.folder / name).write_text("mine")
    said = desk.error("init")
    assert said["error"] == "BadArgument" and name in str(said["message"])
    assert [(p.name, p.read_text()) for p in desk.folder.iterdir()] == [(name, "mine")]


def test_an_init_that_fails_leaves_no_key(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert desk.error("init", "--db", "x.db", "--fleet", "Not A Name")["error"] == "Malformed"
    monkeypatch.setattr(init, "create_registry", raising(BadArgument(reason="no room", fix="make room")))
    assert desk.error("init")["message"] == "no room"
    monkeypatch.undo()
    assert list(desk.folder.iterdir()) == []
    given, count = keys.write_named, [0]

    def full(*args: object, **named: object) -> None:
        count[0] += 1
        if count[0] == 4:
            raise BadArgument(reason="its disk is full", fix="make room")
        given(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(keys, "write_named", full)
    monkeypatch.chdir(desk.folder)
    assert desk.error("init")["message"] == "its disk is full"
    assert list(desk.folder.iterdir()) == []


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_args: object, **_named: object) -> None:
        raise error

    return fail
