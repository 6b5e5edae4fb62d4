#!/usr/bin/python3
"""Installs a signed update of the system into the slot that is not booted, by RAUC, and refuses by name what does not belong here.

    edgeagent-update install FILE [--allow-older]     RAUC then boots the other slot, on trial
    edgeagent-update status [--json]                  what is booted, what is wanted, the last refusal
    edgeagent-update check                            RAUC asks this before it writes anything (pre-install handler)
    edgeagent-update told                             at each start: has the agent tell the centre of a system that was left

It stands alone: the image holds it as /usr/sbin/edgeagent-update, with nothing of ours beside it.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path("/usr/lib/edgeagent-image")
RELEASE = Path("/etc/edgeagent-image")  # version=, compatible= and kernel= of the system that runs
RUN = Path("/run/edgeagent-image")
SETTINGS = Path("/var/lib/edgeagent/agent/edgeagent.toml")
COMING = Path("/data/system/coming")  # slot and version of the system that is to be the next one
TOLD = Path("/run/edgeagent-told")  # what the agent tells the centre of: a file for each trouble
UNTOLD = ("Busy", "NoBundle")  # of who types a command, who sees it
CONSOLE = Path("/dev/console")
MANIFEST_MAX = 64 * 1024  # bytes; RAUC's own is below one KiB
KERNEL = "kernel "  # what a manifest's `build` begins with
MIB = 1 << 20
SPARE = 4 * MIB  # bytes that stay free beside the copy of the state
IMAGE = "image.rootfs"
SECTIONS = {"update", "bundle", IMAGE}  # of a manifest that make bundle writes
BEFORE = {"dev": -4, "a": -3, "alpha": -3, "b": -2, "beta": -2, "c": -1, "rc": -1, "pre": -1}  # words of versions before the one they name


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
    verbs.add_parser("told", help="at each start: what became of the last update, for the centre")
    args = parser.parse_args(argv)
    try:
        if args.verb == "install":
            require_root()
            try:
                with alone():
                    install(args.file, allow_older=args.allow_older)
            except BundleRefused as e:
                raise refusal(e.name, e.text, e.step) from None
        elif args.verb == "check":
            check_mounted(os.environ)
        elif args.verb == "told":
            tell_of_last()
        else:
            show(as_json=args.json)
    except BundleRefused as e:
        tell(f"edgeagent-update: {e}")
        return 1
    return 0


def require_root() -> None:
    """Raise BundleRefused for a user who may not install anything."""
    if os.geteuid():
        raise BundleRefused("NotRoot", "a system is installed by root alone", "give the command as root")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the right to install for the time of a `with` block; a process that is killed lets go of it. Raises BundleRefused."""
    RUN.mkdir(exist_ok=True)
    with (RUN / "installing").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BundleRefused("Busy", "another edgeagent-update is installing", "wait until it has ended") from None
        yield


def older_allowed() -> bool:
    """Return whether the installation that runs was told to take an older system; what a killed one left says nothing."""
    try:
        with (RUN / "allow-older").open(), (RUN / "installing").open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True  # it is held by who left the word
    except OSError:
        pass
    return False


def install(file: Path, *, allow_older: bool) -> None:
    """Have RAUC install a bundle. Raises BundleRefused with nothing changed on the board."""
    if not SETTINGS.exists():
        step = "set the board up first: a new system is called good only once the centre has answered it"
        raise BundleRefused("NotSetUp", f"{SETTINGS} is not there", step)
    require_good(slot_states())
    file = Path(os.path.abspath(file))  # a name that begins with a dash is no option of RAUC's
    coming, own = read_bundle(file), release_of(RELEASE.read_text())
    require_fit(coming, own, os.uname().release, allow_older=allow_older)
    require_room_for_state(SETTINGS.parent)
    leave, refused = RUN / "allow-older", RUN / "refused"
    refused.unlink(missing_ok=True)
    leave.unlink(missing_ok=True)
    if allow_older:
        leave.touch()
    try:
        print(f"edgeagent-update: installing {coming.version} beside {own.version}", flush=True)
        failed, last = rauc_install(file)
    finally:
        leave.unlink(missing_ok=True)
    if failed:
        name, _, text = (refused.read_text() if refused.exists() else f"NotInstalled: {last}").strip().partition(": ")
        raise BundleRefused(name, text, "journalctl -u rauc has every step; the system that runs is untouched")
    print(f"edgeagent-update: {coming.version} is in the other slot, on trial from the next boot on: systemctl reboot")


def rauc_install(file: Path) -> tuple[bool, str]:
    """Let RAUC install a bundle, its lines passed on; return whether that failed, and what it said of that."""
    last = "RAUC could not install it"
    with subprocess.Popen(["rauc", "install", str(file)], stdout=subprocess.PIPE, text=True, errors="replace") as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            if line.startswith("LastError: ") and line.strip() != "LastError:":
                last = line.removeprefix("LastError: ").strip()
    return running.returncode != 0, last


def require_good(states: Mapping[str, object]) -> None:
    """Raise BundleRefused where the system that runs is not known to be good: the slot to be written over may be the only good one."""
    booted, known = slot_booted(), states["states"]
    if booted not in ("A", "B") or not isinstance(known, list):
        return
    state = known["AB".index(booted)]
    if state == "trial":
        step = "wait until it is called good (edgeagent-update status), or until the board has gone back to the other slot"
        raise BundleRefused("OnTrial", f"slot {booted} is on trial itself, and the other slot is what it would fall back to", step)
    if state != "good":
        raise BundleRefused("NotGood", f"slot {booted} runs and is {state}", "where it is well all the same: rauc status mark-good")


def require_room_for_state(folder: Path) -> None:
    """Raise BundleRefused where the data partition has no room for the copy of the agent's state that a trial begins with (kept-state)."""
    old = tuple(folder / f"state{end}" for end in (".before-trial", ".part", ".newer"))  # of a trial before: they go
    size = SPARE + sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if not any(path.is_relative_to(one) for one in old))
    disk = os.statvfs(folder)
    if (free := disk.f_bavail * disk.f_frsize) < size:
        why = f"a trial begins with a copy of the agent's state, {size / MIB:.0f} MiB, and the data partition has {free / MIB:.0f} free"
        raise BundleRefused("NoRoom", why, "make room there: remove bundles that were installed")


def slot_states() -> dict[str, object]:
    """Return what the boot partition says of both slots. Raises BundleRefused where that can't be asked."""
    done = subprocess.run([str(HERE / "slots"), "show"], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BundleRefused("NoSlots", f"{HERE}/slots does not say how the slots stand: {last}", "look at the boot partition")
    said: dict[str, object] = json.loads(done.stdout)
    return said


def slot_booted() -> str:
    """Return the slot that the initrd has booted; empty where nothing says so."""
    try:
        return (RUN / "slot").read_text().strip()
    except OSError:
        return ""


def read_bundle(file: Path) -> SystemRelease:
    """Return what a bundle says of itself, its signature checked against the board's keyring. Raises BundleRefused."""
    if not file.is_file():
        what = f"{file} is no file" if file.exists() else f"there is no file {file}"
        raise BundleRefused("NoBundle", what, "name the .raucb: a file of this board, copied here first")
    done = subprocess.run(["rauc", "info", "--output-format=json", str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise unreadable(file, done.stderr)
    said = json.loads(done.stdout)
    images = [(name, image) for row in said["images"] for name, image in row.items()]
    require_plain({f"image.{name}" for name, _ in images}, hooked=bool(said["hooks"] or any(image["hooks"] for _, image in images)))
    return SystemRelease(str(said["compatible"]), str(said["version"] or ""), kernel_in(str(said.get("build") or "")))


def unreadable(file: Path, said: str) -> BundleRefused:
    """Return why RAUC does not read a bundle, by its last line."""
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    if "Signature size is 0" in last:
        return BundleRefused("NotSigned", f"{file} has no signature", "make it with make bundle, which signs")
    if "certificate has expired" in last or "certificate is not yet valid" in last:
        now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        step = "set the board's clock where it is wrong; else sign it with a certificate that holds"
        why = f"the certificate of {file} does not hold at {now} UTC, by this board's clock: {last}"
        return BundleRefused("CertificateTime", why, step)
    if re.search(r"Bundle format '.*' not allowed", last):
        return BundleRefused("OtherFormat", f"{file}: {last}", "make it with make bundle: boards take the format verity")
    if "signature verification failed" in last or "Verify error" in last:
        step = "sign it with the key whose root is in the image"
        return BundleRefused("ForeignSignature", f"{file} is not signed for this board: {last}", step)
    return BundleRefused("BundleDamaged", f"{file} can't be read: {last}", "copy it here again")


def check_mounted(environment: Mapping[str, str]) -> None:
    """Check the bundle that RAUC has mounted. Raises BundleRefused; what was refused stands in /run/edgeagent-image/refused."""
    mounted = environment.get("RAUC_BUNDLE_MOUNT_POINT") or environment.get("RAUC_UPDATE_SOURCE", "")
    try:
        with (Path(mounted) / "manifest.raucm").open("rb") as file:
            parser = parsed(file.read(MANIFEST_MAX).decode())
        coming = said_by(parser)
        require_good(slot_states())
        require_plain(set(parser.sections()) - {"update", "bundle"}, hooked=any("hooks" in parser[one] for one in parser.sections()))
        require_fit(coming, release_of(RELEASE.read_text()), os.uname().release, allow_older=older_allowed())
        require_room(Path(mounted) / Path(parser[IMAGE]["filename"]).name, environment)
        note_coming(coming)
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as e:
        raise refusal("BundleDamaged", f"its manifest can't be read: {e!r}", "make it anew") from e
    except BundleRefused as e:
        raise refusal(e.name, e.text, e.step) from None


def refusal(name: str, text: str, step: str) -> BundleRefused:
    """Write a refusal down, and return it."""
    with contextlib.suppress(OSError):
        RUN.mkdir(exist_ok=True)
        (RUN / "refused").write_text(f"{name}: {text}; {step}\n")
    if name not in UNTOLD:
        tell_centre("system-refused", f"{name}: {text}")
    return BundleRefused(name, text, step)


def note_coming(coming: SystemRelease) -> None:
    """Note which system is to be the next one; of one before it the centre is told no more."""
    for name in ("system-refused", "system-left"):
        tell_centre(name, "")
    with contextlib.suppress(OSError):
        part = COMING.with_name("coming.new")
        with part.open("w") as file:
            file.write(f"{'A' if slot_booted() == 'B' else 'B'} {coming.version}\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(COMING)


def tell_of_last() -> None:
    """Have the centre told of a system that did not become the one that runs; forget the one that did. On trial nothing is known yet."""
    slot, _, version = COMING.read_text().strip().partition(" ") if COMING.exists() else ("", "", "")
    if not slot or (RUN / "trial").exists():
        return
    if slot == slot_booted():
        COMING.unlink()
    else:
        tell_centre("system-left", f"{version} was to be the next system, and {release_of(RELEASE.read_text()).version} runs")


def tell_centre(trouble: str, text: str) -> None:
    """Have the agent tell the centre of a trouble; an empty text: no more."""
    with contextlib.suppress(OSError):
        TOLD.mkdir(mode=0o755, exist_ok=True)
        if text:
            part = TOLD / f".{trouble}"
            part.write_text(f"{text}\n")
            part.replace(TOLD / trouble)
        else:
            (TOLD / trouble).unlink(missing_ok=True)


def parsed(text: str) -> configparser.ConfigParser:
    """Return a bundle's manifest, read as strictly as RAUC reads it. Raises configparser.Error."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",), default_section="")
    parser.read_string(text)
    return parser


def manifest_of(text: str) -> SystemRelease:
    """Return what a bundle's manifest says. Raises configparser.Error or KeyError."""
    return said_by(parsed(text))


def said_by(manifest: configparser.ConfigParser) -> SystemRelease:
    """Return what a parsed manifest says. Raises KeyError."""
    update = manifest["update"]
    return SystemRelease(update["compatible"], update["version"], kernel_in(update.get("build", "")))


def require_plain(sections: set[str], *, hooked: bool) -> None:
    """Raise BundleRefused for a bundle that is more than one system: its programs would run in the one that is good."""
    if hooked or "hooks" in sections or "handler" in sections:
        step = "make it with make bundle: what a system does, it does once it is booted"
        raise BundleRefused("HasPrograms", "it holds programs (hooks or a handler) that would run as root in the system that is good", step)
    if sections != {IMAGE}:
        held = ", ".join(sorted(sections)) or "nothing"
        raise BundleRefused("NotOneSystem", f"it holds {held}, and a slot takes {IMAGE} alone", "make it with make bundle")


def require_room(image: Path, environment: Mapping[str, str]) -> None:
    """Raise BundleRefused for an image that is larger than the slot, as far as RAUC says which one that is."""
    size = image.stat().st_size
    for number in environment.get("RAUC_TARGET_SLOTS", "").split():
        device = environment.get(f"RAUC_SLOT_DEVICE_{number}", "")
        with contextlib.suppress(OSError), open(device, "rb") as slot:
            if size > (room := slot.seek(0, os.SEEK_END)):
                why = f"its system takes {size / MIB:.1f} MiB, and the slot has {room / MIB:.1f}"
                raise BundleRefused("TooLarge", why, "make the system smaller: slots have the size that the card was written with")


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
    if not re.search("[0-9]", coming.version):
        raise BundleRefused("BundleDamaged", f"it says no version: {coming.version!r}", "make it with make bundle")
    if order(coming.version) < order(own.version) and not allow_older:
        raise BundleRefused("OlderSystem", f"it is {coming.version}, and {own.version} runs", "with --allow-older it is taken all the same")


def order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return what versions are ordered by: numbers from left to right; 1.4.0rc1 and 1.4.0.dev3 come before 1.4.0, 1.4.0+2 behind it."""
    out = []
    for word in re.findall(r"[0-9]+|[a-z]+", version.lower()):
        if word[0].isdecimal():
            digits = word.lstrip("0")
            out.append((1, len(digits), digits))  # by length first: a number of any length, and never made an integer
        else:
            out.append((BEFORE.get(word, 0), 0, word if word not in BEFORE else ""))
    return (*out, (0, 0, ""))


def show(*, as_json: bool) -> None:
    """Print what is booted, what is wanted, and the last refusal since the board was booted."""
    slots: Mapping[str, Any] = slot_states()
    own = release_of(RELEASE.read_text())
    refused = (RUN / "refused").read_text().strip() if (RUN / "refused").exists() else ""
    booted = slot_booted()
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
