"""A board sets itself up once, from what anybody may have written: whole or not at all; secrets go only when they are safe elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeagent import cli
from edgeagent.provisioning import partition, provision
from edgeagent.provisioning.outcome import ProvisionStage
from edgeagent.settings import reading
from modelwire.errors import ConfigError, DiskUnwritable, MissingFile, ModelWireError, WrongKeyKind
from modelwire.wire.keys import fingerprint
from tests.edgeagent.boards import PUBLIC, TOKEN, centre, rig
from tests.edgeagent.centre import FakeClock
from tests.edgeagent.provisioning.partitions import SECRETS, SETTINGS, held, is_whole, lay
from tests.simulator.crashes import Crash, Steps


def test_a_board_is_set_up_once_and_its_secrets_are_gone_from_the_boot_partition(tmp_path: Path) -> None:
    boot, folder = lay(tmp_path / "boot"), tmp_path / "agent"
    made = provision(boot, folder)
    assert (made.state, made.device, made.fleet, made.error) == (ProvisionStage.SET_UP, "pi-7", "home", "")
    assert is_whole(folder)
    assert (folder / "device.claim").read_text() == f"{TOKEN}\n"
    assert (folder / "broker.password").read_text() == "open sesame\n"
    assert {p.name for p in boot.iterdir()} == {"edgeagent.toml", "tiny.tflite", "fleet.pub", "config.txt"}
    before = held(folder)
    again = provision(boot, folder)
    assert (again.state, again.device) == (ProvisionStage.READY, "pi-7")
    assert held(folder) == before
    with rig(folder, centre(FakeClock())) as r:
        assert r.lineage.head().version == 0


def test_a_board_that_lost_its_state_gets_its_key_back_and_would_like_its_last_models(tmp_path: Path) -> None:
    boot, folder = lay(tmp_path / "boot", old=True), tmp_path / "agent"
    made = provision(boot, folder)
    assert made.fingerprint == fingerprint(PUBLIC)
    assert not (boot / "device.key").exists()
    with rig(folder, centre(FakeClock())) as r:
        assert r.device.database.number("SELECT count(*) FROM resume") == 1


def test_a_boot_partition_without_settings_leaves_the_board_waiting_and_all_as_it_is(tmp_path: Path) -> None:
    boot = tmp_path / "boot"
    boot.mkdir()
    (boot / "line-3.claim").write_text(TOKEN)
    assert provision(boot, tmp_path / "agent").state is ProvisionStage.WAITING
    assert not (tmp_path / "agent").exists() and (boot / "line-3.claim").exists()


def test_a_profile_gives_what_the_partition_leaves_open_and_a_models_own_settings_stay(tmp_path: Path) -> None:
    text = SETTINGS.replace("train = { epochs = 3 }", 'train = { epochs = 3 }\ncard = { channels = ["x.mean", "x.3:10:2"] }')
    boot = lay(tmp_path / "boot", text + '[board]\nname = "pi-4"\n[budget]\nmax_seconds = "7min"\n')
    made = provision(boot, tmp_path / "agent")
    device = open_settings(tmp_path / "agent")
    assert device.settings.board.name == "pi-4" and any("pi-4" in line for line in made.says)
    assert device.settings.budget.max_seconds == 420
    assert device.settings.models[0].train.epochs == 3
    assert device.settings.models[0].card.channels == ("x.mean", "x.3:10:2")
    assert device.settings.budget.max_ram > 0, "of the profile"


def open_settings(folder: Path) -> reading.Loaded:
    return reading.load(folder / reading.FILE, environment={}, flags={})


BAD = {
    "broken toml": ("edgeagent.toml", b'[device]\nname = "pi-7\n', ConfigError, r"line 2, column"),
    "not UTF-8": ("edgeagent.toml", b"[device]\n\n# \xff\xfe\n", ConfigError, "line 3"),
    "zero bytes": ("edgeagent.toml", b"\0" * 300, ConfigError, "line 1"),
    "deep": ("edgeagent.toml", b"a = " + b"[" * 100_000, ConfigError, "edgeagent.toml"),
    "unknown setting": ("edgeagent.toml", SETTINGS.replace("user =", "usr =").encode(), ConfigError, r"line 7.*did you mean 'user'"),
    "value out of range": ("edgeagent.toml", (SETTINGS + "[train]\nepochs = -1\n").encode(), ConfigError, "line 14.*train.epochs"),
    "unknown board": ("edgeagent.toml", (SETTINGS + '[board]\nname = "toaster"\n').encode(), ConfigError, "toaster"),
    "a name that leads elsewhere": ("edgeagent.toml", SETTINGS.replace('"tiny"', '"../tiny"').encode(), ConfigError, "model name"),
    "a password in the URL": (
        "edgeagent.toml", SETTINGS.replace("mqtt://", "mqtt://pi:secret@").encode(), ConfigError, "holds a password"
    ),
    "a key outside": (
        "edgeagent.toml", SETTINGS.replace("[link]", 'key = "/etc/passwd"\n[link]').encode(), ConfigError, "not a plain name"
    ),
    "a password file that is the key": (
        "edgeagent.toml", SETTINGS.replace('"broker.password"', '"device.key"').encode(), ConfigError, "another file"
    ),
    "no model": ("tiny.tflite", None, MissingFile, "the base of the model 'tiny'"),
    "no fleet": ("fleet.pub", None, MissingFile, "fleet.pub"),
    "a fleet of noise": ("fleet.pub", bytes(range(256)), ConfigError, "no line of text"),
    "a fleet that is a claim": ("fleet.pub", TOKEN.encode(), WrongKeyKind, "fleet.pub"),
    "an empty fleet": ("fleet.pub", b"", ConfigError, "empty"),
    "a claim that is cut": ("line-3.claim", TOKEN.encode()[:40], ConfigError, "line-3.claim"),
    "two claims": ("line-4.CLAIM", TOKEN.encode(), ConfigError, "more than one claim"),
    "a model of noise": ("tiny.tflite", bytes(4096), ModelWireError, "tiny"),
    "no password": ("broker.password", None, MissingFile, "password_file"),
    "a huge file": ("fleet.pub", b"x" * 5000, ModelWireError, "fleet.pub"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_and_nothing_is_made_or_erased(tmp_path: Path, name: str) -> None:
    file, data, error, says = BAD[name]
    boot = lay(tmp_path / "boot")
    (boot / file).unlink(missing_ok=True)
    if data is not None:
        (boot / file).write_bytes(data)
    before = held(boot)
    with pytest.raises(error, match=says) as caught:
        provision(boot, tmp_path / "agent")
    assert caught.value.hint and TOKEN not in caught.value.message and "sesame" not in caught.value.message
    assert held(boot) == before
    assert [p.name for p in tmp_path.iterdir()] == ["boot"]


@pytest.mark.parametrize("name", ["edgeagent.toml", "tiny.tflite", "fleet.pub", "line-3.claim", "broker.password", "device.key"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "endless"])
def test_what_is_no_file_is_neither_followed_nor_waited_for(tmp_path: Path, name: str, kind: str) -> None:
    boot = lay(tmp_path / "boot")
    (boot / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(boot / name)
    elif kind == "folder":
        (boot / name).mkdir()
    else:
        target = tmp_path / "secret"
        target.write_text("of another")
        (boot / name).symlink_to("/dev/zero" if kind == "endless" else target)
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        provision(boot, tmp_path / "agent")
    assert not (tmp_path / "agent").exists()
    assert kind != "link" or (tmp_path / "secret").read_text() == "of another"


def test_a_boot_partition_that_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name in ("none", "empty", "file"):
        with pytest.raises(ConfigError, match="no boot partition is there"):
            provision(tmp_path / name, tmp_path / "agent")


def test_a_boot_partition_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot, plain = lay(tmp_path / "boot"), os.read

    def broken(handle: int, most: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{handle}").endswith("tiny.tflite"):
            raise OSError(5, "Input/output error")
        return plain(handle, most)

    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(ConfigError, match=r"tiny\.tflite: Input/output error"):
        provision(boot, tmp_path / "agent")
    assert not (tmp_path / "agent").exists()


def test_a_full_data_partition_is_named_and_the_secrets_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = lay(tmp_path / "boot")
    before = held(boot)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "agent"))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DiskUnwritable, match=r"free of"):
        provision(boot, tmp_path / "agent")
    monkeypatch.undo()
    assert held(boot) == before and not (tmp_path / "agent").exists()
    assert provision(boot, tmp_path / "agent").state is ProvisionStage.SET_UP, "once there is room"


def test_nothing_is_made_over_what_somebody_put_there(tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()
    (folder / "device.key").write_text("mine")
    with pytest.raises(ConfigError, match="nothing is made over them"):
        provision(lay(tmp_path / "boot"), folder)
    assert held(folder) == {"device.key": b"mine"}


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    assert provision(lay(tmp_path / "boot"), tmp_path / "agent").state is ProvisionStage.SET_UP


def test_a_new_claim_on_the_card_of_a_board_that_is_set_up_is_left_alone(tmp_path: Path) -> None:
    boot, folder = lay(tmp_path / "boot"), tmp_path / "agent"
    provision(boot, folder)
    (boot / "line-3.claim").write_text("another one\n")
    assert provision(boot, folder).state is ProvisionStage.READY
    assert (boot / "line-3.claim").read_text() == "another one\n"


@pytest.mark.slow("ends a start of a board at each of its writes, and starts it again", seconds=20)
@pytest.mark.one_environment("what a kill leaves in files; no model is trained")
def test_a_kill_at_any_write_leaves_the_board_as_it_was_or_set_up_and_the_next_start_ends_it(tmp_path: Path) -> None:
    steps, boot = Steps(), lay(tmp_path / "0/boot")
    with steps.installed(), steps.counted():
        provision(boot, tmp_path / "0/agent")
    count = steps.taken
    assert count > 40
    for step in range(1, count + 1):
        place, left = tmp_path / f"{step}", tmp_path / f"{step}-left"
        boot = lay(place / "boot")
        lies = {name: (boot / name).read_bytes() for name in SECRETS if (boot / name).exists()}
        with steps.installed(), pytest.raises(Crash), steps.crash_at(
            step, lambda place=place, left=left: shutil.copytree(place, left, symlinks=True), torn=True  # type: ignore[misc]
        ):
            provision(boot, place / "agent")
        made = is_whole(left / "agent")
        for name, data in lies.items():
            # A secret is on the boot partition, or safe in a board that is set up.
            assert made or (left / "boot" / name).read_bytes() == data
        outcome = provision(left / "boot", left / "agent")
        assert outcome.state is (ProvisionStage.READY if made else ProvisionStage.SET_UP) and not outcome.error
        assert is_whole(left / "agent") and not (left / ".edgeagent-provision").exists()
        if made:
            assert (left / "agent/device.claim").read_text() == f"{TOKEN}\n"
        shutil.rmtree(place)
        shutil.rmtree(left)


def test_a_kill_while_secrets_are_erased_leaves_none_that_is_whole_and_known_after_the_next_start(tmp_path: Path) -> None:
    boot, folder = lay(tmp_path / "boot"), tmp_path / "agent"
    claim = (boot / "line-3.claim").read_bytes()
    provision(boot, folder)
    (boot / "line-3.claim").write_bytes(claim)  # power went before its name was removed
    again = provision(boot, folder)
    assert again.state is ProvisionStage.READY and not (boot / "line-3.claim").exists()


def test_a_folder_in_the_name_of_one_secret_does_not_keep_another_from_being_erased(tmp_path: Path) -> None:
    boot, folder = lay(tmp_path / "boot"), tmp_path / "agent"
    password = (boot / "broker.password").read_bytes()
    provision(boot, folder)
    (boot / "broker.password").write_bytes(password)
    (boot / "line-3.claim").mkdir()
    assert provision(boot, folder).state is ProvisionStage.READY
    assert not (boot / "broker.password").exists() and (boot / "line-3.claim").is_dir()


NAMES = st.sampled_from(["edgeagent.toml", "fleet.pub", "tiny.tflite", "x.claim", "device.key", "broker.password", "\u00fc.claim", "-rf"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(NAMES, st.binary(max_size=600) | st.text(max_size=200).map(str.encode), max_size=6), whole=st.booleans())
def test_whatever_lies_on_a_boot_partition_is_set_up_or_refused_by_name(tmp_path: Path, files: dict[str, bytes], whole: bool) -> None:
    place = tmp_path / "any"
    shutil.rmtree(place, ignore_errors=True)
    boot = lay(place / "boot") if whole else place / "boot"
    boot.mkdir(parents=True, exist_ok=True)
    (boot / "vmlinuz").touch()
    for name, data in files.items():
        (boot / name).write_bytes(data)
    before = held(boot)
    try:
        outcome = provision(boot, place / "agent")
    except ModelWireError as error:
        assert error.message and not (place / "agent").exists()
        assert held(boot) == before
        return
    if outcome.state is ProvisionStage.WAITING:
        assert held(boot) == before and not (place / "agent").exists()
    else:
        assert is_whole(place / "agent")


def test_the_command_writes_what_came_of_it_for_programs_and_for_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boot = lay(tmp_path / "boot")
    said = [f"--report={tmp_path / 'run/provision.json'}", f"--issue={tmp_path / 'issue.d/edge.issue'}"]
    words = ["provision", f"--from={boot}", f"--dir={tmp_path / 'agent'}", *said]
    (boot / "fleet.pub").rename(tmp_path / "fleet.pub")
    assert cli.main(words) == 12
    report = json.loads((tmp_path / "run/provision.json").read_text())
    assert report["state"] == "failed" and "fleet.pub" in report["error"]
    assert "NOT SET UP" in (tmp_path / "issue.d/edge.issue").read_text()
    (tmp_path / "fleet.pub").rename(boot / "fleet.pub")
    assert cli.main([*words, "--json"]) == 0
    report = json.loads((tmp_path / "run/provision.json").read_text())
    assert (report["state"], report["device"], report["error"]) == ("set up", "pi-7", "")
    assert report["fingerprint"] in (tmp_path / "issue.d/edge.issue").read_text()
    assert TOKEN not in capsys.readouterr().out
    assert cli.main([*words, "--owner", "nobody-of-this-name"]) == 15


def test_more_names_than_a_card_of_ours_ever_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "NAMES_MAX", 3)
    with pytest.raises(ConfigError, match="more than 3 files"):
        provision(lay(tmp_path / "boot"), tmp_path / "agent")


def test_a_secret_that_cannot_be_erased_is_said_and_the_board_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot, folder = lay(tmp_path / "boot"), tmp_path / "agent"

    def locked(*_: object, **__: object) -> int:
        raise OSError(30, "Read-only file system", str(boot))

    monkeypatch.setattr(os, "pwrite", locked)
    made = provision(boot, folder)
    monkeypatch.undo()
    assert made.state is ProvisionStage.SET_UP and "can't be erased" in made.error and is_whole(folder)
    assert provision(boot, folder).error == "" and not (boot / "line-3.claim").exists()


def test_all_of_the_folder_is_given_to_the_agents_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_to: dict[str, tuple[int, int]] = {}
    real = os.lstat

    def give(path: Path, user: int, group: int, **_: object) -> None:
        given_to[Path(path).name] = (user, group)
        changed.add(str(path))

    changed: set[str] = set()

    def seen(path: Path) -> os.stat_result:  # as the kernel answers once a file was given away
        found = real(path)
        return os.stat_result((*found[:5], 4712, *found[6:])) if str(path) in changed else found

    monkeypatch.setattr(os, "chown", give)
    monkeypatch.setattr(Path, "lstat", seen)
    provision(lay(tmp_path / "boot"), tmp_path / "agent", owner=(4711, 4712))
    inside = {path.name for path in (tmp_path / "agent").rglob("*")}
    assert inside and inside <= set(given_to)
    assert set(given_to.values()) == {(4711, 4712)}
