"""edgecloud policy --keep, thin, purge-rows and erase, as an operator runs them; and what all other commands say of what they leave."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from edgecloud.registry import open_registry
from modelwire.wire.keys import KeyKind, write_key
from tests.edgecloud.centre import Centre, damage
from tests.edgecloud.desk import LINE, Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice, key_of

Fleet = tuple[Desk, Callable[[], Centre], ScriptedDevice]


@pytest.fixture
def fleet(desk: Desk, base: Base) -> Fleet:
    """pi-7 with six verified versions, of which 2, 4 and 5 are recipes, and pi-8 with one."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    desk.ok("devices", "add", "pi-7", LINE)
    desk.ok("devices", "add", "pi-8", write_key(KeyKind.DEVICE, key_of("pi-8").public))

    def opened() -> Centre:
        return Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=1_700_000_000)

    centre = opened()
    device, other = centre.meet(ScriptedDevice(base)), centre.meet(ScriptedDevice(base, name="pi-8"))
    centre.deliver(other, other.train())
    centre.deliver(device, device.train(), device.learn(range(9)), device.train(), device.learn(range(5, 20)), device.learn(range(30, 40)))
    centre.deliver(device, device.train())
    assert all(one.ok for one in centre.rebuild())
    centre.store.close()
    return desk, opened, device


def test_a_policy_is_sealed_and_carried_out_and_every_command_says_what_is_left(fleet: Fleet) -> None:
    desk, _, device = fleet
    assert desk.json("thin")["gone"] == 0
    said = desk.json("policy", "--keep", "last 2")
    assert said["keep"] == "last 2" and "keeps last 2" in desk.ok("audit")
    assert desk.json("thin", "--dry-run")["gone"] == 4
    assert desk.json("verify", "--all")["exact"] == 7
    desk.ok("backup", "before.db")
    done = desk.json("thin", "pi-7")
    assert (done["gone"], done["squashed"], done["failed"]) == (4, 1, {})
    looked = desk.json("verify", "--all")
    assert (looked["checked"], looked["exact"], looked["thinned"], looked["tampered"]) == (7, 3, 4, [])
    assert "4 thinned ones proven" in desk.ok("verify")
    assert "thinned 4, squashed 1" in desk.ok("audit")
    listed = desk.json("log", "pi-7")["versions"]
    assert isinstance(listed, list)
    assert [v["recoverable"] for v in listed] == [True, True, False, False, False, False] and listed[-1]["nearest"] == [5]
    assert "no longer recoverable; nearest @5" in desk.ok("log", "pi-7") + desk.ok("show", "pi-7@2")
    for words in (["materialise", "pi-7@2", "-o", "x.tflite"], ["diff", "pi-7@2", "pi-7@6"], ["replay", "pi-7@2"]):
        error = desk.error(*words)
        assert error["error"] == "Thinned" and "pi-7/digits@5" in str(error["hint"]), words
    assert desk.error("replay", "pi-7@5")["error"] == "BadArgument"  # it is held, and no longer as a recipe
    assert desk.error("forget", "pi-7@2", "--rows", "0")["error"] in ("Thinned", "BadArgument")
    assert "no longer recoverable" in desk.ok("why", "pi-7@2") and "a squash leads to it" in desk.ok("why", "pi-7@5")
    assert (desk.json("repair")["exact"], desk.json("repair")["thinned"]) == (3, 4)
    desk.ok("materialise", "pi-7@5", "-o", "five.tflite")
    desk.ok("diff", "pi-7@5", "pi-7@6")
    desk.ok("backup", "after.db")
    desk.ok("restore", "after.db", "--db", "again.db")
    assert desk.json("verify", "--all", "--db", "again.db")["thinned"] == 4
    # An older copy has all of it, and the operator's word on it; it is carried out there again.
    desk.ok("restore", "before.db", "--force")
    assert desk.json("verify")["exact"] == 7 and desk.json("thin", "--dry-run")["gone"] == 4
    assert desk.json("thin")["gone"] == 4 and desk.json("verify")["exact"] == 3
    assert device.version == 6


def test_a_policy_that_came_after_a_backup_holds_in_it(fleet: Fleet) -> None:
    desk, _, _ = fleet
    desk.ok("backup", "before.db")
    desk.ok("policy", "--keep", "last 1")
    desk.ok("thin")
    assert "what is kept was decided anew" in desk.ok("restore", "before.db", "--force")
    assert desk.json("thin", "--dry-run")["gone"] == 5
    assert desk.json("policy")["keep"] == "last 1" and desk.json("stats")["keep"] == "last 1"
    assert desk.json("verify")["tampered"] == []


def test_what_is_no_policy_is_named(fleet: Fleet) -> None:
    desk, _, _ = fleet
    for what in ("", "last 0", "last x", "weekly", "all + daily", "last 1 + last 2", "daily,tagged", "last 9999999"):
        assert desk.error("policy", "--keep", what)["error"] == "BadArgument"
    assert desk.error("thin", "pi-9")["error"] == "UnknownVersion"
    (desk.folder / "command.key").unlink()
    assert desk.error("policy", "--keep", "daily")["error"] == "MissingFile"


def test_the_rows_of_forgotten_samples_go_and_their_versions_stay(fleet: Fleet, base: Base) -> None:
    desk, opened, device = fleet
    assert desk.json("purge-rows", "pi-7")["purged"] == {}
    rows = [device.made[n].data for n in (2, 4, 5)]
    path = desk.folder / "fleet.db"
    assert all(data[-400:-200] in path.read_bytes() for data in rows)
    said = desk.json("purge-rows", "pi-7", "--all")
    assert said["purged"] == {"pi-7/digits": [2, 4, 5]}
    looked = desk.json("verify")
    assert (looked["exact"], looked["thinned"], looked["tampered"]) == (7, 0, [])
    for n in (2, 4, 5):
        assert "was dropped" in str(desk.error("replay", f"pi-7@{n}")["message"])
        desk.ok("materialise", f"pi-7@{n}", "-o", f"{n}.tflite")
    assert desk.json("purge-rows", "pi-7", "--all")["purged"] == {}
    assert "recipes" not in str(desk.json("whatif")["notes"])  # none is replayed any more
    assert not any(data[-400:-200] in path.read_bytes() for data in rows)  # nor in a page that is free
    assert "purged the rows" in desk.ok("audit", "--about", "pi-7")
    centre = opened()
    centre.deliver(device, device.train())
    assert all(one.ok for one in centre.rebuild())
    centre.store.close()
    desk.ok("policy", "--keep", "last 1")
    assert desk.json("thin")["gone"] == 6 and desk.json("verify")["exact"] == 2


def test_an_erased_device_is_nowhere_and_everything_else_is_whole(fleet: Fleet) -> None:
    desk, _, _ = fleet
    desk.ok("annotate", "pi-7@1", "tag: released")
    desk.ok("backup", "before.db")
    error = desk.error("erase", "pi-7")
    assert "6 versions" in str(error["message"]) and "--yes" in str(error["hint"])
    assert desk.json("verify")["exact"] == 7
    said = desk.json("erase", "pi-7", "--yes")
    assert (said["models"], said["versions"], said["notes"], said["went_on"]) == (1, 6, 1, False)
    assert desk.json("verify")["exact"] == 1 and desk.json("verify")["tampered"] == []
    assert "pi-7" not in desk.ok("audit") and "erased it" in desk.ok("audit")
    assert desk.error("log", "pi-7")["error"] == desk.error("erase", "pi-7", "--yes")["error"] == "UnknownVersion"
    assert desk.error("devices", "add", "pi-7", LINE)["code"] != 0
    assert b"pi-7" not in (desk.folder / "fleet.db").read_bytes()
    # A copy from before brings it back, without its key; the operator is told, and erases it again.
    assert "pi-7 was erased since the backup" in desk.ok("restore", "before.db", "--force")
    assert desk.json("verify")["tampered"] == []
    assert desk.json("erase", "pi-7", "--yes")["versions"] == 6
    assert desk.json("verify")["exact"] == 1 and b"pi-7" not in (desk.folder / "fleet.db").read_bytes()


def test_a_policy_whose_row_was_changed_and_a_squash_that_is_lost_are_named(fleet: Fleet) -> None:
    desk, opened, _ = fleet
    desk.ok("policy", "--keep", "last 2")
    desk.ok("policy", "--recover-within", "3 states")
    desk.ok("thin")
    desk.ok("compact")
    assert desk.json("verify")["tampered"] == []
    centre = opened()
    damage(centre.store, "UPDATE blob SET bytes = zeroblob(size) WHERE sha256 IN (SELECT blob FROM squash)")
    damage(centre.store, "UPDATE policy SET keep = 'last 5'")
    centre.store.close()
    code, out, _ = desk.run("verify", "--json")
    said = json.loads(out)
    assert code == 56 and said["tampered"] == ["the store policy keeps last 5, and last 2 by the operator's word in the log"]
    assert [one["name"] for one in said["wrong"]] == ["pi-7/digits@5"]
    assert desk.json("thin", "--dry-run")["keep"] == "last 2"
    centre = opened()
    damage(centre.store, "UPDATE thinned SET proof = x'00' WHERE version_id = (SELECT min(version_id) FROM thinned)")
    centre.store.close()
    error = desk.error("prove", "pi-7@6", "-o", "proof.zip")
    assert error["error"] == "RegistryDamaged" and "pi-7/digits@1" in str(error["message"])
    assert error["hint"] == "edgecloud restore BACKUP"
    lost = json.loads(desk.run("repair", "--json")[1])["lost"]  # a kept state leads to it: its weights are there, and what led to it is not
    assert ("pi-7/digits@5", False, True) in [(one["name"], one["bytes"], one["recoverable"]) for one in lost]
