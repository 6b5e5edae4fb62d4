"""What careless and hostile people put onto a boot partition: each is named with its place and a next step, or harmless."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeagent import cli, provisioning
from edgeagent.board.sensors import Sensors
from edgeagent.provisioning import erasing, provision
from edgeagent.provisioning.outcome import ProvisionStage
from edgeagent.settings import reading, units
from modelwire.errors import ConfigError, ModelWireError
from tests.edgeagent.boards import TOKEN
from tests.edgeagent.provisioning.partitions import SETTINGS, held, is_whole, lay

HEX = "0x" + "f" * 20_000  # more digits than Python writes as text
SETTINGS_OF = {
    "a date for a size": ("[budget]\nmax_ram = 2020-01-01\n", "line 14: .*budget.max_ram"),
    "a time for seconds": ("[budget]\nmax_seconds = 2020-01-01T00:00:00Z\n", "line 14: .*budget.max_seconds"),
    "a list for seconds": ("[budget]\nmax_seconds = [1]\n", "line 14: .*budget.max_seconds"),
    "a table for a size": ("[budget]\nmax_ram = { a = 1 }\n", "line 14: .*budget.max_ram"),
    "nan": ("[train]\nlearning_rate = nan\n", "line 14: .*nan is not a number"),
    "inf": ("[prices]\nper_byte = -inf\n", "line 14: .*-inf is not a number"),
    "negative": ("[budget]\nmax_ram = -1\n", "line 14: .*budget.max_ram"),
    "digits without end": (f"[budget]\nmax_ram = {HEX}\n", "line 14: .*budget.max_ram"),
    "digits for a word": (f"[log]\nlevel = {HEX}\n", "line 14: .*log.level"),
    "digits for a list": (f"[board]\nthermal_zones = {HEX}\n", "line 14: .*board.thermal_zones"),
    "a size beyond all": (f'[budget]\nmax_ram = "{"9" * 400}GiB"\n', "line 14: .*budget.max_ram"),
    "a name in another table": ("[board]\nname = 5\n", "line 14: .*board.name"),
    "a table twice": ("[link]\nuser = 'x'\n", "line 13"),
    "a model twice": ('[[model]]\nname = "tiny"\n', "'tiny' is there twice"),
    "a model of another folder": ('[[model]]\nname = "a/../../b"\n', "model name"),
    "a model of odd letters": ('[[model]]\nname = "t\u00efny"\n', "model name"),
    "a model for all": ('[[model]]\nname = "all"\n', "stands for all"),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS_OF)
def test_odd_settings_are_named_on_the_screen_with_what_to_do(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    more, says = SETTINGS_OF[name]
    boot = lay(tmp_path / "boot", SETTINGS)
    (boot / "edgeagent.toml").write_text(SETTINGS + more, encoding="utf-8")
    refused(tmp_path, boot, says, capsys)


def test_an_odd_setting_of_a_model_is_told_by_the_line_of_the_model(tmp_path: Path) -> None:
    text = SETTINGS.replace("[[model]]", "[train]\nepochs = 2\n[[model]]").replace("epochs = 3", "epochs = nan")
    with pytest.raises(ConfigError, match=r"line 14: .*model\.tiny\.train\.epochs"):
        provision(lay(tmp_path / "boot", text), tmp_path / "agent")


def refused(tmp_path: Path, boot: Path, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that the command refuses a boot partition by name, leaves all as it was, and tells it in each place where somebody looks."""
    before = held(boot)
    report, issue = tmp_path / "run/provision.json", tmp_path / "run/edge.issue"
    code = cli.main(["provision", f"--from={boot}", f"--dir={tmp_path / 'agent'}", f"--report={report}", f"--issue={issue}"])
    out = capsys.readouterr()
    told = json.loads(report.read_text())
    assert code == 15 and told["state"] == "failed"
    assert told["fix"] and "{" not in told["fix"] and "config check" not in told["fix"]
    with pytest.raises(ConfigError, match=says):
        provision(boot, tmp_path / "agent")
    assert told["fix"] in issue.read_text() and told["fix"] in out.err
    assert "Traceback" not in out.err and TOKEN not in out.err + issue.read_text() + report.read_text()
    assert held(boot) == before and {p.name for p in tmp_path.iterdir()} == {"boot", "run"}


TAKEN = {
    "a password over the private key": ('key = "my.key"', "my.key"),
    "the private key over what is noted": ('key = ".provisioned"', "broker.password"),
    "two things of one name": ('key = "fleet.pub"', "broker.password"),
    "the key over the settings": ('key = "edgeagent.toml"', "broker.password"),
    "what is noted of the setting up": ("", ".provisioned"),
    "what passes": ("", "x.part"),
    "the claim": ("", "line-3.claim"),
    "the base": ("", "tiny.tflite"),
    "what the firmware reads": ("", "config.txt"),
    "what the firmware reads, as a vfat takes it": ("", "CMDLINE.TXT"),
    "the settings, as a vfat takes them": ("", "EdgeAgent.toml"),
    "which slot boots": ("", "slots.a"),
    "a kernel": ("", "kernel8.img"),
    "the kernel": ("", "vmlinuz"),
    "a tree of devices": ("", "bcm2711-rpi-4-b.dtb"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_secret_of_another_files_name_takes_the_place_of_none(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    line, password = TAKEN[name]
    text = SETTINGS.replace('"broker.password"', f'"{password}"').replace("[link]", f"{line}\n[link]")
    boot = lay(tmp_path / "boot", text)
    if not (boot / password).exists():
        (boot / password).write_text("open sesame")
    refused(tmp_path, boot, "can't be", capsys)


@pytest.mark.parametrize("name", ["line-3.claim", "edgeagent.toml", "fleet.pub", "tiny.tflite", "device.key"])
def test_a_suffix_that_an_editor_added_is_told_and_no_claim_or_key_is_passed_over(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    boot = lay(tmp_path / "boot", old=name == "device.key")
    (boot / name).rename(boot / f"{name}.TXT")
    refused(tmp_path, boot, r"its name ends in \.txt", capsys)


def test_twins_that_a_mac_leaves_are_passed_over(tmp_path: Path) -> None:
    boot = lay(tmp_path / "boot")
    for name in ("edgeagent.toml", "line-3.claim", "fleet.pub", "tiny.tflite", "device.key", "edgeagent.toml.txt"):
        (boot / f"._{name}").write_bytes(b"\0\5\x16\7" * 30)
    assert provision(boot, tmp_path / "agent").state is ProvisionStage.SET_UP and is_whole(tmp_path / "agent")


@pytest.mark.parametrize("size", [1 << 30, 1 << 40])
@pytest.mark.parametrize("name", ["edgeagent.toml", "fleet.pub", "line-3.claim", "tiny.tflite", "device.key", "broker.password"])
def test_a_huge_file_of_holes_is_not_read(tmp_path: Path, name: str, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    boot = lay(tmp_path / "boot")
    with (boot / name).open("wb") as file:
        file.truncate(size)
    with pytest.raises(ConfigError, match=rf"{name}: it has [0-9,]+ bytes"):
        provision(boot, tmp_path / "agent")


def test_a_base_that_this_boards_memory_can_never_hold_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sensors, "memory", lambda _: 64 * 1024)
    with pytest.raises(ConfigError, match=r"tiny\.tflite: it has .* at most 16,384"):
        provision(lay(tmp_path / "boot"), tmp_path / "agent")


@pytest.mark.parametrize("text", ["\U0001f600", 'a"b\\c', "\u00fc"])
def test_a_models_text_of_any_letters_comes_through(tmp_path: Path, text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    boot = lay(tmp_path / "boot")
    (boot / "edgeagent.toml").write_text(SETTINGS.replace("epochs = 3", f'epochs = 3, mode = "{quoted}"'), encoding="utf-8")
    provision(boot, tmp_path / "agent")
    loaded = reading.load(tmp_path / "agent/edgeagent.toml", environment={}, flags={})
    assert loaded.settings.models[0].train.mode == text


@pytest.mark.parametrize("seconds", [1e-5, 0.05, 1.5, 123456.75, 2.0**53 - 1, 2.0**53])
def test_a_duration_reads_back_as_it_was_said(seconds: float) -> None:
    assert units.seconds(units.say_seconds(seconds)) == seconds


PLACES: dict[str, Callable[[Path], object]] = {
    "a file": lambda p: p.write_text("x"), "a pipe": os.mkfifo, "a folder": lambda p: (p / "a").mkdir(parents=True),
    "a link": lambda p: p.symlink_to("/"), "a link to nothing": lambda p: p.symlink_to("nothing"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLACES)
def test_what_stands_where_the_folder_is_made_is_removed_and_never_opened(tmp_path: Path, kind: str) -> None:
    PLACES[kind](tmp_path / ".edgeagent-provision")
    assert provision(lay(tmp_path / "boot"), tmp_path / "agent").state is ProvisionStage.SET_UP
    assert {p.name for p in tmp_path.iterdir()} == {"boot", "agent"}


@pytest.mark.parametrize("kind", [kind for kind in PLACES if kind != "a folder"])
def test_what_stands_in_the_folders_place_is_named_and_no_secret_is_left_beside_it(
    tmp_path: Path, kind: str
) -> None:
    PLACES[kind](tmp_path / "agent")
    boot = lay(tmp_path / "boot")
    before = held(boot)
    with pytest.raises(ConfigError, match="agent is there, and no folder"):
        provision(boot, tmp_path / "agent")
    assert held(boot) == before and {p.name for p in tmp_path.iterdir()} == {"boot", "agent"}


def test_no_secret_is_left_beside_a_folder_that_could_not_take_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    boot = lay(tmp_path / "boot")
    monkeypatch.setattr("edgeagent.provisioning.setting_up._flush", broken)
    with pytest.raises(ModelWireError):
        provision(boot, tmp_path / "agent")
    assert [p.name for p in tmp_path.iterdir()] == ["boot"]


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError()])
def test_a_fault_that_nobody_foresaw_stands_on_the_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(provisioning, "provision", fails)
    with pytest.raises(type(error)):
        cli.main(["provision", f"--from={tmp_path}", f"--dir={tmp_path / 'agent'}", f"--issue={tmp_path / 'issue'}"])
    assert "NOT SET UP" in (tmp_path / "issue").read_text() and "to do:" in (tmp_path / "issue").read_text()


def test_a_report_that_cannot_be_written_keeps_nothing_from_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boot = lay(tmp_path / "boot")
    (boot / "fleet.pub").unlink()
    (tmp_path / "report.json/x").mkdir(parents=True)
    words = ["provision", f"--from={boot}", f"--dir={tmp_path / 'agent'}", f"--report={tmp_path / 'report.json'}"]
    assert cli.main([*words, f"--issue={tmp_path / 'issue'}"]) == 12
    assert "fleet.pub" in (tmp_path / "issue").read_text() and "fleet.pub" in capsys.readouterr().err


def test_a_card_without_room_for_one_more_block_has_its_secrets_erased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot, plain, ends = lay(tmp_path / "boot"), os.pwrite, {}
    ends.update({name: (boot / name).stat().st_size for name in ("line-3.claim", "broker.password")})

    def full(handle: int, data: bytes, start: int) -> int:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))
        if start + len(data) > ends[name]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(handle, data, start)

    monkeypatch.setattr(os, "pwrite", full)
    made = provision(boot, tmp_path / "agent")
    assert not made.error and not any((boot / name).exists() for name in ends)


def test_a_secret_that_cannot_be_erased_keeps_no_other_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot, plain = lay(tmp_path / "boot"), erasing._erase

    def bad(path: Path) -> None:
        if path.suffix == ".claim":
            raise OSError(errno.EIO, "Input/output error")
        plain(path)

    monkeypatch.setattr(erasing, "_erase", bad)
    made = provision(boot, tmp_path / "agent")
    assert "can't be erased" in made.error and not (boot / "broker.password").exists()
