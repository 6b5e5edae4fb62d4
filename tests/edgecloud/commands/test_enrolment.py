"""Who is let in is read off the board: the centre lists every key that waits, and writes no line that would admit one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from edgecloud.commands import waiting
from edgecloud.intake.decision import Bounds, Result
from edgecloud.registry import open_registry
from modelwire.wire.keys import KeyKind, fingerprint, write_key
from modelwire.wire.records import Welcome
from modelwire.wire.signing import PrivateKey
from tests.edgecloud.centre import Centre, damage
from tests.edgecloud.desk import LINE, Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice, key_of

SHORT = fingerprint(key_of("pi-7").public)
LIAR = key_of("mallory").public
AT = 1_700_000_000


@pytest.fixture
def centre(desk: Desk) -> Iterator[Centre]:
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    made = Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=AT)
    yield made
    made.store.close()


@pytest.fixture
def board(centre: Centre, base: Base) -> ScriptedDevice:
    return ScriptedDevice(base, fleet_id=centre.store.identity.id)


def stranger(board: ScriptedDevice, n: int = 0, **other: Any) -> ScriptedDevice:
    """Return somebody with a key of his own who says hello in the board's name, or in another one."""
    return with_key(board, key_of("mallory", n), **other)


def with_key(board: ScriptedDevice, key: PrivateKey, **other: Any) -> ScriptedDevice:
    out = replace(board, **other)
    out.key = key
    return out


def keys_of(desk: Desk) -> dict[str, dict[str, object]]:
    listed: list[dict[str, object]] = desk.json("devices")["waiting"]  # type: ignore[assignment]
    return {str(one["fingerprint"]): one for one in listed}


def test_every_waiting_key_is_listed_with_its_times_and_count_also_two_of_one_name(
    desk: Desk, centre: Centre, board: ScriptedDevice
) -> None:
    liar = stranger(board)
    for at, who in ((AT, liar), (AT + 5, board), (AT + 60, board), (AT + 90, with_key(board, board.key, model="other")), (AT + 100, liar)):
        centre.now = at
        assert centre.take(who.hello()).result is Result.QUARANTINED
    listed = keys_of(desk)
    assert list(listed) == [fingerprint(LIAR), SHORT]  # who came first
    mine, other = listed[SHORT], listed[fingerprint(LIAR)]
    assert mine == {
        "device": "pi-7", "fingerprint": SHORT, "key": LINE, "state": "pending", "first_at": AT + 5, "last_at": AT + 90, "hellos": 3,
        "models": ["digits", "other"], "speaks": [], "claim": None,
    }  # fmt: skip
    assert (other["first_at"], other["last_at"], other["hellos"], other["state"]) == (AT, AT + 100, 2, "pending")
    text = desk.ok("devices")
    for one in (SHORT, fingerprint(LIAR)):
        assert re.search(f"^pi-7 +{one} +pending +[23] +2023-11-14 .*1 more key waits in this name$", text, re.MULTILINE)
    assert "edgeagent status" in text


def test_a_key_is_added_by_the_fingerprint_that_its_board_shows(desk: Desk, centre: Centre, board: ScriptedDevice) -> None:
    centre.take(stranger(board).hello())
    centre.take(board.hello())
    said = desk.json("devices", "add", "pi-7", SHORT)
    assert (said["key"], said["fingerprint"], said["state"], said["replaced"], said["waiting"]) == (LINE, SHORT, "admitted", [], 1)
    assert [a.verb for a in centre.store.acts.of("pi-7")] == ["admit"]
    desk.ok("devices", "add", "pi-7", SHORT)  # it speaks already: nothing is decided
    assert len(centre.store.acts.of("pi-7")) == 1
    (row,) = desk.json("devices")["devices"]  # type: ignore[misc]
    assert (row["status"], row["keys"], row["fingerprints"]) == ("admitted", [LINE], [SHORT])
    centre.meet(board)
    ((short, left),) = keys_of(desk).items()
    assert (short, left["speaks"]) == (fingerprint(LIAR), [SHORT])
    assert "another key speaks for pi-7" in desk.ok("devices")


@pytest.mark.parametrize("typed", [SHORT.upper(), SHORT.replace("-", ""), f" {SHORT} "])
def test_a_fingerprint_may_be_typed_in_capitals_and_without_its_hyphens(
    desk: Desk, centre: Centre, board: ScriptedDevice, typed: str
) -> None:
    centre.take(board.hello())
    assert desk.json("devices", "add", "pi-7", typed)["key"] == LINE


@pytest.mark.parametrize("piece", [SHORT[:-1], SHORT[:4], SHORT[:19], SHORT.replace("-", "")[:8], SHORT + "-"])
def test_a_piece_of_a_fingerprint_names_no_key(desk: Desk, centre: Centre, board: ScriptedDevice, piece: str) -> None:
    centre.take(board.hello())
    said = desk.error("devices", "add", "pi-7", piece)
    assert said["error"] == "BadArgument" and "no whole fingerprint" in str(said["message"])
    assert centre.store.devices.names() == []


def test_a_fingerprint_is_looked_for_among_the_keys_of_that_name_alone(desk: Desk, centre: Centre, board: ScriptedDevice) -> None:
    centre.take(board.hello())
    for name, short in (("pi-8", SHORT), ("pi-7", fingerprint(LIAR))):
        said = desk.error("devices", "add", name, short)
        assert said["error"] == "BadArgument" and f"no key with the fingerprint {short} waits for {name}" in str(said["message"])
    assert centre.store.devices.names() == []


def test_a_fingerprint_that_two_waiting_keys_have_admits_neither(
    desk: Desk, centre: Centre, board: ScriptedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre.take(board.hello())
    centre.take(stranger(board).hello())
    monkeypatch.setattr(waiting, "fingerprint", lambda key: SHORT)
    said = desk.error("devices", "add", "pi-7", SHORT)
    assert said["error"] == "BadArgument" and "2 keys that wait for pi-7" in str(said["message"])
    assert "whole public key" in str(said["hint"])
    assert centre.store.devices.names() == []
    assert desk.json("devices", "add", "pi-7", LINE)["state"] == "admitted"


def test_a_key_that_speaks_is_replaced_only_when_that_is_said(desk: Desk, centre: Centre, board: ScriptedDevice) -> None:
    desk.ok("devices", "add", "pi-7", LINE)
    anew = stranger(board)
    centre.take(anew.hello())
    short = fingerprint(anew.key.public)
    said = desk.error("devices", "add", "pi-7", short)
    assert f"another key that speaks, {SHORT}" in str(said["message"])
    assert centre.store.devices.owner(board.key.public) == "pi-7"
    assert desk.json("devices", "add", "pi-7", short, "--replace")["replaced"] == [LINE]
    assert centre.store.devices.owner(anew.key.public) == "pi-7" and centre.store.devices.owner(board.key.public) is None
    centre.take(board.hello())
    assert keys_of(desk)[SHORT]["state"] == "revoked"


def test_nothing_that_the_centre_says_is_a_line_that_would_admit_a_key(
    desk: Desk, centre: Centre, board: ScriptedDevice, caplog: pytest.LogCaptureFixture
) -> None:
    desk.ok("devices", "add", "pi-7", LINE)
    liar, anew = stranger(board), stranger(board, 1, name="pi-9")
    reasons = [centre.take(one.hello()).reason for one in (liar, anew)]
    liar.epoch = 1
    centre.deliver(liar, liar.train())
    names = {name: [fingerprint(k), k.hex()] for name, k in (("pi-7", liar.key.public), ("pi-9", anew.key.public))}
    said = [*reasons, caplog.text]
    for words in (
        ["devices"], ["devices", "list"], ["show", "pi-7"], ["show", "pi-9"], ["log", "pi-7"], ["doctor"],
        *(["devices", "add", name, given] for name in ("pi-7", "pi-8") for given in (names["pi-7"][0], fingerprint(bytes(32)), "1f2e")),
        ["devices", "add", "pi-7", write_key(KeyKind.DEVICE, liar.key.public)],
        ["devices", "reject", "pi-7", SHORT], ["devices", "reject", "pi-7", "1f2e"], ["devices", "revoke", "pi-9"],
    ):  # fmt: skip
        for how in ([], ["--json"]):
            said += desk.run(*words, *how)[1:]
    for text in said:
        for name, forms in names.items():
            assert all(not re.search(f"add {name} \\S*{form}", text) for form in forms)
        assert not re.search(r"devices add \S+ \S+ --replace", text)
    document = desk.json("devices")
    assert [one.get("next", "") for part in ("devices", "waiting", "quarantine") for one in document[part]].count("") == 4  # type: ignore[attr-defined]
    assert [fingerprint(one.key.public) in reason for one, reason in zip((liar, anew), reasons, strict=True)] == [True, True]


def test_a_rejected_key_is_answered_and_listed_no_more_and_takes_no_room(desk: Desk, centre: Centre, board: ScriptedDevice) -> None:
    liar, short = stranger(board), fingerprint(LIAR)
    centre.take(liar.hello())
    centre.take(board.hello())
    assert desk.json("devices", "reject", "pi-7", short) == {
        "device": "pi-7", "key": write_key(KeyKind.DEVICE, LIAR), "fingerprint": short, "state": "rejected",
    }  # fmt: skip
    desk.ok("devices", "reject", "pi-7", short)
    centre.said()
    outcome = centre.take(liar.hello())
    assert outcome.result is Result.QUARANTINED and "was rejected" in outcome.reason
    assert [r.status for r in centre.said() if isinstance(r, Welcome)] == ["quarantine"]
    assert list(keys_of(desk)) == [SHORT] and [m.mark for m in centre.store.inbox.held()] == [board.key.public]
    (kept,) = desk.json("devices")["rejected"]  # type: ignore[misc]
    assert (kept["device"], kept["fingerprint"], kept["state"]) == ("pi-7", short, "rejected")
    text = desk.ok("devices")
    assert "1 rejected key not shown" in text and short not in text
    said = desk.error("devices", "add", "pi-7", short)
    assert "was rejected for pi-7" in str(said["message"]) and "whole public key" in str(said["hint"])
    centre.take(stranger(board, name="pi-8").hello())  # the word is about this name alone
    assert keys_of(desk)[short]["device"] == "pi-8"


def test_a_wrong_rejection_is_mended_by_the_whole_key(desk: Desk, centre: Centre, board: ScriptedDevice) -> None:
    centre.take(board.hello())
    desk.ok("devices", "reject", "pi-7", SHORT)
    desk.ok("devices", "add", "pi-7", LINE)
    centre.meet(board)
    assert desk.json("devices")["rejected"] == []


def test_only_a_key_that_waits_is_rejected(desk: Desk, centre: Centre, board: ScriptedDevice) -> None:
    assert "no key with the fingerprint" in str(desk.error("devices", "reject", "pi-7", SHORT)["message"])
    desk.ok("devices", "add", "pi-7", LINE)
    for given in (SHORT, LINE):
        said = desk.error("devices", "reject", "pi-7", given)
        assert "speaks for pi-7" in str(said["message"]) and said["hint"] == "edgecloud devices revoke pi-7"
    centre.meet(board)


@pytest.mark.slow("takes ten thousand hellos, each signed by a key of its own")
@pytest.mark.parametrize(("before", "flood"), [(0, 10_000), (1, 1000)])
def test_ten_thousand_hellos_of_strangers_push_no_board_out(
    desk: Desk, centre: Centre, board: ScriptedDevice, before: int, flood: int
) -> None:
    """before: strangers who came earlier than the board; then it must have come twice, as boards do."""
    for n in range(before):
        centre.take(stranger(board, n).hello())
    liar, times = stranger(board), 1 + before
    for _ in range(times):
        centre.take(board.hello())
    with centre.store.transaction():
        for n in range(flood):
            centre.now += 1
            liar.key = key_of("mallory", 100 + n)
            assert centre.take(liar.hello()).result is Result.QUARANTINED
            if n == flood // 2:
                centre.take(board.hello())
                times += 1
    listed = keys_of(desk)
    assert len(listed) == Bounds().held_count
    assert (listed[SHORT]["hellos"], listed[SHORT]["first_at"], listed[SHORT]["last_at"]) == (times, AT, AT + flood // 2 + 1)
    desk.ok("devices", "add", "pi-7", SHORT)
    centre.meet(board)


def test_a_flood_of_names_does_not_push_out_who_comes_again(desk: Desk, centre: Centre, board: ScriptedDevice) -> None:
    centre.ingest.bounds = Bounds(held_total=8, held_count=4)
    centre.take(board.hello())
    centre.take(board.hello())
    for n in range(40):
        centre.take(stranger(board, n, name=f"pi-{100 + n % 9}").hello())
    assert keys_of(desk)[SHORT]["hellos"] == 2 and centre.store.inbox.held_total("hello")[0] == 8


def test_what_else_waits_is_listed_beside_the_keys(desk: Desk, base: Base) -> None:
    desk.ok("init", "--fleet", "orchard")
    centre = Centre(open_registry(desk.folder / "fleet.db"))
    device = ScriptedDevice(base, fleet_id=centre.store.identity.id)
    centre.take(device.hello())
    device.epoch = 1
    centre.deliver(device, device.train())
    (others,) = desk.json("devices")["quarantine"]  # type: ignore[misc]
    assert (others["device"], others["hellos"], others["updates"], others["next"]) == ("pi-7", 0, 1, "")
    assert "signed by a key that is not registered" in others["what"]
    assert "2 of its messages wait" in desk.ok("devices", "add", "pi-7", SHORT)
    centre.tick()  # the key is known now, the base is not
    (others,) = desk.json("devices")["quarantine"]  # type: ignore[misc]
    assert others["next"] == "edgecloud bases add FILE.tflite" and others["next"] in desk.ok("devices") and keys_of(desk) == {}
    centre.store.inbox.release(next(m.id for m in centre.store.inbox.held("pi-7") if m.kind == "hello"))
    (others,) = desk.json("devices")["quarantine"]  # type: ignore[misc]
    assert "when it has said hello" in others["what"]
    centre.store.close()


def test_a_version_that_is_not_judged_yet_is_waiting_and_no_damage(desk: Desk, centre: Centre, board: ScriptedDevice) -> None:
    desk.ok("devices", "add", "pi-7", LINE)
    centre.meet(board)
    centre.deliver(board, board.train())
    centre.rebuild()
    centre.deliver(board, board.train(fingerprint=(1, 2)), board.train())  # the ingester will refuse both
    said = desk.json("verify", "--all")
    assert [said[k] for k in ("checked", "exact", "waiting", "wrong", "refused")] == [3, 1, 2, [], 0]
    assert "1 of 3 versions exact, 2 waiting" in desk.ok("verify")
    code, out, _ = desk.run("verify", "pi-7@2", "--json")  # one that was asked for by its number is not proven
    assert (code, json.loads(out)["waiting"], json.loads(out)["exact"]) == (1, 1, 0)
    centre.take(stranger(board).hello())
    looked = {c["what"]: c for c in json.loads(desk.run("doctor", "--json")[1])["checks"]}
    assert looked["waiting"]["ok"] and looked["waiting"]["found"].startswith("2 versions are waiting") and looked["registry"]["ok"]
    assert "1 key waits for you" in looked["waiting"]["found"]
    centre.rebuild()
    assert [desk.json("verify")[k] for k in ("exact", "waiting", "refused")] == [1, 0, 2]


def test_a_stored_version_whose_bytes_are_damaged_is_no_waiting_one(desk: Desk, centre: Centre, board: ScriptedDevice) -> None:
    desk.ok("devices", "add", "pi-7", LINE)
    centre.meet(board)
    centre.deliver(board, board.train())
    blob = centre.store.versions.numbered(1, 1).blob  # type: ignore[union-attr]
    damage(centre.store, "UPDATE blob SET bytes = zeroblob(size) WHERE sha256 = ?", blob)
    code, out, _ = desk.run("verify", "--all", "--json")
    assert code == 56 and [w["name"] for w in json.loads(out)["wrong"]] == ["pi-7/digits@1"] and json.loads(out)["waiting"] == 0
