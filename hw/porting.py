"""Installs from hw/porting.md into an empty root, by the page's own commands, and looks whether the root is what the page says.

    python -m hw.porting [--arch amd64|arm64] [--here] [--folder build/hw/porting] [--keep]

Every block of the page is run as it stands: those before "First start" on this machine, for the target; those of "First start" in a
Debian of the target's processor (hw.roots) with what was installed laid over it, as the agent's user, with nothing writable but its folder
and memory; there it tries a round of training, too. That needs root. With --here the agent of this machine's own processor starts from its
root under this Python.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from hw import foreign, roots
from tests.house.pages import ROOT, section
from tests.house.pasting import Block, blocks_of, paste, script_of
from tests.release import facts
from tests.release.__main__ import digests
from tests.release.supply import GLIBC

PAGE = ROOT / "hw" / "porting.md"
SITE = "/usr/lib/python3/dist-packages"  # where the Python of a Debian looks; other systems have it in /usr/lib/python3.X/site-packages
CROSS, START = "For another processor", "First start"
THIS = "$ make porting"
STATE = "/var/lib/edgeagent"
SHOWN = ("kernels", "runtime", "key", "state", "digits")  # of a doctor's checks, those that are printed here
BROKER, NOBODY = "192.0.2.10", "127.0.0.1:9"  # the page's broker, and a port of this machine on which nobody listens


class NotAsThePageSays(Exception):
    """A command of the page failed, or what came of it is not what the page says."""


@dataclass(frozen=True)
class Target:
    """A processor that the page is tried for, by Debian's name."""

    arch: str
    machine: str  # as uname -m says
    triplet: str  # of its compiler

    @property
    def foreign(self) -> bool:
        return self.machine != platform.machine()


TARGETS = {
    target.arch: target for target in (Target("amd64", "x86_64", "x86_64-linux-gnu"), Target("arm64", "aarch64", "aarch64-linux-gnu"))
}


def main(arguments: Sequence[str] | None = None) -> int:
    own = next((arch for arch, target in TARGETS.items() if not target.foreign), None)
    parser = argparse.ArgumentParser(prog="python -m hw.porting", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=sorted(TARGETS), default=own, required=own is None, help="the target (default: this machine's)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/hw/porting", help="where it is done (default: build/hw/porting)")
    parser.add_argument("--here", action="store_true", help="no Debian and no root: start it from its root under this Python")
    parser.add_argument("--keep", action="store_true", help="leave the folder there afterwards")
    args = parser.parse_args(arguments)
    folder = args.folder.resolve() / args.arch
    if args.here and TARGETS[args.arch].foreign:
        parser.error("--here is for this machine's own processor")
    if not args.here and os.geteuid():
        parser.error("a Debian has files of more than one owner: run it as root, or with --here")
    try:
        ported(TARGETS[args.arch], folder, here=args.here)
    except (NotAsThePageSays, foreign.CannotRun, subprocess.CalledProcessError) as error:
        print(f"FAIL {error}", file=sys.stderr)
        return 1
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def ported(target: Target, folder: Path, *, here: bool) -> int:
    """Go the way of the page for one processor, in a folder that is made anew, and say each step. Returns how many files are installed.

    here: start it under this Python. Raises NotAsThePageSays, and CannotRun where there can be no Debian of that processor.
    """
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {text}", flush=True)

    shutil.rmtree(folder, ignore_errors=True)
    (folder / "sources").mkdir(parents=True)
    archive = sources(folder)
    say(f"{archive.name}, {archive.stat().st_size:,} bytes")
    root = folder / "root"
    install(target, folder, root)
    count = as_listed(root)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    say(f"installed for {target.machine}: {count} files, {size:,} bytes, all of them listed on the page")
    say(start_here(folder, root) if here else start_there(target, folder, root))
    return count


# The sources, and the page's commands for them


def sources(folder: Path) -> Path:
    """Make the source distribution of what git tracks, and its digest beside it, as a release has them. Returns the archive."""
    tree = folder / "tree"
    copy_sources(tree)
    into = folder / "sources"
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(into)], cwd=tree, check=True, capture_output=True, timeout=300
    )
    shutil.rmtree(tree)
    (archive,) = into.glob("*.tar.gz")
    (into / "SHA256SUMS").write_text(digests(archive))
    return archive


def copy_sources(into: Path) -> None:
    """Copy what git tracks, as it stands here, into a folder; of a source distribution, what it says that it holds."""
    said = ROOT / "edgeagent.egg-info" / "SOURCES.txt"
    for name in facts.tracked() if (ROOT / ".git").exists() else said.read_text().splitlines():
        if (ROOT / name).exists():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / name)


def commands(text: str, *, cross: bool) -> list[Block]:
    """Return the page's blocks for this machine, in their order. cross: those for another processor are among them."""
    out = []
    for block in blocks_of(PAGE):
        heading = re.findall(r"^#+ (.*)$", "\n".join(text.splitlines()[: block.line]), re.M)[-1]
        if heading != START and (cross or heading != CROSS) and THIS not in f"$ {block.text}":
            out.append(block)
    return out


def install(target: Target, folder: Path, root: Path) -> None:
    """Run the page's commands for an empty root."""
    root.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "_PYTHON", "EDGE"))}
    told = {"DESTDIR": str(root), "SITE": SITE, "HOSTPYTHON": sys.executable, "SOURCE_DATE_EPOCH": "1700000000"}
    if target.foreign:
        told |= cross_variables(target)
    said = folder / "said"
    script = script_of(commands(PAGE.read_text(), cross=target.foreign))
    code = paste(f"set -u\n{script}", folder=folder / "sources", said=said, environment={**clean, **told}, seconds=900)
    if code:
        raise NotAsThePageSays(f"a command of the page ended with {code}:\n{said.read_text()[-3000:]}")


def cross_variables(target: Target) -> dict[str, str]:
    """Return what the page says that a build system sets for another processor, from Debian's packages of it."""
    python = f"python3.{sys.version_info.minor}"
    if shutil.which(f"{target.triplet}-gcc") is None:
        raise NotAsThePageSays(f"there is no {target.triplet}-gcc here: apt-get install gcc-{target.triplet}")
    packages = [f"lib{python}-dev", f"lib{python}-stdlib"]
    headers = roots.sysroot(target.arch, packages)
    data = headers / "usr" / "lib" / python / f"_sysconfigdata__{target.triplet}.py"
    # Beside what is included alone: on this search path the C library's headers would be taken for the compiler's own.
    alone = roots.cache() / "headers" / f"{target.arch}-{python}"
    with roots.one_at_a_time(alone):
        if not alone.exists():
            part = alone.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(headers / "usr" / "include" / python, part / python)
            shutil.copytree(headers / "usr" / "include" / target.triplet / python, part / target.triplet / python)
            (part / "data").mkdir()
            shutil.copy(data, part / "data")
            part.rename(alone)
    return {
        "TRIPLET": target.triplet, "ARCH": target.machine, "SYSCONFIG": str(alone / "data"), "SYSCONFIGDATA": data.stem,
        "PYTHON_INCLUDES": f"-I{alone / python} -I{alone}",
    }  # fmt: skip


# What the root holds


def listed(text: str) -> list[str]:
    """Return the lines of the page's list of files: paths, or folders with a slash at their end; * stands for any name."""
    (block,) = re.findall(r"^```text\n(.*?)^```", section(text, "What the root holds then"), re.M | re.S)
    return [line.replace("$SITE", SITE) for line in block.splitlines()]


def strangers(files: Iterable[str], lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the files that no line of the list covers, and the lines that cover no file."""
    unlisted, covered = [], set()
    for file in files:
        covering = {line for line in lines if fnmatch.fnmatchcase(file, f"{line}*" if line.endswith("/") else line)}
        covered |= covering
        if not covering:
            unlisted.append(file)
    return sorted(unlisted), [line for line in lines if line not in covered]


def as_listed(root: Path) -> int:
    """Return how many files the root holds. Raises NotAsThePageSays unless they are those that the page lists."""
    files = [f"/{path.relative_to(root)}" for path in root.rglob("*") if path.is_symlink() or not path.is_dir()]
    unlisted, absent = strangers(files, listed(PAGE.read_text()))
    if unlisted or absent:
        raise NotAsThePageSays(f"not on the page's list: {unlisted[:10]}; on it and not there: {absent}")
    return len(files)


# The agent in it


def to_start_with(folder: Path) -> Path:
    """Return a folder with what a board is given: the fleet's public key, a base model, and samples of an application."""
    given = folder / "given"
    given.mkdir()
    subprocess.run([sys.executable, "-m", "edgecloud", "init", "--fleet", "home"], cwd=given, check=True, capture_output=True)
    for path in given.iterdir():
        if path.name != "fleet.pub":
            path.unlink() if path.is_file() else shutil.rmtree(path)
    shutil.copy(ROOT / "tests" / "models" / "digits.tflite", given)
    seen = numpy.load(ROOT / "tests" / "models" / "data" / "digits.npz")
    numpy.savez(given / "samples.npz", x=seen["train_x"][:200].reshape(200, -1) / numpy.float32(16), y=seen["train_y"][:200])
    return given


def first_start(text: str, *, broker: str) -> list[str]:
    """Return the page's commands for the target itself, with a broker of this machine in the place of the page's."""
    lines = re.findall(r"^\$ (.*)$", section(text, START), re.M)
    return [line.replace(BROKER, broker) for line in lines]


def well(report: Mapping[str, object]) -> str:
    """Return what a doctor's report says of the board itself. Raises NotAsThePageSays when something but the broker is wrong."""
    checks = report["checks"]
    assert isinstance(checks, list)
    wrong = [check for check in checks if check["ok"] is False and not check["what"].startswith("broker ")]
    if wrong or not checks:
        raise NotAsThePageSays(f"edgeagent doctor: {wrong}")
    return f"doctor: {', '.join(check['what'] for check in checks if check['ok'] and check['what'] in SHOWN)} ok"


def start_here(folder: Path, root: Path) -> str:
    """Start the agent from the root under this Python, with what this one's environment has of other packages."""
    given = to_start_with(folder)
    home = folder / "home"
    site = root / SITE.lstrip("/")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(site), "OPENBLAS_NUM_THREADS": "1"}
    where = subprocess.run(
        [sys.executable, "-c", "import edgeagent, modelwire; print(edgeagent.__file__, modelwire.__file__)"],
        cwd=given, env=environment, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    if not all(path.startswith(str(site)) for path in where):
        raise NotAsThePageSays(f"it would not start from the root but from {where}")
    report: dict[str, Any] = {}
    for line in first_start(PAGE.read_text(), broker=NOBODY):
        words = line.replace(STATE, str(home)).split()[1:]
        doctor = words[0] == "doctor"
        command = [sys.executable, "-m", "edgeagent", *words, *["--json"] * doctor]
        done = subprocess.run(command, cwd=given, env=environment, check=False, capture_output=True, text=True, timeout=300)
        if done.returncode and not doctor:
            raise NotAsThePageSays(f"{line}: {done.stderr or done.stdout}")
        report = json.loads(done.stdout) if doctor else report
    return f"started under this Python {sysconfig.get_python_version()}: {well(report)}"


def system_with(target: Target, folder: Path, root: Path) -> Path:
    """Return a Debian of the target's processor with the pinned packages of others, and over it what the page installed.

    Of the two runtimes an emulated processor gets tflite-runtime: qemu-user 7.2 dies when LiteRT 2.3 opens a model.
    """
    system = roots.unpacked(roots.archive(target.arch), folder / "system")
    minor = f"3.{sys.version_info.minor}"
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
        "--target", str(system / SITE.lstrip("/")), "--python-version", minor,
        "--implementation", "cp", "--only-binary", ":all:", "--require-hashes",
        "-r", str(ROOT / "deploy" / "constraints" / f"{'edge-tflite' if target.foreign else 'edge-litert'}.txt"),
    ]  # fmt: skip
    command += [word for glibc in GLIBC for word in ("--platform", f"manylinux{glibc}_{target.machine}")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise NotAsThePageSays(f"the packages that it stands on can't be had: {done.stderr[-1000:]}")
    shutil.copytree(root, system, dirs_exist_ok=True, symlinks=True)
    return system


def start_there(target: Target, folder: Path, root: Path) -> str:
    """Start the agent in a Debian of its processor, as its own user, where only its folder and memory may be written, and try to train."""
    system, given = system_with(target, folder, root), to_start_with(folder)
    (user,) = re.findall(r"^u (\S+)", (root / "usr/lib/sysusers.d/edgeagent.conf").read_text(), re.M)
    foreign.run(system, ["useradd", "--system", "--home-dir", STATE, "--create-home", user])
    state, memory = folder / "state", folder / "memory"
    memory.mkdir()
    memory.chmod(0o1777)
    shutil.move(system / STATE.lstrip("/"), state)
    (system / STATE.lstrip("/")).mkdir()
    (system / "given").mkdir()
    script = "set -e\n" + "\n".join(line for line in first_start(PAGE.read_text(), broker=NOBODY) if " doctor " not in line)
    script += f"\nedgeagent samples add digits samples.npz --dir {STATE}/agent\nedgeagent measure --dir {STATE}/agent >&2\n"
    doctor = f"edgeagent doctor --json --dir {STATE}/agent"
    binds = {given: "/given", state: STATE, memory: "/tmp"}
    words = ["runuser", "-u", user, "--", "sh", "-c"]
    began = time.monotonic()
    done = read_only(system, [*words, script], binds)
    if done.returncode:
        raise NotAsThePageSays(f"in the root: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    said = read_only(system, [*words, doctor], binds)
    print("".join(f"         {line}\n" for line in done.stderr.splitlines()), end="")
    seconds = time.monotonic() - began
    return f"started in a Debian for {target.machine}, each mode of training tried, {seconds:.0f} s; {well(json.loads(said.stdout))}"


def read_only(system: Path, words: Sequence[str], binds: Mapping[Path, str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a root that is mounted to be read, with some folders that may be written."""
    here = shlex.quote(str(system))
    mounts = f"mount --bind {here} {here} && mount -o remount,bind,ro {here}"
    inside = shlex.join(foreign.command(system, words, binds=binds, chdir="/given", env={"OPENBLAS_NUM_THREADS": "1"}))
    whole = ["unshare", "--mount", "sh", "-c", f"{mounts} && exec {inside}"]
    return subprocess.run(whole, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800, check=False)


if __name__ == "__main__":
    raise SystemExit(main())
