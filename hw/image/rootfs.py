"""The system of a board as a folder, and as the squashfs that goes into a slot."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from hw import foreign

from .targets import PRUNED

HERE = Path(__file__).parent
ENABLED = (
    "edgeagent-provision.service", "edgeagent-grow.service", "edgeagent-ssh.socket", "systemd-networkd.service", "systemd-resolved.service",
    "systemd-timesyncd.service",
)  # fmt: skip
# Timers and units that write to what is read-only, or fetch what the image has no source for.
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "systemd-firstboot.service", "systemd-machine-id-commit.service", "systemd-remount-fs.service",
    "systemd-networkd-wait-online.service", "wpa_supplicant.service", "dbus-fi.w1.wpa_supplicant1.service",
)  # fmt: skip


def unpack(tar: Path, out: Path) -> None:
    """Unpack a system; its devices are left out, the kernel makes them."""
    out.mkdir(parents=True)
    _run("tar", "-xf", tar, "-C", out, "--numeric-owner", "--xattrs", "--exclude=./dev/*")


def add_modules(root: Path, kernel: Path, version: str) -> None:
    """Copy the kernel's modules, without the trees that no board here has a use for, and list them anew."""
    source, target = kernel / "lib/modules" / version, root / "lib/modules" / version
    skipped = {source / "kernel" / one for one in PRUNED}
    shutil.copytree(source, target, symlinks=True, ignore=lambda folder, names: [n for n in names if Path(folder, n) in skipped])
    for link in ("build", "source"):
        (target / link).unlink(missing_ok=True)
    _run("depmod", "-b", root, version)


def add_firmware(root: Path, kernel: Path, patterns: Iterable[str]) -> None:
    """Copy what radios ask for. Raises LookupError for a pattern that no file has: a radio would be without."""
    place = kernel / "lib/firmware"
    for pattern in patterns:
        if not (found := sorted(place.glob(pattern))):
            raise LookupError(f"Debian's package no longer has {pattern}; hw/image/targets.py names it")
        for path in found:
            to = root / path.relative_to(kernel)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, to, follow_symlinks=False)


def add_package(root: Path, package: Path, environment: Mapping[str, str]) -> None:
    """Install a Debian package in a system of another architecture. Raises RuntimeError with what dpkg said."""
    folder = root / "var/tmp/package"
    folder.mkdir(parents=True)
    shutil.copy(package, folder / "agent.deb")
    # Nothing is started in a folder; policy-rc.d is Debian's way to say so.
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    done = foreign.run(root, ["dpkg", "-i", "/var/tmp/package/agent.deb"], env=environment, check=False)
    policy.unlink()
    shutil.rmtree(folder)
    if done.returncode:
        raise RuntimeError(f"{package.name} can't be installed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def furnish(root: Path, *, version: str) -> None:
    """Make a Debian system the image's: what is mounted where, what runs, who may log in. Nothing of it is run."""
    shutil.copytree(HERE / "overlay", root, symlinks=True, dirs_exist_ok=True)
    for folder in ("data", "boot/firmware", "var/lib/edgeagent", "var/log/journal", "root"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").write_text("edgeagent\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    _link(root / "etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf")
    _link(root / "var/lib/dbus/machine-id", "/etc/machine-id")
    _link(root / "etc/tmpfiles.d/provision.conf", "/dev/null")  # it would make root's own folder of keys
    _link(root / "root/.ssh", "/run/edgeagent-image/ssh")
    (root / "root").chmod(0o700)
    (root / "etc/issue").write_text("edgeagent image " + version + " \\n \\l\n\n")
    _link(root / "etc/issue.d", "/run/issue.d")  # agetty passes /run/issue.d over where there is an /etc/issue
    for unit in ENABLED:
        _enable(root, unit)
    for unit in MASKED:
        _link(root / "etc/systemd/system" / unit, "/dev/null")
    _no_passwords(root / "etc/shadow")
    for path in ("var/cache/apt", "var/lib/apt/lists", "var/log/apt", "var/cache/debconf", "var/lib/systemd/catalog", "var/cache/ldconfig"):
        shutil.rmtree(root / path, ignore_errors=True)
    for file in (root / "etc/apt/sources.list", *root.glob("etc/apt/sources.list.d/*")):  # the mirror of who made the image
        file.unlink(missing_ok=True)
    for file in (*root.glob("var/log/*.log"), *root.glob("var/lib/dpkg/*-old"), *root.glob("etc/*-"), root / "var/lib/systemd/random-seed"):
        file.unlink(missing_ok=True)
    byte_compile(root)


def byte_compile(root: Path) -> None:
    """Compile all Python once. A board can't write what it compiles, and would do so at each start: half a minute on a slow one.

    What packages have compiled goes by their files' times, which a squashfs of one time has not: it goes by no time and no hash here.
    """
    for folder in list(root.rglob("__pycache__")):
        shutil.rmtree(folder)
    found = next((root / "usr/lib").glob("python3.[0-9]*"))
    words = ["-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash"]
    places = [one for one in (f"usr/lib/{found.name}", "usr/lib/python3", "usr/lib/edgeagent") if (root / one).is_dir()]
    if native := shutil.which(found.name):  # the same minor release writes the same bytes, whatever the processor
        # Some files of a standard library are broken on purpose, for its own tests: what can't be compiled is left as it is.
        line, where = [native, *words, "-s", str(root), "-p", "/"], [str(root / one) for one in places]
        subprocess.run([*line, *where], check=False, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONHASHSEED": "0"})
    else:
        foreign.run(root, ["python3", *words, *(f"/{one}" for one in places)], env={"PYTHONHASHSEED": "0"}, check=False)
    if not any(found.glob("__pycache__/*.pyc")):
        raise RuntimeError(f"{found.name} could not be compiled: apt-get install {found.name}")


def squash(root: Path, out: Path, epoch: int) -> None:
    """Write a folder as a squashfs; the same bytes for the same files."""
    out.unlink(missing_ok=True)
    # Two threads or more put blocks in the same order, by mksquashfs' own promise since 4.4.
    _run("mksquashfs", root, out, "-comp", "zstd", "-Xcompression-level", "9", "-noappend", "-no-progress", "-quiet", "-no-xattrs",
         "-all-time", str(epoch), "-mkfs-time", str(epoch), without="SOURCE_DATE_EPOCH")  # fmt: skip


def _enable(root: Path, unit: str) -> None:
    """Do what `systemctl enable` does with a unit's [Install], where no systemd runs. Raises LookupError for an unknown unit."""
    for folder in ("etc/systemd/system", "lib/systemd/system"):
        path = root / folder / unit
        if path.is_file():
            break
    else:
        raise LookupError(f"the system has no unit {unit}")
    for line in path.read_text().splitlines():
        key, _, value = line.partition("=")
        if key in ("WantedBy", "RequiredBy"):
            for target in value.split():
                kind = "wants" if key == "WantedBy" else "requires"
                _link(root / f"etc/systemd/system/{target}.{kind}" / unit, f"/{folder}/{unit}")
        if key == "Alias":
            _link(root / "etc/systemd/system" / value.strip(), f"/{folder}/{unit}")


def _no_passwords(shadow: Path) -> None:
    """Leave no account a password, not even an empty one: SSH takes keys, and nothing else logs in."""
    rows = [line.split(":") for line in shadow.read_text().splitlines()]
    shadow.write_text("".join(":".join([row[0], "*", *row[2:]]) + "\n" for row in rows))


def _link(path: Path, to: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(to)


def _run(*words: str | Path, without: str = "") -> None:
    """Run a program. without: a variable that it is not to see; mksquashfs takes a time by one way alone."""
    environment = {name: value for name, value in os.environ.items() if name != without}
    done = subprocess.run([str(one) for one in words], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed ({done.returncode}): {(done.stderr or done.stdout).strip()[-2000:]}")
