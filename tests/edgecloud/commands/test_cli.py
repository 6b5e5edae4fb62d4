"""The command line: what each command does, the JSON contract, exit codes, and the examples in its help."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgecloud import cli, commands, keys
from edgecloud.registry import open_registry
from modelwire.tflite.file import read_weights
from modelwire.update.manifest import manifest_of
from modelwire.wire.keys import KeyKind, write_key
from tests.edgecloud.centre import Centre, damage
from tests.edgecloud.desk import KEY, LINE, Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice, key_of


@pytest.fixture
def grown(desk: Desk, base: Base) -> tuple[Desk, ScriptedDevice]:
    """A registry made by commands, with four versions of one device, the third refused, and one more that was refused at the door."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    desk.ok("devices", "add", "pi-7", LINE)
    centre = Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=1_700_000_000)
    device = centre.meet(ScriptedDevice(base))
    for n in (1, 2, 3):
        centre.deliver(device, device.train(fingerprint=(1, 2)) if n == 3 else device.train())
    centre.rebuild()
    centre.deliver(device, device.snapshot(centre.said()[-1].good, version=6, extension={"skipped": [[4, 5]]}))
    centre.rebuild()
    centre.deliver(device, device.snapshot(device.base.manifest.commit))
    centre.store.close()
    return desk, device


def test_the_registry_is_named_by_flag_before_or_after_the_command_or_by_the_environment(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.ok("init", "--db", "a.db", "--fleet", "one")
    assert desk.json("bases", "list", "--db", "a.db") == desk.json("--db", "a.db", "bases", "list") == {"bases": [], "more": 0}
    assert desk.error("bases", "list")["error"] == "MissingFile"
    monkeypatch.setenv("EDGECLOUD_DB", "a.db")
    assert desk.json("bases", "list") == {"bases": [], "more": 0}
    assert desk.error("bases", "list", "--db", "b.db")["error"] == "MissingFile"


def test_a_base_is_added_once_under_its_commit(desk: Desk) -> None:
    desk.ok("init")
    said = desk.json("bases", "add", str(TINY))
    assert said["base"] == "tiny" and said["commit"] == manifest_of(TINY.read_bytes()).commit.hex()
    assert desk.json("bases", "add", str(TINY))["base"] == desk.json("bases", "add", str(TINY), "--name", "tiny")["base"] == "tiny"
    assert "--name other would do nothing" in str(desk.error("bases", "add", str(TINY), "--name", "other")["message"])
    digits = TINY.parent / "digits.tflite"
    assert "--name tiny-2" in str(desk.error("bases", "add", str(digits), "--name", "tiny")["hint"])
    desk.ok("bases", "add", str(digits))
    assert sorted(b["base"] for b in desk.json("bases", "list")["bases"]) == ["digits", "tiny"]
    (desk.folder / "no.tflite").write_bytes(b"not a model")
    assert desk.error("bases", "add", "no.tflite")["code"] in (22, 41)
    assert desk.error("bases", "add", "nowhere.tflite")["error"] == "MissingFile"
    assert desk.error("bases", "add", str(TINY.parent / "tiny_shared.tflite"))["error"] == "NotTrainable"


def test_a_device_is_added_replaced_and_revoked(desk: Desk) -> None:
    desk.ok("init")
    other = write_key(KeyKind.DEVICE, key_of("pi-7", 1).public)
    assert desk.json("devices", "add", "pi-7", LINE)["replaced"] == []
    desk.ok("devices", "add", "pi-7", LINE)
    assert "speaks for pi-7" in str(desk.error("devices", "add", "pi-8", LINE)["message"])
    said = desk.error("devices", "add", "pi-7", other)
    assert "another key that speaks" in str(said["message"]) and other not in str(said) and "edgecloud devices add" not in str(said)
    (desk.folder / "pi-7.pub").write_text(other + "\n")
    assert desk.json("devices", "add", "pi-7", "pi-7.pub", "--replace")["replaced"] == [LINE]
    assert desk.json("devices", "revoke", "pi-7")["revoked"] == 1
    assert desk.json("devices")["devices"][0]["status"] == "revoked"
    said = desk.error("devices", "add", "pi-7", LINE)  # neither the one that was replaced comes back, nor the one that was revoked
    assert "was revoked (entry 3 of the log), and that is for good" in str(said["message"]) and "edgeagent init" in str(said["hint"])
    assert "was revoked" in str(desk.error("devices", "add", "pi-7", other)["message"])
    third = write_key(KeyKind.DEVICE, key_of("pi-7", 2).public)
    desk.ok("devices", "add", "pi-7", third)
    assert desk.json("devices", "list")["devices"][0]["keys"] == [third]
    for wrong in ("xyz", KEY, "fleet.pub", "receipt.key", write_key(KeyKind.COMMAND, bytes(32))):
        said = desk.error("devices", "add", "pi-9", wrong)
        assert said["error"] == "WrongKeyKind" and "a device's public key" in str(said["message"])
    assert desk.error("devices", "add", "pi-9", LINE + "0")["error"] == "Malformed"
    assert desk.error("devices", "add", "all", LINE)["error"] == "Malformed"
    assert desk.error("devices", "add", "PI 9", LINE)["error"] == "Malformed"
    assert desk.error("devices", "add", "pi-9", "./nowhere.pub")["error"] == "MissingFile"
    assert desk.error("devices", "revoke", "pi-9")["error"] == "UnknownDevice"


def test_log_lists_versions_refusals_and_what_a_version_carries(grown: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = grown
    said = desk.json("log", "pi-7")
    assert [(v["version"], v["kind"], v["status"]) for v in said["versions"]] == [
        (6, "snapshot", "verified"), (3, "delta", "refused"), (2, "delta", "verified"), (1, "delta", "verified"),
    ]  # fmt: skip
    assert said["versions"][0]["skipped"] == [[4, 5]]
    assert said["versions"][3]["commit"] == device.made[1].commit.hex()
    assert [v["version"] for v in desk.json("log", "pi-7", "-n", "2")["versions"]] == [6, 3]
    assert "2 more: -n 0 shows all" in desk.ok("log", "pi-7", "-n", "2") and "more:" not in desk.ok("log", "pi-7", "-n", "0")
    assert desk.error("log", "pi-7@3")["hint"] == "edgecloud show pi-7@3"
    assert [r["version"] for r in said["refusals"]] == [7]
    text = desk.ok("log", "pi-7/digits")
    for word in ("pi-7/digits", "@6", "carries @4..5", "another fingerprint", "stale parent", "1.000 -> 0.500"):
        assert word in text


def test_show_tells_of_a_device_a_version_and_a_base(grown: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = grown
    of_device = desk.json("show", "pi-7")
    assert (of_device["status"], of_device["models"][0]["head"], of_device["models"][0]["versions"]) == ("admitted", 6, 4)
    version = desk.json("show", "pi-7@2")
    assert (version["name"], version["root"]) == ("pi-7/digits@2", device.made[2].root.hex())
    assert version["metrics"]["loss_after"] == 0.5
    assert desk.json("show", "pi-7/digits")["version"] == 6
    assert desk.json("show", "pi-7@base")["base"] == "digits"
    for name in ("pi-7", "pi-7@2", "pi-7@base"):
        assert "pi-7" in desk.ok("show", name)


def test_notes_are_kept_on_whatever_has_a_name(grown: tuple[Desk, ScriptedDevice]) -> None:
    desk, _ = grown
    for name, shown in (("pi-7", "pi-7"), ("pi-7@2", "pi-7@2"), ("base:digits", "pi-7@base")):
        desk.ok("annotate", name, f"about {name}")
        assert f"about {name}" in desk.ok("show", shown)
    desk.ok("annotate", "pi-7/digits", "about the model")
    assert "about the model" in desk.ok("show", "pi-7")
    for name in ("pi-9", "pi-7@99", "base:none", "pi-7/none"):
        assert desk.error("annotate", name, "x")["code"] in (15, 54, 57)
    assert desk.error("annotate", "pi-7", " ")["error"] == "BadArgument"


def test_diff_measures_tensor_by_tensor(grown: tuple[Desk, ScriptedDevice]) -> None:
    desk, _ = grown
    said = desk.json("diff", "pi-7@1", "pi-7@latest")
    assert said["same_base"] and said["changed"] == sum(t["changed"] for t in said["tensors"]) > 0
    assert desk.json("diff", "pi-7@2", "pi-7/digits@2")["changed"] == 0
    assert "max |dw|" in desk.ok("diff", "pi-7@base", "pi-7@6")
    assert desk.error("diff", "pi-7@1", "pi-7@3")["error"] == "NotServed"


@pytest.mark.parametrize("suffix", ["tflite", "npz", "safetensors"])
def test_materialise_writes_the_exact_version_in_each_format(grown: tuple[Desk, ScriptedDevice], suffix: str) -> None:
    desk, device = grown
    said = desk.json("materialise", "pi-7@2", "-o", f"model.{suffix}")
    path = desk.folder / f"model.{suffix}"
    data = path.read_bytes()
    assert said["sha256"] == hashlib.sha256(data).hexdigest() and said["root"] == device.made[2].root.hex()
    desk.ok("materialise", "pi-7@2", "-o", f"again.{suffix}")
    assert (desk.folder / f"again.{suffix}").read_bytes() == data
    if suffix == "tflite":
        assert hashlib.sha256(data).digest() == device.made[2].file_sha256
        return
    desk.ok("materialise", "pi-7@2", "-o", "model.tflite")
    expected = read_weights((desk.folder / "model.tflite").read_bytes())
    got = dict(np.load(path)) if suffix == "npz" else load_file(path)
    assert sorted(got) == sorted(expected)
    for name, w in expected.items():
        assert got[name].dtype == np.float32 and got[name].shape == w.shape and got[name].tobytes() == w.tobytes()


def test_materialise_writes_nothing_unless_it_is_exact(grown: tuple[Desk, ScriptedDevice]) -> None:
    desk, _ = grown
    (desk.folder / "model.tflite").write_bytes(b"the one before")
    assert desk.error("materialise", "pi-7@3", "-o", "model.tflite")["error"] == "NotServed"
    assert desk.error("materialise", "pi-7@9", "-o", "model.tflite")["error"] == "UnknownVersion"
    assert desk.error("materialise", "pi-7@2", "-o", "model.onnx")["error"] == "BadArgument"
    assert desk.error("materialise", "pi-7@2", "-o", "no/folder/model.npz")["error"] == "BadArgument"
    assert (desk.folder / "model.tflite").read_bytes() == b"the one before"
    assert [p.name for p in desk.folder.glob("*partial*")] == []


def test_materialise_without_a_version_gives_the_latest_and_base_gives_the_base(grown: tuple[Desk, ScriptedDevice], base: Base) -> None:
    desk, _ = grown
    assert desk.json("materialise", "pi-7", "-o", "a.tflite")["name"] == "pi-7/digits@6"
    desk.ok("materialise", "pi-7@base", "-o", "b.tflite")
    assert (desk.folder / "b.tflite").read_bytes() == base.file


def test_verify_counts_what_is_exact_and_fails_when_something_is_not(grown: tuple[Desk, ScriptedDevice]) -> None:
    desk, _ = grown
    assert {k: v for k, v in desk.json("verify", "--all").items() if k != "seconds"} == {
        "checked": 3, "exact": 3, "waiting": 0, "thinned": 0, "wrong": [], "tampered": [], "refused": 1,
    }  # fmt: skip
    assert desk.json("verify")["exact"] == 3
    assert desk.json("verify", "pi-7@2")["exact"] == desk.json("verify", "pi-7@base")["exact"] == 1
    assert desk.json("verify", "pi-7")["exact"] == desk.json("verify", "pi-7/digits")["exact"] == 3
    assert desk.json("verify", "pi-7@6")["exact"] == 1
    store = open_registry(desk.folder / "fleet.db")
    row = store.versions.numbered(1, 2)
    damage(store, "UPDATE blob SET bytes = zeroblob(size) WHERE sha256 = ?", row.blob)
    store.close()
    code, out, err = desk.run("verify", "--all", "--json")
    assert code == 56 and json.loads(err)["error"] == "RegistryDamaged"
    assert [w["name"] for w in json.loads(out)["wrong"]] == ["pi-7/digits@2"]
    code, out, err = desk.run("verify")
    assert code == 56 and "NOT EXACT pi-7/digits@2" in out and "2 of 3 versions exact" in out


def test_verify_of_a_refused_version_says_that_it_is_not_served(grown: tuple[Desk, ScriptedDevice]) -> None:
    desk, _ = grown
    code, out, _ = desk.run("verify", "pi-7@3", "--json")
    assert code == 56 and json.loads(out)["wrong"][0]["error"] == "NotServed"


def test_a_snapshot_is_requested_once_and_shown_until_it_is_answered(grown: tuple[Desk, ScriptedDevice]) -> None:
    desk, _ = grown
    first = desk.json("snapshot", "request", "pi-7")
    assert desk.json("snapshot", "request", "pi-7/digits")["number"] == first["number"]
    assert "asked for  snapshot" in desk.ok("show", "pi-7")
    assert desk.error("snapshot", "request", "pi-9")["error"] == "UnknownVersion"


def test_backup_and_restore_make_a_round_trip_and_say_that_keys_are_not_in_it(grown: tuple[Desk, ScriptedDevice]) -> None:
    desk, _ = grown
    said = desk.json("backup", "monday.db")
    assert said["keys_included"] is False and said["integrity"] == "ok"
    assert "keys are not in it" in desk.ok("backup", "monday.db", "--force")
    assert desk.error("backup", "monday.db")["error"] == "BadArgument"
    for name in keys.SECRET:
        secret = (desk.folder / name).read_text().strip()
        copy = (desk.folder / "monday.db").read_bytes()
        assert bytes.fromhex(secret.split(":")[1]) not in copy and secret.encode() not in copy
    assert desk.error("restore", "monday.db")["error"] == "BadArgument"
    assert desk.json("restore", "monday.db", "--force")["replaced"]
    assert desk.json("verify")["exact"] == 3
    other = desk.json("restore", "monday.db", "--db", "copy.db")
    assert other["replaced"] is None and other["keys_missing"] == []
    (desk.folder / "elsewhere").mkdir()
    apart = desk.json("restore", "monday.db", "--db", "elsewhere/fleet.db")
    assert apart["keys_missing"] == ["root.key", "receipt.key", "command.key", "director.key"]


def test_doctor_names_what_to_fix(desk: Desk) -> None:
    code, out, _ = desk.run("doctor", "--broker", "mqtt://127.0.0.1:1", "--json")
    checks = {c["what"]: c for c in json.loads(out)["checks"]}
    assert code == 1 and checks["kernel"]["ok"] and not checks["registry"]["ok"] and checks["broker port"]["ok"] is False
    assert all(c["fix"] for c in checks.values() if c["ok"] is False)
    desk.ok("init")
    (desk.folder / "receipt.key").chmod(0o644)
    code, out, _ = desk.run("doctor", "--broker", "mqtt://127.0.0.1:1", "--json")
    checks = {c["what"]: c for c in json.loads(out)["checks"]}
    assert checks["registry"]["ok"] and checks["key"]["fix"] == "chmod 600 receipt.key"
    (desk.folder / "receipt.key").chmod(0o600)
    assert "FIX  broker" in desk.run("doctor", "--broker", "mqtt://127.0.0.1:1")[1]


def test_a_readable_key_or_one_of_another_fleet_does_not_start_an_ingester(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.ok("init")
    (desk.folder / "receipt.key").chmod(0o640)
    assert "chmod 600" in desk.error("ingest", "--once")["hint"]
    (desk.folder / "receipt.key").chmod(0o600)
    for wrong in ("root.key", "command.key", "director.key", "fleet.pub"):
        said = desk.error("ingest", "--once", "--key", wrong)
        assert said["error"] == "WrongKeyKind" and "the centre's private receipt key" in str(said["message"])
    (desk.folder / "other.key").write_text(write_key(KeyKind.RECEIPT_PRIVATE, b"x" * 32))
    (desk.folder / "other.key").chmod(0o600)
    assert "none of the receipt keys" in str(desk.error("ingest", "--once", "--key", "other.key")["message"])
    assert desk.error("ingest", "--broker", "http://x", "--once")["error"] == "BadArgument"
    assert desk.error("ingest", "--broker", "http://x")["code"] == 10, "a service with that code is not started again"
    monkeypatch.setenv("EDGECLOUD_WORKERS", "many")
    assert (said := desk.error("ingest"))["error"] == "ConfigError" and "'many' is not a whole number" in str(said["message"])
    monkeypatch.delenv("EDGECLOUD_WORKERS")
    assert desk.error("ingest", "--once", "--idle", "soon")["error"] == "Usage"
    assert desk.error("ingest", "--idle", "3")["message"] == "--idle does nothing without --once"


def test_names_that_make_no_sense_are_refused(grown: tuple[Desk, ScriptedDevice]) -> None:
    desk, _ = grown
    for name in ("", "@3", "pi-7@", "pi-7@x", "pi-7@-1", "pi-7/a/b@1", "PI@1", "pi-7@1@2", "pi-7@99999999999999999999"):
        assert desk.error("show", name)["error"] in ("Malformed", "UnknownVersion")


def test_version_names_release_wire_and_schema(desk: Desk) -> None:
    assert sorted(desk.json("version")) == ["edgecloud", "registry_schema", "wire"]


def test_usage_errors_are_code_2_and_json_when_asked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["edgecloud", "log", "--json"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert json.loads(capsys.readouterr().err)["code"] == 2
    monkeypatch.setattr(sys, "argv", ["edgecloud", "log"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2 and "usage:" in capsys.readouterr().err


@pytest.mark.slow("starts processes of the command")
def test_it_runs_as_a_module_and_bears_a_reader_that_goes_away(desk: Desk) -> None:
    root = Path(cli.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    desk.ok("init")
    run = f"{shlex.quote(sys.executable)} -m edgecloud devices --help | head -c 1; exit ${{PIPESTATUS[1]}}"
    assert subprocess.run(["bash", "-c", run], env=environment, cwd=desk.folder, capture_output=True).stderr == b""
    log = [sys.executable, "-m", "edgecloud", "log", "pi-9"]
    said = subprocess.run(log, env=environment, cwd=desk.folder, capture_output=True, text=True)
    assert said.returncode == 54 and said.stderr.startswith("edgecloud: pi-9: no such device") and said.stdout == ""


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from leaves(child)


def test_every_command_has_a_description_help_for_its_arguments_and_examples_that_parse() -> None:
    parser = cli.parser()
    count = 0
    for one in leaves(parser):
        assert one.description, one.prog
        assert one.epilog and one.epilog.startswith("examples:\n"), one.prog
        for line in one.epilog.splitlines()[1:]:
            words = shlex.split(line)
            assert words[0] == "edgecloud"
            args = parser.parse_args(words[1:])
            assert callable(args.run)
            count += 1
    assert count > 30


def test_the_text_of_devices_of_strangers_can_not_draw_on_the_terminal(desk: Desk, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a board writes into its hello is shown as it is, never as markup or control characters."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--no-rehearse")
    desk.ok("devices", "add", "pi-7", LINE)
    centre = Centre(open_registry(desk.folder / "fleet.db"))
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train(extension={"note": "[red]\x1b[2J[/red]"}))
    centre.store.close()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for arguments in (("log", "pi-7"), ("show", "pi-7@1"), ("devices",)):
        assert "\x1b[2J" not in desk.ok(*arguments)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["log", "pi-7"], ["log"]),
        (["--json", "--db", "show", "log", "pi-7"], ["log"]),
        (["--db=fleet.db", "int8-head", "fit"], ["int8-head"]),
        (["--db"], list(commands.NAMES)),
        (["--help"], list(commands.NAMES)),
        (["nothing", "log"], list(commands.NAMES)),
        ([], list(commands.NAMES)),
    ],
)
def test_the_command_that_is_called_is_seen_behind_the_options_of_all(words: list[str], names: list[str]) -> None:
    assert [command.NAME for command in commands.chosen(words)] == names


NUMBERS = ("numpy", "modelwire.lattice", "modelwire.update.container", "modelwire.tflite", "edgecloud.versions", "edgecloud.probes")


@pytest.mark.parametrize(
    ("words", "needed", "others"),
    [
        (
            ["version"], "edgecloud.commands.registry.version",
            (
                "edgecloud.api", "edgecloud.graft", "edgecloud.intake", "edgecloud.versions.replaying", "modelwire.lattice",
                "modelwire.tflite", "paho", "rich", "tensorflow",
            ),
        ),
        (["devices", "list"], "edgecloud.commands.fleet.listing", (*NUMBERS, "edgecloud.audit.tampering", "edgecloud.feasibility")),
        (["claim", "list"], "edgecloud.commands.fleet.claim", (*NUMBERS, "edgecloud.intake")),
        (["limits"], "edgecloud.commands.fleet.limits", NUMBERS),
        (["policy"], "edgecloud.commands.registry.policy", ("modelwire.tflite", "edgecloud.probes", "edgecloud.audit.tampering")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_call_loads_nothing_that_only_other_commands_need(desk: Desk, words: list[str], needed: str, others: tuple[str, ...]) -> None:
    """Else the time of a bare command would be that of the largest one."""
    desk.ok("init", "--fleet", "orchard")
    program = "import sys, edgecloud.cli; code = edgecloud.cli.main(sys.argv[1:]); print(*sys.modules); sys.exit(code)"
    call = [sys.executable, "-c", program, *words, "--db", str(desk.folder / "fleet.db")]
    loaded = subprocess.run(call, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert needed in loaded
    assert not set(others) & set(loaded)


@pytest.mark.parametrize(
    ("module", "others"),
    [
        (
            "edgecloud.probes.child",
            ("modelwire.lattice", "modelwire.update", "modelwire.wire", "edgecloud.registry", "edgecloud.rehearsal.rehearsing"),
        ),
        ("edgecloud.workers.worker", ("edgecloud.audit", "edgecloud.rehearsal", "edgecloud.probes")),
    ],
    ids=("scores", "rebuilds"),
)  # fmt: skip
def test_a_process_beside_the_commands_loads_no_more_than_its_work_takes(module: str, others: tuple[str, ...]) -> None:
    """They are started by the hundred: each pays for what it loads."""
    program = f"import sys, {module}; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = said.stdout.split()
    assert module in loaded
    assert not set(others) & set(loaded)
