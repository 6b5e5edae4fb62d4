#!/usr/bin/python3
"""Installs a signed update of the system into the slot that is not booted, by RAUC, and refuses by name what does not belong here.

    edgeagent-update install FILE [--allow-older]     RAUC then boots the other slot, on trial
    edgeagent-update status [--json]                  what is booted, what is wanted, the last refusal
    edgeagent-update check                            RAUC asks this before it writes anything (pre-install handler)

It stands alone: the image holds it as /usr/sbin/edgeagent-update, with nothing of ours beside it.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path("/usr/lib/edgeagent-image")
RELEASE = Path("/etc/edgeagent-image")  # version=, compatible= and kernel= of the system that runs
RUN = Path("/run/edgeagent-image")
SETTINGS = Path("/var/lib/edgeagent/agent/edgeagent.toml")
CONSOLE = Path("/dev/console")
MANIFEST_MAX = 64 * 1024  # bytes; RAUC's own is below one KiB
KERNEL = "kernel "  # what a manifest's `build` begins with


@dataclass(frozen=True, slots=True)
class SystemRelease:
    """What a system is: for which board, which version, which kernel its modules are for."""

    compatible: str
    version: str
    kernel: str

    def text(self) -> str:
        return f"version={self.version}\ncompatible={self.compatible}\nkernel={self.kernel}\n"


class BundleRefused(Exception):
    """A bundle that is not installed. name: which refusal; step: what to do."""

    def __init__(self, name: str, text: str, step: str) -> None:
        super().__init__(f"{name}: {text}; {step}")
        self.name, self.text, self.step = name, text, step


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="edgeagent-update", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    install_verb = verbs.add_parser("install", help="install a bundle into the other slot")
    install_verb.add_argument("file", type=Path, metavar="FILE", help="a .raucb made by make bundle")
    install_verb.add_argument("--allow-older", action="store_true", help="take a system that is older than the one that runs")
    status_verb = verbs.add_parser("status", help="what is booted, what is wanted, what was refused")
    status_verb.add_argument("--json", action="store_true", help="one JSON document")
    verbs.add_parser("check", help="asked by RAUC before it writes")
    args = parser.parse_args(argv)
    try:
        if args.verb == "install":
            install(args.file, allow_older=args.allow_older)
        elif args.verb == "check":
            check_mounted(os.environ)
        else:
            show(as_json=args.json)
    except BundleRefused as e:
        tell(f"edgeagent-update: {e}")
        return 1
    return 0


def install(file: Path, *, allow_older: bool) -> None:
    """Have RAUC install a bundle. Raises BundleRefused with nothing changed on the board."""
    if not SETTINGS.exists():
        step = "set the board up first: a new system is called good only once the centre has answered it"
        raise BundleRefused("NotSetUp", f"{SETTINGS} is not there", step)
    coming, own = read_bundle(file), release_of(RELEASE.read_text())
    require_fit(coming, own, os.uname().release, allow_older=allow_older)
    RUN.mkdir(exist_ok=True)
    leave, refused = RUN / "allow-older", RUN / "refused"
    refused.unlink(missing_ok=True)
    if allow_older:
        leave.touch()
    try:
        print(f"edgeagent-update: installing {coming.version} beside {own.version}", flush=True)
        done = subprocess.run(["rauc", "install", str(file.absolute())], check=False)
    finally:
        leave.unlink(missing_ok=True)
    if done.returncode:
        name, _, text = (refused.read_text() if refused.exists() else "NotInstalled: RAUC could not install it").strip().partition(": ")
        raise BundleRefused(name, text, "journalctl -u rauc has every step; the system that runs is untouched")
    print(f"edgeagent-update: {coming.version} is in the other slot, on trial from the next boot on: systemctl reboot")


def read_bundle(file: Path) -> SystemRelease:
    """Return what a bundle says of itself, its signature checked against the board's keyring. Raises BundleRefused."""
    if not file.is_file():
        raise BundleRefused("NoBundle", f"there is no file {file}", "name the .raucb")
    done = subprocess.run(["rauc", "info", "--output-format=json", str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise unreadable(file, done.stderr)
    said = json.loads(done.stdout)
    return SystemRelease(str(said["compatible"]), str(said["version"]), kernel_in(str(said.get("build") or "")))


def unreadable(file: Path, said: str) -> BundleRefused:
    """Return why RAUC does not read a bundle, by its last line."""
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    if "Signature size is 0" in last:
        return BundleRefused("NotSigned", f"{file} has no signature", "make it with make bundle, which signs")
    if "signature verification failed" in last or "Verify error" in last:
        step = "sign it with the key whose root is in the image"
        return BundleRefused("ForeignSignature", f"{file} is not signed for this board: {last}", step)
    return BundleRefused("BundleDamaged", f"{file} can't be read: {last}", "copy it here again")


def check_mounted(environment: Mapping[str, str]) -> None:
    """Check the bundle that RAUC has mounted. Raises BundleRefused; what was refused stands in /run/edgeagent-image/refused."""
    mounted = environment.get("RAUC_BUNDLE_MOUNT_POINT") or environment.get("RAUC_UPDATE_SOURCE", "")
    try:
        with (Path(mounted) / "manifest.raucm").open("rb") as file:
            coming = manifest_of(file.read(MANIFEST_MAX).decode())
        require_fit(coming, release_of(RELEASE.read_text()), os.uname().release, allow_older=(RUN / "allow-older").exists())
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as e:
        raise refusal("BundleDamaged", f"its manifest can't be read: {e!r}", "make it anew") from e
    except BundleRefused as e:
        raise refusal(e.name, e.text, e.step) from None


def refusal(name: str, text: str, step: str) -> BundleRefused:
    """Write a refusal down, and return it."""
    with contextlib.suppress(OSError):
        RUN.mkdir(exist_ok=True)
        (RUN / "refused").write_text(f"{name}: {text}; {step}\n")
    return BundleRefused(name, text, step)


def manifest_of(text: str) -> SystemRelease:
    """Return what a bundle's manifest says. Raises configparser.Error or KeyError."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    update = parser["update"]
    return SystemRelease(update["compatible"], update["version"], kernel_in(update.get("build", "")))


def release_of(text: str) -> SystemRelease:
    """Return what a system says of itself. Raises KeyError."""
    said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return SystemRelease(said["compatible"], said["version"], said["kernel"])


def kernel_in(build: str) -> str:
    return build.removeprefix(KERNEL) if build.startswith(KERNEL) else ""


def require_fit(coming: SystemRelease, own: SystemRelease, running: str, *, allow_older: bool) -> None:
    """Raise BundleRefused for a system that does not belong on this board. running: the kernel, which both slots share."""
    if coming.compatible != own.compatible:
        why = f"the bundle is for {coming.compatible}, and this board is {own.compatible}"
        raise BundleRefused("OtherBoard", why, "take the bundle that was made for this board")
    if coming.kernel != running:
        why = f"its modules are for the kernel {coming.kernel or 'of no name'}, and the boot partition holds {running}"
        raise BundleRefused("OtherKernel", why, "make the bundle from the archive state of this image, or write a new card")
    if order(coming.version) < order(own.version) and not allow_older:
        raise BundleRefused("OlderSystem", f"it is {coming.version}, and {own.version} runs", "with --allow-older it is taken all the same")


def order(version: str) -> tuple[int, ...]:
    """Return what versions are ordered by: all their numbers, from left to right."""
    return tuple(int(one) for one in re.findall(r"[0-9]+", version))


def show(*, as_json: bool) -> None:
    """Print what is booted, what is wanted, and the last refusal since the board was booted."""
    slots = json.loads(subprocess.run([str(HERE / "slots"), "show"], capture_output=True, text=True, check=True).stdout)
    own = release_of(RELEASE.read_text())
    refused = (RUN / "refused").read_text().strip() if (RUN / "refused").exists() else ""
    booted = (RUN / "slot").read_text().strip() if (RUN / "slot").exists() else ""
    document = {
        "compatible": own.compatible, "version": own.version, "kernel": own.kernel, "booted": booted, "trial": (RUN / "trial").exists(),
        "refused": refused, "slots": slots,
    }  # fmt: skip
    if as_json:
        print(json.dumps(document))
        return
    trial = ", on trial" if document["trial"] else ""
    print(f"{own.version} for {own.compatible}, in slot {booted or '?'}{trial}; next: slot {slots['next']}")
    for name, state, tries in zip("AB", slots["states"], slots["tries"], strict=True):
        print(f"  {name}: {state}" + (f", {tries} tries left" if state == "trial" else ""))
    if refused:
        print(f"  refused: {refused}")


def tell(text: str) -> None:
    """Say something on standard error and on the console."""
    print(text, file=sys.stderr)
    with contextlib.suppress(OSError), CONSOLE.open("w") as console:
        console.write(f"\r{text}\r\n")


if __name__ == "__main__":
    sys.exit(main())
