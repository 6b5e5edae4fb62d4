"""The steps of a release about what it stands on: the pinned releases really install, bills of materials, known vulnerabilities."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from packaging.markers import Marker

from tests.house.pages import ROOT
from tests.release import facts
from tests.release.constraints import DEPLOYMENTS, Deployment, Pin, pins, worlds
from tests.release.place import NotReleasable, Place, empty, environment, install, nothing_of_the_tree, run

BILLS = {"edge-litert": "agent-litert", "edge-tflite": "agent-tflite", "cloud": "cloud"}  # of each deployment with a bill of its own
BOARDS = {("edge-armv7", "armv7l")} | {(name, machine) for name in BILLS for machine in ("x86_64", "aarch64")}  # wheels are for these
GLIBC = ("_2_36", "_2_35", "_2_34", "_2_31", "_2_28", "_2_27", "_2_17", "2014")  # pip takes those that it is told of alone


def what_is_pinned(place: Place) -> str:
    """Each deployment that this Python can run is installed from its file, nothing else is asked for, and its program answers."""
    tried = []
    for deployment in DEPLOYMENTS:
        if deployment.name not in BILLS or not _here(deployment):
            continue
        python = environment(place, deployment.name, [])
        install(python, place.tree, "--require-hashes", "--only-binary", ":all:", "-r", str(deployment.path))
        install(python, place.folder, "--no-index", "--no-deps", str(place.wheel))
        folder = empty(place, f"in-{deployment.name}")
        nothing_of_the_tree(python, folder)
        run([python, "-m", "pip", "check"], folder)
        program = "edgecloud" if deployment.name == "cloud" else "edgeagent"
        if facts.version() not in run([Path(python).parent / program, "version"], folder):
            raise NotReleasable(f"{program} of {deployment.name} does not say {facts.version()}")
        tried.append(deployment.name)
    looked = _wheels_elsewhere(place)
    return f"with --require-hashes: {', '.join(tried)}; wheels for {looked} other Pythons and processors"


def _wheels_elsewhere(place: Place) -> int:
    """Let pip find a wheel with a pinned digest for each line, on all Pythons and processors that a deployment is for; return how many."""
    looked = 0
    for deployment in DEPLOYMENTS:
        for world in worlds(deployment):
            python, machine = world["python_version"], world["platform_machine"]
            if (deployment.name, machine) not in BOARDS:
                continue
            # pip reads markers for the machine that it runs on, so only those lines are asked for that hold there, without them.
            pinned = place.folder / f"{deployment.name}-{python}-{machine}.txt"
            there = [pin for pin in pins(deployment.path) if not pin.marker or Marker(pin.marker).evaluate(world)]
            pinned.write_text("".join(f"{pin.name}=={pin.version} {hashes(pin)}\n" for pin in there))
            command = [_tools(place), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "download", "--no-deps"]
            command += ["--dest", str(place.folder / "downloads"), "--only-binary", ":all:", "--python-version", python]
            command += [word for glibc in GLIBC for word in ("--platform", f"manylinux{glibc}_{machine}")]
            run([*command, "--require-hashes", "-r", str(pinned)], place.folder)
            looked += 1
    return looked


def hashes(pin: Pin) -> str:
    """Return a pin's digests as pip reads them."""
    return " ".join(f"--hash=sha256:{digest}" for digest in pin.hashes)


def bills_of_materials(place: Place) -> str:
    at = run(["git", "log", "-1", "--format=%ct"], ROOT).strip()
    place.bills.mkdir()
    made = []
    for deployment in DEPLOYMENTS:
        if deployment.name not in BILLS or not _here(deployment):
            continue
        (site,) = (place.folder / "environments" / deployment.name).glob("lib/python*/site-packages")
        out = place.bills / f"edgeagent-{facts.version()}-{BILLS[deployment.name]}.cdx.json"
        command = [_tools(place), "-m", "tests.release.sbom", "--constraints", deployment.name, "--wheel", str(place.wheel)]
        command += ["--site", str(site), "--at", at, "--out", str(out)]
        run(command, place.tree)
        first = out.read_bytes()
        run(command, place.tree)
        if out.read_bytes() != first:
            raise NotReleasable(f"{out.name} came out differently when it was made again")
        made.append(out.name)
    return ", ".join(made)


def known_vulnerabilities(place: Place) -> str:
    """Ask who keeps advisories about every pinned release. No answer is no pass."""
    if not place.advisories:
        return "NOT ASKED FOR (--advisories-unasked): say so in the release's notes"
    asked = 0
    for deployment in DEPLOYMENTS:
        command = [_tools(place), "-m", "pip_audit", "--requirement", str(deployment.path), "--require-hashes", "--disable-pip"]
        command += ["--progress-spinner", "off", "--timeout", "30", "--format", "json"]
        done = subprocess.run(command, cwd=place.tree, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        asked += judged(deployment.name, done.stdout, done.stderr)
    return f"none of {asked} pinned releases has one"


def judged(name: str, answer: str, complaint: str) -> int:
    """Return how many releases pip-audit got an answer about. answer: its JSON. Raises NotReleasable for one that has none, or a bad one.

    A release that its service does not know is skipped there, and the whole called clean: that is no answer.
    """
    try:
        said = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        said = []
    skipped = sorted(str(one.get("name")) for one in said if "skip_reason" in one)
    bad = [f"{one['name']} {one['version']}: {bug['id']}" for one in said for bug in one.get("vulns", ())]
    if bad:
        raise NotReleasable(f"{name}: python -m tests.release.constraints --upgrade, or answer for it:\n" + "\n".join(bad))
    if skipped or not said:
        raise NotReleasable(
            f"nobody knows about {', '.join(skipped) or 'any release'} of {name}: the advisories are not reached from here.\n"
            "Release where they are, or with --advisories-unasked and a word about it in the release's notes.\n" + complaint[-600:]
        )
    return len(said)


def _here(deployment: Deployment) -> bool:
    """Return whether this Python is one that a deployment is for."""
    return Marker(deployment.pythons).evaluate()


def _tools(place: Place) -> str:
    return str(place.folder / "environments" / "tools" / "bin" / "python")
