"""The command line as a contract: examples parse, documents hold what is promised, errors have their codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeagent import __version__, cli
from edgeagent.commands import every
from edgeagent.service.goal import Goal
from edgeagent.settings import reading
from edgeagent.spending import flash
from edgecloud.graft.grafting import Wish, graft
from edgecommon.runtime import load as find_runtime
from modelwire.errors import RuntimeUnusable
from modelwire.wire import signing
from modelwire.wire.keys import KeyKind, fingerprint, read_key, write_fleet, write_key
from tests import broker, keys
from tests.edgeagent.boards import DEVICE_SEED, centre, fill, make, rig
from tests.edgeagent.centre import FakeClock
from tests.worlds import MODELS

try:
    find_runtime()
    RUNTIME = True
except RuntimeUnusable:
    RUNTIME = False
needs_runtime = pytest.mark.skipif(not RUNTIME, reason="no TFLite runtime in this environment")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("EDGEAGENT_")]:
        monkeypatch.delenv(name)


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main(words)
    said = capsys.readouterr()
    return code, said.out, said.err


def document(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    code, out, err = call(capsys, *words, "--json")
    assert code == 0, err
    return json.loads(out)


def error(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    code, out, err = call(capsys, *words, "--json")
    assert code != 0 and out == ""
    said = json.loads(err.strip().splitlines()[-1])
    assert set(said) - {"trouble"} == {"error", "code", "message", "hint"} and said["code"] == code
    return said


def examples() -> list[str]:
    return [line for command in every() for line in command.EXAMPLES]


@pytest.mark.parametrize("line", examples())
def test_every_example_is_one_that_the_parser_takes(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == "edgeagent"
    assert callable(cli.parser().parse_args(words[1:]).run)


@pytest.mark.parametrize("command", [c.NAME for c in every()])
def test_help_ends_with_examples(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = call(capsys, command, "--help")
    assert code == 0
    assert out.rstrip().splitlines()[-1].startswith(f"  edgeagent {command}")
    assert "--json" in out


def test_the_help_of_the_whole_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "--help")
    for command in every():
        assert command.NAME in [line.split()[0] for line in out.splitlines() if line.startswith("    ") and line[4] != " "]
        assert command.HELP.split()[0] in out


def init(capsys: pytest.CaptureFixture[str], folder: Path, *more: str) -> Any:
    (folder.parent / "fleet.pub").write_text(write_fleet(keys.FLEET) + "\n")
    return document(
        capsys, "init", "--device", "pi-7", "--fleet", "home", "--fleet-key", str(folder.parent / "fleet.pub"),
        "--model", f"tiny={MODELS / 'tiny.tflite'}", "--dir", str(folder), *more,
    )  # fmt: skip


def test_init_says_the_key_and_the_line_for_the_centre(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = init(capsys, tmp_path / "d", "--set", "train.epochs=9", "--broker", "mqtt://127.0.0.1:99")
    key = (tmp_path / "d" / "device.key").read_text()
    assert key.startswith("edge-device-key:") and (tmp_path / "d" / "fleet.pub").read_text() == write_fleet(keys.FLEET) + "\n"
    public = signing.PrivateKey(read_key(key, KeyKind.DEVICE_PRIVATE, "device.key")).public
    assert said["public_key"] == write_key(KeyKind.DEVICE, public) and said["public_key"].startswith("edge-device-pub:")
    assert f"edgecloud devices add pi-7 {said['public_key']}" in said["on_the_centre"]
    assert said["fingerprint"] == fingerprint(public)
    assert (tmp_path / "d" / "device.key").stat().st_mode & 0o777 == 0o600
    shown = document(capsys, "config", "show", "--origin", "--dir", str(tmp_path / "d"))["settings"]
    assert shown["train.epochs"] == {"value": 9, "origin": "file"}
    assert shown["link.broker"] == {"value": "mqtt://127.0.0.1:99", "origin": "file"}
    assert shown["link.resend"] == {"value": 30.0, "origin": "default"}
    again = error(
        capsys, "init", "--device", "pi-7", "--fleet", "home", "--fleet-key", str(tmp_path / "fleet.pub"),
        "--model", f"tiny={MODELS / 'tiny.tflite'}", "--dir", str(tmp_path / "d"),
    )  # fmt: skip
    assert again["error"] == "ConfigError" and "never overwrites" in again["message"]


def test_init_takes_the_key_that_the_device_had_before(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first = init(capsys, tmp_path / "a")
    second = init(capsys, tmp_path / "b", "--key", str(tmp_path / "a" / "device.key"))
    assert first["public_key"] == second["public_key"]


def test_init_with_resume_says_how_the_last_models_come_back_and_status_how_long_it_waits(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert init(capsys, tmp_path / "a")["resume"] is False
    assert document(capsys, "status", "--dir", str(tmp_path / "a"))["models"][0]["resume"] is None
    assert init(capsys, tmp_path / "b", "--resume", "--set", "link.resume_wait=2h")["resume"] is True
    said = document(capsys, "status", "--dir", str(tmp_path / "b"))["models"][0]
    assert said["resume"] == {"version": None, "waited": 0, "at_most": 7200} and said["taking"] is None
    _, text, _ = call(capsys, "status", "--dir", str(tmp_path / "b"))
    assert "would like its last model back: the centre has not said whether it holds one; it waits for it 2h more at most" in text
    (tmp_path / "c").mkdir()
    code, out, _ = call(
        capsys, "init", "--device", "pi-7", "--fleet", "home", "--fleet-key", str(tmp_path / "fleet.pub"), "--resume",
        "--model", f"tiny={MODELS / 'tiny.tflite'}", "--dir", str(tmp_path / "c"),
    )  # fmt: skip
    assert code == 0 and "  edgecloud devices resume pi-7\n" in out


@pytest.mark.parametrize("option", ["--fleet-key", "--key"])
@pytest.mark.parametrize("kind", [*KeyKind, None])
def test_init_takes_a_key_of_the_right_kind_alone_and_writes_nothing_for_another(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str, kind: KeyKind | None
) -> None:
    right = KeyKind.FLEET if option == "--fleet-key" else KeyKind.DEVICE_PRIVATE
    (tmp_path / "fleet.pub").write_text(write_fleet(keys.FLEET))
    text = "00" * 32 if kind is None else write_key(kind, bytes(range(kind.value[2])))
    (tmp_path / "given").write_text(text + "\n")
    (tmp_path / "given").chmod(0o600)
    words = [
        "init", "--device", "pi-7", "--fleet", "home", "--model", f"tiny={MODELS / 'tiny.tflite'}", "--dir", str(tmp_path / "d"),
        *(() if option == "--fleet-key" else ("--fleet-key", str(tmp_path / "fleet.pub"))), option, str(tmp_path / "given"),
    ]  # fmt: skip
    if kind is right:
        document(capsys, *words)
        return
    said = error(capsys, *words)
    assert (said["error"], said["code"]) == ("WrongKeyKind", 16)
    assert str(tmp_path / "given") in said["message"] and f"({right.prefix}:...)" in said["message"]
    assert (kind.title if kind else "says not which kind") in said["message"]
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("text", [*(f"edge-device-key:{digits}" for digits in ("", "00", "G" * 64, "AB" * 32)), "\xff"])
def test_a_damaged_key_is_named_with_its_file(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> None:
    make(tmp_path / "d")
    (tmp_path / "d" / "device.key").write_bytes(text.encode("latin-1"))
    said = error(capsys, "status", "--dir", str(tmp_path / "d"))
    assert said["error"] == "ConfigError" and "device.key" in said["message"]


def test_status_and_doctor_say_keys_with_their_kinds_and_the_fleet_by_its_id(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make(tmp_path / "d")
    said = document(capsys, "status", "--dir", str(tmp_path / "d"))
    assert said["public_key"].startswith("edge-device-pub:")
    assert (said["fleet_id"], said["trust"], said["log"]) == (keys.FLEET_ID.hex(), 0, None)
    _, out, _ = call(capsys, "doctor", "--dir", str(tmp_path / "d"))
    assert f"key           {said['public_key']}, readable by its owner alone" in out and write_fleet(keys.FLEET) in out
    assert DEVICE_SEED.hex() not in out


def test_the_fingerprint_stands_on_a_line_of_its_own_wherever_a_board_shows_its_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = init(capsys, tmp_path / "a")
    short = said["fingerprint"]
    assert re.fullmatch("[0-9a-f]{4}(-[0-9a-f]{4}){4}", short)
    assert document(capsys, "status", "--dir", str(tmp_path / "a"))["fingerprint"] == short
    checks = document_of_doctor(capsys, tmp_path / "a")["checks"]
    assert [c["ok"] for c in checks if c["what"] == "fingerprint" and short in c["text"]] == [True]
    _, status, _ = call(capsys, "status", "--dir", str(tmp_path / "a"))
    _, made, _ = call(
        capsys, "init", "--device", "pi-7", "--fleet", "home", "--fleet-key", str(tmp_path / "fleet.pub"),
        "--model", f"tiny={MODELS / 'tiny.tflite'}", "--dir", str(tmp_path / "b"), "--key", str(tmp_path / "a" / "device.key"),
    )  # fmt: skip
    for text in (status, made):
        assert f"\n\n    fingerprint   {short}\n    public key    {said['public_key']}\n\n" in text
    assert f"  edgecloud devices add pi-7 {short}" in made
    _, out, _ = call(capsys, "doctor", "--dir", str(tmp_path / "a"))
    assert f"ok   fingerprint   {short}" in out


def document_of_doctor(capsys: pytest.CaptureFixture[str], folder: Path) -> Any:
    _, out, _ = call(capsys, "doctor", "--dir", str(folder), "--json")
    return json.loads(out)


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", None), ("momentum", 0.02), ("adam", 0.001)])
def test_init_writes_the_rate_that_suits_the_files_optimizer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, optimizer: str, rate: float | None
) -> None:
    stock = (MODELS / "stock" / "har.tflite").read_bytes()
    (tmp_path / "har.tflite").write_bytes(graft(stock, Wish(optimizer=optimizer)).file)
    init(capsys, tmp_path / "d", "--model", f"har={tmp_path / 'har.tflite'}")
    settings = reading.load(tmp_path / "d" / "edgeagent.toml", environment={}, flags={}).settings
    assert settings.model("har").train.learning_rate == (settings.train.learning_rate if rate is None else rate)
    assert settings.model("tiny").train.learning_rate == settings.train.learning_rate
    init(capsys, tmp_path / "e", "--model", f"har={tmp_path / 'har.tflite'}", "--set", "train.learning_rate=0.5")
    said = reading.load(tmp_path / "e" / "edgeagent.toml", environment={}, flags={"train.learning_rate": "0.25"}).settings
    assert said.model("har").train.learning_rate == 0.25
    said = reading.load(tmp_path / "d" / "edgeagent.toml", environment={}, flags={"train.learning_rate": "0.25"}).settings
    assert said.model("har").train.learning_rate == 0.25, "a flag goes before what init wrote"


@pytest.mark.parametrize(
    ("words", "name", "code"),
    [
        (["--model", "tiny=/no/such.tflite"], "MissingFile", 12),
        (["--model", "tiny"], "ConfigError", 10),
        (["--model", "T!=x"], "ConfigError", 10),
        (["--model", f"tiny={MODELS / 'tiny_shared.tflite'}"], "NotTrainable", 22),
        (["--model", f"tiny={MODELS / 'README.md'}"], "", 0),
        (["--model", f"tiny={MODELS / 'tiny.tflite'}", "--set", "train.epoch=1"], "UnknownKey", 11),
        (["--model", f"tiny={MODELS / 'tiny.tflite'}", "--device", "No Spaces"], "ConfigError", 10),
    ],
)
def test_init_refuses_what_could_not_work_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], name: str, code: int
) -> None:
    (tmp_path / "fleet.pub").write_text(write_fleet(keys.FLEET))
    common = ["init", "--device", "pi-7", "--fleet", "home", "--fleet-key", str(tmp_path / "fleet.pub"), "--dir", str(tmp_path / "d")]
    said = error(capsys, *common, *words)
    if name:
        assert (said["error"], said["code"]) == (name, code)
    assert not (tmp_path / "d").exists()


def test_usage_errors_end_with_2_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "bogus")
    assert code == 2 and out == "" and "invalid choice" in err and "try: edgeagent --help" in err
    said = error(capsys, "run", "--rounds", "0")
    assert said["error"] == "Usage" and said["code"] == 2 and said["hint"] == "edgeagent run --help"


def test_a_missing_folder_is_said_with_its_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = error(capsys, "status", "--dir", str(tmp_path / "no"))
    assert (said["error"], said["code"]) == ("MissingFile", 12) and "edgeagent.toml" in said["message"]
    code, _, err = call(capsys, "status", "--dir", str(tmp_path / "no"))
    assert code == 12 and err.startswith("edgeagent: ")


def test_the_folder_comes_from_flag_or_environment_or_the_file_itself(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init(capsys, tmp_path / "d")

    def status(*words: str) -> dict[str, object]:
        said = document(capsys, "status", *words)
        return {**said, "disk": {**said["disk"], "free": None}}  # others write there, too

    want = status("--dir", str(tmp_path / "d"))
    assert status("--config", str(tmp_path / "d" / "edgeagent.toml")) == want
    monkeypatch.setenv("EDGEAGENT_DIR", str(tmp_path / "d"))
    assert status() == want
    monkeypatch.setenv("EDGEAGENT_LINK_BROKER", "mqtt://elsewhere")
    assert document(capsys, "status")["broker"] == "mqtt://elsewhere"
    assert document(capsys, "status", "--set", "link.broker=mqtt://flag")["broker"] == "mqtt://flag"


def test_samples_are_added_from_files_and_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    init(capsys, tmp_path / "d")
    np.savez(tmp_path / "s.npz", x=np.zeros((5, 4), np.float32), y=np.array([0, 1, 1, 2, 2]))
    where = ("--dir", str(tmp_path / "d"))
    assert document(capsys, "samples", "add", "tiny", str(tmp_path / "s.npz"), *where) == {"model": "tiny", "added": 5, "held": 5}
    listed = document(capsys, "samples", "list", *where)["models"][0]
    assert listed["by_class"] == {"0": 1, "1": 2, "2": 2} and listed["new"] == 5 and listed["shape"] == [4]
    assert error(capsys, "samples", "add", "other", str(tmp_path / "s.npz"), *where)["code"] == 10
    assert error(capsys, "samples", "add", *where)["code"] == 2


def prepared(folder: Path, rounds: int) -> None:
    """Make a device that has had its rounds, all of them verified."""
    with rig(folder, centre(FakeClock())) as r:
        fill(r.device)
        r.run(Goal(rounds=rounds, timeout=60))


def test_status_log_and_outbox_tell_what_happened(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    prepared(tmp_path / "d", 3)
    where = ("--dir", str(tmp_path / "d"))
    s = document(capsys, "status", *where)
    m = s["models"][0]
    assert (m["version"], m["verified"], m["stored"], m["rounds"], m["epoch"], m["queued"]) == (3, 3, 3, 3, 1, 0)
    assert m["last_round"]["version"] == 3 and s["agent_pid"] is None
    assert m["last_round"]["accepted"] and m["served"].endswith("state/models/tiny/served.tflite")
    rows = document(capsys, "log", *where)["models"][0]["versions"]
    assert [r["version"] for r in rows] == [3, 2, 1] and all(len(r["file_sha256"]) == 64 for r in rows)
    assert rows[0]["parent"] == rows[1]["commit"]
    assert [r["version"] for r in document(capsys, "log", "tiny", "-n", "1", *where)["models"][0]["versions"]] == [3]
    assert document(capsys, "outbox", *where) == {"waiting": [], "more": 0}
    assert document(capsys, "outbox", "retry", *where) == {"agent_running": False}
    for words in (("status",), ("log",), ("outbox",), ("samples", "list"), ("config", "show"), ("version",)):
        code, out, _ = call(capsys, *words, *(where if words != ("version",) else ()))
        assert code == 0 and out.strip(), words
    assert error(capsys, "log", "other", *where)["code"] == 10


@needs_runtime
def test_train_queues_and_coalesce_joins_while_offline(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    prepared(tmp_path / "d", 1)
    where = ("--dir", str(tmp_path / "d"))
    for n in (2, 3, 4):
        said = document(capsys, "train", *where, "--set", "train.learning_rate=0.01")
        assert said["rounds"][0]["version"] == n and said["rounds"][0]["accepted"]
    assert [w["state"] for w in document(capsys, "outbox", "list", *where)["waiting"]] == ["queued"] * 3
    assert document(capsys, "outbox", "coalesce", *where) == {"carried": {"tiny": [2, 3]}}
    waiting = document(capsys, "outbox", *where)["waiting"]
    assert [(w["version"], w["kind"]) for w in waiting] == [(4, "delta")]
    assert [r["state"] for r in document(capsys, "log", *where)["models"][0]["versions"]] == ["queued", "skipped", "skipped", "verified"]


@needs_runtime
def test_train_by_hand_says_that_the_day_s_bytes_to_the_disk_are_spent(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(tmp_path / "d", 1)
    where, counted = ("--dir", str(tmp_path / "d")), count(1)
    monkeypatch.setattr(flash, "of_process", lambda process: 1000 * next(counted))
    words = ("train", *where, "--set", "train.learning_rate=0.01", "--set", "budget.flash_bytes_a_day=1B")
    code, out, err = call(capsys, *words)
    assert code == 0 and "flash-spent" in err and "you asked for this round" in err and "@2" in out
    said = document(capsys, "status", *where, "--set", "budget.flash_bytes_a_day=1B")
    assert said["flash"]["today"] > 0 and said["flash"]["limit"] == 1 and "models" in said["flash"]["parts"]
    assert [one["id"] for one in said["troubles"]] == ["flash-spent"]
    assert "of 1 bytes today" in call(capsys, "status", *where, "--set", "budget.flash_bytes_a_day=1B")[1]


def test_training_before_the_first_welcome_says_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = init(capsys, tmp_path / "d")
    refused = error(capsys, "train", "--dir", str(tmp_path / "d"))
    assert (refused["error"], refused["code"]) == ("NotWelcome", 31)
    assert f"edgecloud devices add pi-7 {said['fingerprint']}" in refused["hint"]


@needs_runtime
def test_estimate_measures_and_keeps_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    prepared(tmp_path / "d", 1)
    where = ("--dir", str(tmp_path / "d"))
    before = document(capsys, "status", *where)["models"]
    row = document(capsys, "estimate", *where, "--set", "train.learning_rate=0.01")["models"][0]
    assert row["snapshot"]["bytes"] > 250 and row["float32_bytes"] == 4 * 39
    assert row["next"]["bytes"] == min(row["next"]["forms"].values()) > 250
    assert document(capsys, "status", *where)["models"] == before
    assert document(capsys, "estimate", "--no-train", *where)["models"][0]["next"] is None


@needs_runtime
def test_doctor_finds_what_is_wrong_and_ends_with_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    init(capsys, tmp_path / "d", "--broker", f"mqtt://127.0.0.1:{broker.free_port()}")
    (tmp_path / "d" / "device.key").chmod(0o644)
    code, out, _ = call(capsys, "doctor", "--dir", str(tmp_path / "d"), "--json")
    found = {c["what"]: c for c in json.loads(out)["checks"]}
    assert code == 1 and not json.loads(out)["ok"]
    assert found["broker port"]["ok"] is False and not found["key"]["ok"] and "chmod 600" in found["key"]["hint"]
    assert all(found[what]["ok"] for what in ("kernels", "runtime", "settings", "clock", "fleet key", "state", "disk", "tiny"))
    (tmp_path / "d" / "edgeagent.toml").write_text("[link]\nressend = 1\n")
    code, out, _ = call(capsys, "doctor", "--dir", str(tmp_path / "d"))
    assert code == 1 and "FIX  settings" in out and "did you mean 'resend'" in out


@pytest.mark.parametrize(("stock", "wanted"), [("int8_softmax", False), ("", True)])
def test_doctor_wants_a_runtime_only_where_a_model_needs_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stock: str, wanted: bool
) -> None:
    def none() -> None:
        raise RuntimeUnusable(reason="none here")

    monkeypatch.setattr("edgecommon.runtime.load", none)
    make(tmp_path / "d", {"m": (MODELS / "stock" / f"{stock}.tflite").read_bytes()} if stock else None)
    _, out, _ = call(capsys, "doctor", "--dir", str(tmp_path / "d"), "--json")
    found = {c["what"]: c for c in json.loads(out)["checks"]}
    assert found["runtime"]["ok"] is not wanted and found["tiny" if wanted else "m"]["ok"] is not wanted


def test_config_check_reads_a_file_without_a_device(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make(tmp_path / "d")
    assert document(capsys, "config", "check", str(tmp_path / "d" / "edgeagent.toml"))["models"] == ["tiny"]
    (tmp_path / "bad.toml").write_text("[train]\nepoch = 1\n")
    said = error(capsys, "config", "check", str(tmp_path / "bad.toml"))
    assert said["code"] == 11 and "did you mean 'epochs'" in said["message"]


def test_version_names_wire_and_release(capsys: pytest.CaptureFixture[str]) -> None:
    said = document(capsys, "version")
    assert said["edgeagent"] == __version__ and said["wire"] == "1"
    code, out, _ = call(capsys, "--version")
    assert code == 0 and out.strip() == f"edgeagent {__version__}"


def test_readers_work_while_an_agent_holds_the_folder_and_writers_are_turned_away(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        where = ("--dir", str(tmp_path / "d"))
        assert document(capsys, "status", *where)["agent_pid"] == os.getpid()
        assert document(capsys, "log", *where)["models"][0]["versions"][0]["version"] == 1
        assert document(capsys, "outbox", "retry", *where) == {"agent_running": True}
        for words in (("train",), ("run", "--once"), ("publish",), ("outbox", "coalesce")):
            assert error(capsys, *words, *where)["error"] == "StateBusy"


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgeagent", *words, "--dir", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow("starts the service as a process")
@needs_runtime
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_service_ends_cleanly_when_asked(tmp_path: Path, number: signal.Signals, code: int) -> None:
    pause = {"link__reconnect_min": "1h", "link__reconnect_max": "1h"}  # which the signal ends
    make(tmp_path / "d", link__broker=f"mqtt://127.0.0.1:{broker.free_port()}", **pause)
    service = start(tmp_path / "d", "run", "--json")
    assert service.stderr is not None
    line = ""
    while "trying again" not in line:
        line = service.stderr.readline()
        assert line, "it ended by itself"
    service.send_signal(number)
    out, _ = service.communicate(timeout=300)
    assert service.returncode == code
    assert json.loads(out)["stopped"] == number.name


@pytest.mark.slow("starts the service as a process")
@needs_runtime
def test_publish_without_a_broker_ends_with_the_links_code(tmp_path: Path) -> None:
    make(tmp_path / "d", link__broker=f"mqtt://127.0.0.1:{broker.free_port()}", link__reconnect_min="0.1s")
    done = start(tmp_path / "d", "publish", "--timeout", "1s", "--json")
    _, err = done.communicate(timeout=300)
    said = json.loads(err.strip().splitlines()[-1])
    assert done.returncode == 30 and said["error"] == "LinkError" and "refused" in said["message"]
    assert DEVICE_SEED.hex() not in err
