"""Updates of the system: what is refused, by its name; what calls a system on trial good."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.image import bundle, keys
from hw.image.onboard import SystemRelease, mark_good, put, update
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


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A board's files in a folder, with OWN as its system and kernel; rauc holds its root key."""
    keys.make(tmp_path / "keys")
    put(tmp_path / "root", OWN, (tmp_path / "keys/root.pem").read_bytes(), 0xED9E0001)
    places = {"HERE": "root/usr/lib/edgeagent-image", "RELEASE": "root/etc/edgeagent-image", "RUN": "run", "CONSOLE": "console"}
    for name, path in places.items():
        monkeypatch.setattr(update, name, tmp_path / path)
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


def test_what_rauc_is_told_to_install_directly_is_checked_the_same_way(board: Path) -> None:
    good = bundle.manifest(replace(OWN, version="2.0")).encode()
    update.check_mounted(mounted(board, good))
    with pytest.raises(BundleRefused, match="OlderSystem"):
        update.check_mounted(mounted(board, bundle.manifest(replace(OWN, version="0.9")).encode()))
    assert (board / "run/refused").read_text().startswith("OlderSystem: ")
    (board / "run/allow-older").touch()
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
    assert len(units) == 4
    for unit in units:
        for line in unit.read_text().splitlines():
            if line.startswith("ExecStart="):
                program = line.removeprefix("ExecStart=").split()[0]
                assert os.access(tmp_path / program.lstrip("/"), os.X_OK), program
    for wanted in tmp_path.glob("etc/systemd/system/*.wants/*"):
        assert (tmp_path / os.readlink(wanted).lstrip("/")).is_file()


# What calls a system good.


def trial(folder: Path, monkeypatch: pytest.MonkeyPatch, *, active: bool, heard: int | None, doctor: dict[str, object] | None) -> str:
    """Return what is lacking on a board on trial, of which the centre was last heard at 1000 before the boot."""
    monkeypatch.setattr(mark_good, "RUN", folder)
    (folder / "heard-before").write_text("1000")
    monkeypatch.setattr(mark_good.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 0 if active else 3}))
    monkeypatch.setattr(mark_good, "asked", lambda command: doctor if command == "doctor" else None if heard is None else {"heard": heard})
    return mark_good.lacking()


WELL: dict[str, object] = {
    "checks": [{"key": "kernels", "what": "kernels", "ok": True, "text": ""}, {"key": "broker", "what": "broker", "ok": False, "text": "x"}]
}
ILL: dict[str, object] = {"checks": [{"key": "runtime", "what": "runtime", "ok": False, "text": "no wheel"}]}


@pytest.mark.parametrize(
    ("active", "heard", "doctor", "lacks"),
    [
        (True, 1001, WELL, ""),
        (False, 1001, WELL, "the agent does not run"),
        (True, 1000, WELL, "the centre has not answered since this boot"),
        (True, None, WELL, "edgeagent status does not answer"),
        (True, 1001, ILL, "runtime: no wheel"),
        (True, 1001, None, "edgeagent doctor does not answer"),
    ],
)
def test_a_system_is_good_once_the_agent_is_well_and_the_centre_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, active: bool, heard: int | None, doctor: dict[str, object] | None, lacks: str
) -> None:
    assert trial(tmp_path, monkeypatch, active=active, heard=heard, doctor=doctor) == lacks


def test_a_slot_that_was_good_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mark_good, "RUN", tmp_path)
    monkeypatch.setattr(mark_good.subprocess, "run", lambda *words, **_: pytest.fail(f"it ran {words}"))
    for word in ("before", "wait", "overdue"):
        assert mark_good.main([word]) == 0
