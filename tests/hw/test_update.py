"""Updates of the system: what is refused, by its name; what calls a system on trial good."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from hw.image import bundle, keys
from hw.image.onboard import SystemRelease, mark_good, put, slots, update
from hw.image.onboard.update import BundleRefused

OWN = SystemRelease("edgeagent-qemu-arm64", "1.4.0", "6.1.0-50-arm64")
needs_rauc = pytest.mark.skipif(not shutil.which("rauc") or not shutil.which("mksquashfs"), reason="apt-get install rauc squashfs-tools")


@pytest.mark.parametrize(
    ("coming", "name"),
    [
        (replace(OWN, compatible="edgeagent-rpi4"), "OtherBoard"),
        (replace(OWN, kernel="6.1.0-51-arm64"), "OtherKernel"),
        (replace(OWN, kernel=""), "OtherKernel"),
        (replace(OWN, version="1.3.12"), "OlderSystem"),
        (replace(OWN, version="1.10.0"), ""),
        (OWN, ""),
    ],
)
def test_what_does_not_belong_on_this_board_is_refused_by_name(coming: SystemRelease, name: str) -> None:
    if not name:
        update.require_fit(coming, OWN, OWN.kernel, allow_older=False)
        return
    with pytest.raises(BundleRefused) as said:
        update.require_fit(coming, OWN, OWN.kernel, allow_older=False)
    assert said.value.name == name
    assert said.value.step


def test_an_older_system_is_taken_where_that_was_said() -> None:
    update.require_fit(replace(OWN, version="1.3.0"), OWN, OWN.kernel, allow_older=True)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_two_versions_have_an_order(one: str, other: str) -> None:
    assert (update.order(one) < update.order(other)) + (update.order(other) < update.order(one)) + (
        update.order(one) == update.order(other)
    ) == 1


def mounted(folder: Path, text: bytes) -> dict[str, str]:
    (folder / "manifest.raucm").write_bytes(text)
    return {"RAUC_BUNDLE_MOUNT_POINT": str(folder)}


def stand(board: Path, booted: str, states: slots.SlotStates) -> None:
    """Let a board have booted a slot, and its boot partition say how both stand."""
    (board / "run").mkdir(exist_ok=True)
    (board / "run/slot").write_text(f"{booted}\n")
    program = board / "root/usr/lib/edgeagent-image/slots"
    program.write_text(f"#!/bin/sh\necho '{json.dumps({**asdict(states), 'next': states.choose()[0]})}'\n")


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A board's files in a folder, with OWN as its system and kernel; rauc holds its root key."""
    keys.make(tmp_path / "keys")
    put(tmp_path / "root", OWN, (tmp_path / "keys/root.pem").read_bytes(), 0xED9E0001)
    places = {"HERE": "root/usr/lib/edgeagent-image", "RELEASE": "root/etc/edgeagent-image"}
    places |= {name: name.lower() for name in ("RUN", "CONSOLE", "COMING", "TOLD")}
    for name, path in places.items():
        monkeypatch.setattr(update, name, tmp_path / path)
    monkeypatch.setattr(update, "require_root", lambda: None)
    stand(tmp_path, "A", slots.SlotStates())
    (tmp_path / "agent.toml").touch()
    monkeypatch.setattr(update, "SETTINGS", tmp_path / "agent.toml")
    monkeypatch.setattr(os, "uname", lambda: type("Uname", (), {"release": OWN.kernel}))
    if rauc := shutil.which("rauc"):
        (tmp_path / "bin").mkdir()
        log = tmp_path / "installed"
        keyring = tmp_path / "root/etc/rauc/keyring.pem"
        script = f'[ "$1" = install ] && {{ echo "$2" >>{log}; exit 0; }}\nexec {rauc} --keyring={keyring} "$@"\n'
        (tmp_path / "bin/rauc").write_text(f"#!/bin/sh\n{script}")
        (tmp_path / "bin/rauc").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def made(folder: Path, release: SystemRelease, signer: str = "keys") -> Path:
    """Return a signed bundle with a system of 64 KiB in it."""
    (folder / "system").write_bytes(os.urandom(1 << 16))
    if not (folder / signer).exists():
        keys.make(folder / signer)
    out, own = folder / f"{signer}.raucb", folder / signer
    bundle.make(folder / "system", release, out, own / "signer.pem", own / "signer.key", own / "root.pem")
    return out


@needs_rauc
def test_a_bundle_for_this_board_is_handed_to_rauc(board: Path) -> None:
    file = made(board, replace(OWN, version="1.5.0"))
    assert update.main(["install", str(file)]) == 0
    assert (board / "installed").read_text() == f"{file}\n"
    assert not (board / "run/allow-older").exists()


@needs_rauc
@pytest.mark.parametrize(
    ("release", "name"),
    [
        (replace(OWN, compatible="edgeagent-rpi4"), "OtherBoard"),
        (replace(OWN, version="1.3.9"), "OlderSystem"),
        (replace(OWN, kernel="6.6.1"), "OtherKernel"),
    ],
)
def test_a_signed_bundle_that_does_not_fit_never_reaches_rauc(
    board: Path, capsys: pytest.CaptureFixture[str], release: SystemRelease, name: str
) -> None:
    assert update.main(["install", str(made(board, release))]) == 1
    assert f"edgeagent-update: {name}: " in capsys.readouterr().err
    assert name in (board / "console").read_text()
    assert not (board / "installed").exists()


@needs_rauc
@pytest.mark.parametrize("damage", ["foreign", "unsigned", "cut", "empty", "missing", "text", "signer-as-root"])
def test_what_is_not_signed_for_this_board_is_refused(board: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    file = made(board, replace(OWN, version="1.5.0"), signer="stranger" if damage == "foreign" else "keys")
    names = {"foreign": "ForeignSignature", "unsigned": "NotSigned", "missing": "NoBundle"}
    if damage == "unsigned":
        data = file.read_bytes()
        file.write_bytes(data[:-8] + bytes(8))
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1000])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "missing":
        file.unlink()
    elif damage == "text":
        file.write_text("this is no bundle\n" * 100)
    elif damage == "signer-as-root":  # a board whose keyring does not hold the root takes nothing
        shutil.copy(board / "keys/signer.pem", board / "root/etc/rauc/keyring.pem")
        names["signer-as-root"] = "ForeignSignature"
    assert update.main(["install", str(file)]) == 1
    assert f"edgeagent-update: {names.get(damage, 'BundleDamaged')}: " in capsys.readouterr().err
    assert not (board / "installed").exists()


def signed(board: Path, manifest: str, files: Mapping[str, bytes], *, ends: int = 9999) -> Path:
    """Return a bundle signed for this board with any manifest. ends: the year in which its certificate does."""
    content, own = board / "content", board / "keys"
    content.mkdir()
    for name, data in files.items():
        (content / name).write_bytes(data)
    (content / "manifest.raucm").write_text(manifest)
    cert, key = own / "signer.pem", own / "signer.key"
    root = load_pem_private_key((own / "root.key").read_bytes(), None)
    assert isinstance(root, EllipticCurvePrivateKey)
    if ends != 9999:
        with pytest.MonkeyPatch.context() as patch:
            now = datetime.datetime(ends - 1, 1, 1, tzinfo=datetime.timezone.utc)
            patch.setattr(keys, "FIRST", now)
            patch.setattr(keys, "LAST", now.replace(year=ends))
            signer = load_pem_private_key(key.read_bytes(), None)
            assert isinstance(signer, EllipticCurvePrivateKey)
            made_of = keys.certificate("late", signer.public_key(), "edgeagent bundles: root", root, authority=False)
        cert = board / "late.pem"
        cert.write_bytes(made_of.public_bytes(Encoding.PEM))
    out = board / "any.raucb"
    # Signed with no look at its certificate's time, as on a machine whose clock was another.
    words = [str(shutil.which("rauc", path=os.defpath) or "rauc"), f"--cert={cert}", f"--key={key}", "bundle", str(content), str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


FITS = replace(OWN, version="1.5.0")


@needs_rauc
@pytest.mark.parametrize(
    ("more", "name"),
    [
        ("hooks=pre-install\n\n[hooks]\nfilename=run.sh\n", "HasPrograms"),
        ("\n[hooks]\nfilename=run.sh\nhooks=install-check\n", "HasPrograms"),
        ("\n[image.appfs]\nfilename=app.img\n", "NotOneSystem"),
    ],
)
def test_a_signed_bundle_with_more_than_one_system_in_it_never_reaches_rauc(
    board: Path, capsys: pytest.CaptureFixture[str], more: str, name: str
) -> None:
    files = {"root.img": os.urandom(1 << 14), "app.img": os.urandom(1 << 14), "run.sh": b"#!/bin/sh\n"}
    assert update.main(["install", str(signed(board, bundle.manifest(FITS) + more, files))]) == 1
    assert f"edgeagent-update: {name}: " in capsys.readouterr().err
    assert not (board / "installed").exists()


@pytest.mark.parametrize("more", ["\n[handler]\nfilename=run.sh\n", "hooks=post-install\n", "\n[hooks]\nfilename=run.sh\n"])
def test_a_bundle_with_programs_is_refused_where_rauc_has_mounted_it(board: Path, more: str) -> None:
    (board / "root.img").touch()
    with pytest.raises(BundleRefused, match="HasPrograms"):
        update.check_mounted(mounted(board, (bundle.manifest(FITS) + more).encode()))


@needs_rauc
@pytest.mark.parametrize(("ends", "said"), [(2002, "expired"), (9998, "not yet valid")])
def test_a_certificate_of_another_time_is_named_with_the_boards_clock(
    board: Path, capsys: pytest.CaptureFixture[str], ends: int, said: str
) -> None:
    assert update.main(["install", str(signed(board, bundle.manifest(FITS), {"root.img": os.urandom(1 << 14)}, ends=ends))]) == 1
    err = capsys.readouterr().err
    assert "edgeagent-update: CertificateTime: " in err and said in err and "clock" in err


@needs_rauc
def test_a_signed_bundle_of_no_version_and_one_of_a_huge_one_are_read(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"root.img": os.urandom(1 << 14)}
    assert update.main(["install", str(signed(board, bundle.manifest(OWN).replace("version=1.4.0\n", ""), files))]) == 1
    assert "edgeagent-update: BundleDamaged: it says no version" in capsys.readouterr().err
    update.require_fit(replace(OWN, version="9" * 6000), OWN, OWN.kernel, allow_older=False)


@pytest.mark.parametrize(
    ("booted", "states", "name"),
    [
        ("B", slots.SlotStates(3, "B", ("good", "trial"), (3, 2)), "OnTrial"),
        ("A", slots.SlotStates(3, "A", ("bad", "bad"), (0, 0)), "NotGood"),
        ("B", slots.SlotStates(3, "B", ("good", "good"), (3, 3)), "NoBundle"),
    ],
)
def test_the_slot_to_fall_back_to_is_not_written_over(
    board: Path, capsys: pytest.CaptureFixture[str], booted: str, states: slots.SlotStates, name: str
) -> None:
    stand(board, booted, states)
    assert update.main(["install", str(board / "none.raucb")]) == 1
    assert f"edgeagent-update: {name}: " in capsys.readouterr().err
    if name != "NoBundle":
        with pytest.raises(BundleRefused, match=name):
            update.check_mounted(mounted(board, bundle.manifest(FITS).encode()))
    assert (board / "run/refused").read_text().startswith(name), "status shows it"


def test_a_second_installation_waits_for_nobody_and_one_without_root_is_named(
    board: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with update.alone():
        assert update.main(["install", "x.raucb"]) == 1
    assert "Busy" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(update, "CONSOLE", board / "console")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert update.main(["install", "x.raucb"]) == 1
    assert "NotRoot" in capsys.readouterr().err


def test_a_name_that_is_no_file_of_the_board_is_told(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(board / "fifo")
    for name in (str(board / "fifo"), str(board), "/dev/null", "https://example.org/x.raucb", "$(reboot)", "a\nb"):
        assert update.main(["install", name]) == 1
        assert "edgeagent-update: NoBundle: " in capsys.readouterr().err


@needs_rauc
def test_a_name_that_begins_with_a_dash_is_a_file(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(board, FITS).rename(board / "--help.raucb")
    monkeypatch.chdir(board)
    assert update.main(["install", "--", "--help.raucb"]) == 0
    assert (board / "installed").read_text() == f"{board}/--help.raucb\n"


def test_a_system_that_is_larger_than_the_slot_is_refused(board: Path) -> None:
    (board / "root.img").write_bytes(bytes(2048))
    (board / "slot").write_bytes(bytes(1024))
    environment = mounted(board, bundle.manifest(FITS).encode())
    update.check_mounted({**environment, "RAUC_TARGET_SLOTS": "2 3", "RAUC_SLOT_DEVICE_2": str(board / "none")})
    with pytest.raises(BundleRefused, match="TooLarge"):
        update.check_mounted({**environment, "RAUC_TARGET_SLOTS": "2", "RAUC_SLOT_DEVICE_2": str(board / "slot")})


@needs_rauc
def test_what_rauc_says_of_a_failure_is_passed_on(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = made(board, FITS)
    script = (board / "bin/rauc").read_text().replace("exit 0;", "echo 'LastError: Installation error: no space'; exit 1;")
    (board / "bin/rauc").write_text(script)
    assert update.main(["install", str(file)]) == 1
    assert "NotInstalled: Installation error: no space; " in capsys.readouterr().err
    assert (board / "run/refused").read_text().startswith("NotInstalled")


def test_the_centre_is_told_of_a_refusal_until_another_system_comes(board: Path) -> None:
    (board / "root.img").touch()
    with pytest.raises(BundleRefused, match="OtherBoard"):
        update.check_mounted(mounted(board, bundle.manifest(replace(OWN, compatible="edgeagent-rpi4")).encode()))
    assert (board / "told/system-refused").read_text().startswith("OtherBoard: the bundle is for edgeagent-rpi4")
    assert update.main(["install", str(board / "none.raucb")]) == 1
    assert (board / "told/system-refused").read_text().startswith("OtherBoard"), "a slip of who types a command is nobody else's"
    update.check_mounted(mounted(board, bundle.manifest(FITS).encode()))
    assert not (board / "told/system-refused").exists()


def test_the_centre_is_told_of_a_system_that_was_left(board: Path) -> None:
    (board / "root.img").touch()
    assert update.main(["told"]) == 0 and not (board / "told").exists(), "no system was to come"
    update.check_mounted(mounted(board, bundle.manifest(FITS).encode()))
    stand(board, "B", slots.SlotStates(4, "B", ("good", "trial"), (3, 2)))
    (board / "run/trial").touch()
    assert update.main(["told"]) == 0 and not (board / "told/system-left").exists(), "nothing is known on trial"
    stand(board, "A", slots.SlotStates(5, "A", ("good", "bad"), (3, 0)))
    (board / "run/trial").unlink()
    for _ in range(2):  # at each start
        assert update.main(["told"]) == 0
        assert (board / "told/system-left").read_text() == f"{FITS.version} was to be the next system, and {OWN.version} runs\n"
        (board / "told/system-left").unlink()
    update.check_mounted(mounted(board, bundle.manifest(FITS).encode()))
    stand(board, "B", slots.SlotStates(8, "B", ("good", "good"), (3, 3)))
    assert update.main(["told"]) == 0 and not (board / "told/system-left").exists() and not (board / "coming").exists()


@pytest.mark.parametrize("text", ["", "\n", "B", "Z 1.0\n", "\x00\x01"])
def test_a_torn_note_of_the_system_that_was_to_come_stops_no_boot(board: Path, text: str) -> None:
    (board / "coming").write_text(text)
    assert update.main(["told"]) == 0


def test_versions_that_come_before_the_one_they_name_are_older() -> None:
    rows = ["0.9", "1.3.12", "1.4.0.dev3", "1.4.0a1", "1.4.0rc1", "1.4.0rc2", "1.4.0", "1.4.0+g2", "1.4.0.1", "1.10.0", "9000.1"]
    assert sorted(rows, key=update.order) == rows
    assert update.order("1.04.0") == update.order("1.4.0")


def test_what_rauc_is_told_to_install_directly_is_checked_the_same_way(board: Path) -> None:
    good = bundle.manifest(replace(OWN, version="2.0")).encode()
    (board / "root.img").touch()
    update.check_mounted(mounted(board, good))
    with pytest.raises(BundleRefused, match="OlderSystem"):
        update.check_mounted(mounted(board, bundle.manifest(replace(OWN, version="0.9")).encode()))
    assert (board / "run/refused").read_text().startswith("OlderSystem: ")
    (board / "run/allow-older").touch()
    with pytest.raises(BundleRefused, match="OlderSystem"):  # the word of an installation that was killed
        update.check_mounted(mounted(board, bundle.manifest(replace(OWN, version="0.9")).encode()))
    with update.alone():
        update.check_mounted(mounted(board, bundle.manifest(replace(OWN, version="0.9")).encode()))


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe", b"[update]\n", b"[update]\ncompatible=x\nversion=1\ncompatible=y\n", b"no section", b"\0" * 100]
)
def test_a_manifest_that_says_nothing_is_refused(board: Path, text: bytes) -> None:
    with pytest.raises(BundleRefused, match="BundleDamaged"):
        update.check_mounted(mounted(board, text))


@given(st.binary(max_size=300))
def test_any_bytes_as_a_manifest_are_read_or_refused(text: bytes) -> None:
    import configparser

    try:
        update.manifest_of(text.decode(errors="replace"))
    except (configparser.Error, KeyError):
        return


def test_a_board_that_is_not_set_up_takes_no_update(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (board / "agent.toml").unlink()
    assert update.main(["install", str(board / "x.raucb")]) == 1
    assert "NotSetUp" in capsys.readouterr().err


def test_what_the_image_holds_is_complete(tmp_path: Path) -> None:
    put(tmp_path, OWN, b"PEM", 0x1234)
    assert update.release_of((tmp_path / "etc/edgeagent-image").read_text()) == OWN
    assert "by-partuuid/00001234-02" in (tmp_path / "etc/rauc/system.conf").read_text()
    units = list((tmp_path / "lib/systemd/system").iterdir())
    assert len(units) == 6
    for unit in units:
        for line in unit.read_text().splitlines():
            if line.startswith("ExecStart="):
                program = line.removeprefix("ExecStart=").lstrip("-").split()[0]
                assert program == "/sbin/wpa_supplicant" or os.access(tmp_path / program.lstrip("/"), os.X_OK), program
    for wanted in tmp_path.glob("etc/systemd/system/*.wants/*"):
        assert (tmp_path / os.readlink(wanted).lstrip("/")).is_file()


def test_a_system_that_stops_before_its_targets_is_left_all_the_same(tmp_path: Path) -> None:
    put(tmp_path, OWN, b"PEM", 0x1234)
    assert (tmp_path / "etc/systemd/system/sysinit.target.wants/edgeagent-trial.timer").is_symlink()
    timer, service = ((tmp_path / f"lib/systemd/system/edgeagent-trial.{kind}").read_text() for kind in ("timer", "service"))
    assert "\nDefaultDependencies=no\n" in timer and "\nDefaultDependencies=no\n" in service, "emergency mode reaches no other target"
    assert "\nFailureAction=reboot-force\n" in service, "a system whose Python is broken is left, too"


def test_nothing_of_the_agent_runs_before_its_state_was_kept_or_taken_back(tmp_path: Path) -> None:
    put(tmp_path, OWN, b"PEM", 0x1234)
    unit = (tmp_path / "lib/systemd/system/edgeagent-state.service").read_text()
    before = next(line for line in unit.splitlines() if line.startswith("Before=")).removeprefix("Before=").split()
    assert {"edgeagent-provision.service", "edgeagent.service"} <= set(before)
    assert "\nUser=edgeagent\n" in unit, "the agent's folder is the agent's: nothing of root's follows a link there"


def test_no_user_but_root_tells_rauc_anything(tmp_path: Path) -> None:
    put(tmp_path, OWN, b"PEM", 0x1234)
    policy = ElementTree.fromstring((tmp_path / "etc/dbus-1/system.d/edgeagent-rauc.conf").read_text())
    said = [(*one.attrib.items(), rule.tag, rule.get("send_destination")) for one in policy.findall("policy") for rule in one]
    rauc = "de.pengutronix.rauc"
    assert said == [(("context", "default"), "deny", rauc), (("user", "root"), "allow", rauc)]


def test_a_board_without_room_for_the_copy_of_its_state_is_told_before_anything_is_written(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update.require_room_for_state(board)
    monkeypatch.setattr(os, "statvfs", lambda _: type("Disk", (), {"f_bavail": 1000, "f_frsize": 4096}))
    with pytest.raises(BundleRefused, match="NoRoom"):
        update.require_room_for_state(board)


# What calls a system good.


def trial(folder: Path, monkeypatch: pytest.MonkeyPatch, *, active: bool, answered: str | None, doctor: dict[str, object] | None) -> str:
    """Return what is lacking on a board on trial, in its boot of that name."""
    monkeypatch.setattr(mark_good, "RUN", folder)
    monkeypatch.setattr(mark_good, "BOOT", folder / "boot")
    (folder / "boot").write_text("this boot\n")
    monkeypatch.setattr(mark_good.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 0 if active else 3}))
    status = None if answered is None else {"answered_in_boot": answered} if answered else {}
    monkeypatch.setattr(mark_good, "asked", lambda command: doctor if command == "doctor" else status)
    return mark_good.lacking()


WELL: dict[str, object] = {
    "checks": [{"key": "kernels", "what": "kernels", "ok": True, "text": ""}, {"key": "broker", "what": "broker", "ok": False, "text": "x"}]
}
ILL: dict[str, object] = {"checks": [{"key": "runtime", "what": "runtime", "ok": False, "text": "no wheel"}]}


@pytest.mark.parametrize(
    ("active", "answered", "doctor", "lacks"),
    [
        (True, "this boot", WELL, ""),
        (False, "this boot", WELL, "the agent does not run"),
        (True, "another boot", WELL, "the centre has not answered since this boot"),
        (True, "", WELL, "the centre has not answered since this boot"),
        (True, None, WELL, "edgeagent status does not answer"),
        (True, "this boot", ILL, "runtime: no wheel"),
        (True, "this boot", None, "edgeagent doctor does not answer"),
    ],
)
def test_a_system_is_good_once_the_agent_is_well_and_the_centre_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, active: bool, answered: str | None, doctor: dict[str, object] | None, lacks: str
) -> None:
    assert trial(tmp_path, monkeypatch, active=active, answered=answered, doctor=doctor) == lacks


@pytest.mark.parametrize("said", [{}, {"checks": []}, {"error": "StateDamaged"}, {"checks": "x"}])
def test_a_doctor_that_finds_out_nothing_calls_nothing_good(said: dict[str, object]) -> None:
    assert mark_good.faults(said)
    assert mark_good.faults({"checks": [{}]}) == []


def test_nobody_but_root_calls_a_system_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(mark_good, "RUN", tmp_path)
    (tmp_path / "trial").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for word in ("wait", "overdue"):
        assert mark_good.main([word]) == 1
    assert "root alone" in capsys.readouterr().err


def test_a_slot_that_was_good_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mark_good, "RUN", tmp_path)
    monkeypatch.setattr(mark_good.subprocess, "run", lambda *words, **_: pytest.fail(f"it ran {words}"))
    for word in ("wait", "overdue"):
        assert mark_good.main([word]) == 0
