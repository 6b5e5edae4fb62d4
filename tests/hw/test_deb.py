"""Debian packages: what is taken for which machine, what they need there, what their scripts do; and one tried in a Debian of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgecommon import __version__
from hw import foreign
from hw.deb import building, libraries, targets, tree, wheels
from hw.deb.running import NotMade
from hw.deb.trial.course import tried
from tests import broker
from tests.house.pages import ROOT

KERNEL = next((ROOT / "modelwire" / "_core").glob("kernel*.so"), None)
ALL = [(name, architecture) for name, made in targets.MADE.items() for architecture in made]


def test_the_packages_of_the_issue_are_made() -> None:
    made = {name: sorted(made) for name, made in targets.MADE.items()}
    assert made == {"edgeagent": ["amd64", "arm64", "armhf"], "edgecloud": ["amd64", "arm64"]}
    with pytest.raises(NotMade, match="edgecloud is made for amd64, arm64"):
        building.build("edgecloud", "armhf")
    with pytest.raises(NotMade, match="is no version"):
        building.build("edgeagent", "amd64", version="../1")


@pytest.mark.parametrize(("name", "architecture"), ALL)
def test_what_is_installed_is_what_the_constraints_say_for_that_machine_each_by_its_digest(name: str, architecture: str) -> None:
    package, target = targets.MADE[name][architecture], targets.ARCHITECTURES[architecture]
    lines = wheels.needed(ROOT / "deploy" / "constraints" / package.constraints, target)
    names = [re.split(r"[=<>~]", line)[0].lower() for line in lines]
    assert names == sorted(set(names)), "one release of each"
    assert {"paho-mqtt", "cryptography"} <= set(names)
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( --hash=sha256:[0-9a-f]{64})+", line), line
    assert ("numpy" in names) is not bool(package.distribution), "there is no wheel of numpy for 32-bit ARM"
    runtime = {"tflite-runtime", "ai-edge-litert"} & set(names)
    assert runtime == (set() if name == "edgecloud" else {"ai-edge-litert" if architecture == "amd64" else "tflite-runtime"})


def test_a_wheel_that_asks_for_a_newer_libc_than_debian_s_is_not_taken() -> None:
    tags = targets.platforms("aarch64")
    assert "manylinux_2_36_aarch64" in tags and "manylinux_2_17_aarch64" in tags and "manylinux2014_aarch64" in tags
    assert not any("2_37" in tag or "musl" in tag or "x86_64" in tag for tag in tags)


@pytest.mark.parametrize("name", targets.MADE)
def test_units_of_a_package_run_what_the_package_brings(name: str) -> None:
    package = targets.MADE[name]["amd64"]
    for unit in package.units:
        text = tree.unit_text(package, unit)
        assert "/opt/" not in text
        for path in re.findall(r"^ExecStart=\+?(\S+)", text, re.M):
            assert path in (f"/usr/bin/{name}", f"/usr/lib/{name}/bin/{name}-backup", "/usr/bin/systemctl"), path
    shipped = {unit.name for unit in (ROOT / "deploy").iterdir() if unit.suffix in (".service", ".timer")}
    assert shipped == {unit for made in targets.MADE.values() for unit in made["amd64"].units}, "a unit of deploy/ is in no package"


@pytest.mark.skipif(KERNEL is None or shutil.which("readelf") is None, reason="needs the compiled kernels, and readelf")
def test_what_a_compiled_file_needs_is_read_from_it(tmp_path: Path) -> None:
    assert KERNEL is not None
    shutil.copy(KERNEL, tmp_path / "kernel.so")
    (tmp_path / "no.so").write_text("no library at all")
    (tmp_path / "link.so").symlink_to("kernel.so")
    found = libraries.compiled(tmp_path)
    assert [path.name for path in found] == ["kernel.so"]
    (need,) = libraries.depends(found)
    assert re.fullmatch(r"libc6 \(>= 2\.\d+\)", need), need


@pytest.mark.parametrize("script", sorted((tree.SCRIPTS).glob("*/*")), ids=lambda path: f"{path.parent.name}.{path.name}")
def test_scripts_of_the_packages_are_shell_that_ends_at_the_first_fault(script: Path) -> None:
    text = script.read_text()
    assert text.startswith("#!/bin/sh\n# ") and "\nset -e\n" in text
    subprocess.run(["sh", "-n", str(script)], check=True)


@pytest.mark.parametrize("name", ["edgeagent", "edgecloud"])
@pytest.mark.parametrize("word", ["remove", "purge", "upgrade", "abort-install", "disappear"])
def test_what_purge_takes_is_the_state_and_nothing_that_lies_elsewhere(name: str, word: str, tmp_path: Path) -> None:
    state, elsewhere, stick = tmp_path / f"var/lib/{name}", tmp_path / "srv", tmp_path / f"var/lib/{name}-other"
    for folder in (state / "agent" / "state", elsewhere, stick):
        folder.mkdir(parents=True)
        (folder / "file").write_text("kept")
    (state / "link").symlink_to(elsewhere)
    text = (tree.SCRIPTS / name / "postrm").read_text()
    assert "/run/systemd/system" in text
    text = text.replace("/run/systemd/system", "/nowhere").replace("/var/lib/", f"{tmp_path}/var/lib/").replace("/etc/", f"{tmp_path}/etc/")
    script = tmp_path / "postrm"
    script.write_text(text.replace("command -v deb-systemd-helper", "false"))
    for _ in range(2):  # a purge that is asked for again fails no more than the first
        subprocess.run(["sh", str(script), word], check=True)
        assert state.exists() is (word != "purge")
        assert (elsewhere / "file").read_text() == (stick / "file").read_text() == "kept"
    if word == "purge":  # the folder itself may be a link to another disk
        state.symlink_to(elsewhere)
        subprocess.run(["sh", str(script), word], check=True)
        assert not state.is_symlink() and (elsewhere / "file").exists()


def test_a_command_says_what_it_can_t_build(capsys: pytest.CaptureFixture[str]) -> None:
    from hw.deb.__main__ import main

    assert main(["--arch", "armhf", "--package", "edgecloud"]) == 2
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "examples:" in capsys.readouterr().out


def cannot() -> str:
    if os.geteuid() != 0:
        return "a Debian in a folder needs root"
    if sys.version_info[:2] != (3, 11):
        return "the packages are for Python 3.11"
    if lacks := [tool for tool in ("mmdebstrap", "dpkg-deb", "git", "gcc") if shutil.which(tool) is None]:
        return f"not installed: {', '.join(lacks)}"
    if os.uname().machine != "x86_64" or broker.program() is None:
        return "needs an x86-64 machine with mosquitto"
    return foreign.obstacle("amd64")


@pytest.mark.slow("packs the agent, makes a Debian, and trains, upgrades, removes and purges in it", seconds=90)
def test_a_package_lives_in_a_debian_from_its_installation_to_its_purge(tmp_path: Path) -> None:
    if why := cannot():
        pytest.skip(why)
    try:
        package = building.build("edgeagent", "amd64", out=tmp_path / "deb", packing="none")
    except NotMade as error:
        if "pip" in str(error) and "onnection" in str(error):
            pytest.skip("no package index can be reached: the wheels that are packed can't be had")
        raise
    trial = tried(package, "amd64", tmp_path / "trial")
    assert trial.seen["equal"] and __version__ in trial.seen["version"]


STATES = {"active": True, "activating": True, "reloading": True, "deactivating": True, "inactive": False, "failed": False, "": True}


@pytest.mark.parametrize("name", ["edgeagent", "edgecloud"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("policy", [None, 0, 101, 104])
def test_a_service_runs_after_an_upgrade_if_it_was_to_run_before(name: str, state: str, policy: int | None, tmp_path: Path) -> None:
    """state: before the upgrade; empty: nothing was there before. policy: what policy-rc.d answers, where there is one."""
    told = tmp_path / "told"
    for folder in ("bin", "run/systemd/system", "sbin"):
        (tmp_path / folder).mkdir(parents=True)
    quiet = ("adduser", "addgroup", "install", "deb-systemd-helper", "deb-systemd-invoke")
    programs = {f"bin/{one}": "exit 0" for one in quiet}
    programs["bin/systemctl"] = f'case "$*" in show*) echo "$STATE" ;; *start*) echo "$*" >>{told} ;; esac'
    if policy is not None:
        programs["sbin/policy-rc.d"] = f"exit {policy}"
    for place, text in programs.items():
        (tmp_path / place).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / place).chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "STATE": state}

    def run(script: str, *words: str, state: str = state) -> None:
        text = (tree.SCRIPTS / name / script).read_text()
        for place in ("/run/", "/var/lib/", "/etc/", "/usr/sbin/policy"):
            text = text.replace(place, f"{tmp_path}{place.removeprefix('/usr')}")
        (tmp_path / script).write_text(text)
        subprocess.run(["sh", str(tmp_path / script), *words], check=True, env={**environment, "STATE": state})

    if state:
        run("prerm", "upgrade", "9.0")
        run("prerm", "upgrade", "9.0", state="inactive")  # tried again: by now it is stopped
    run("postinst", "configure", "1.0" if state else "")
    started = told.read_text() if told.exists() else ""
    assert (f"--no-block start {name}" in started) is (STATES[state] and policy != 101), started
    assert not list((tmp_path / "run").glob("edge*")), "a note is left for the next upgrade"
