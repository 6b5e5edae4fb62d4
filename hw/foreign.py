"""Runs a command in a root of another processor, in name spaces of its own: nothing of this machine is changed, nothing stays behind.

    python -m hw.foreign [--bind HOST:INSIDE] [--env NAME=VALUE] [--chdir DIR] [--no-binfmt] ROOT COMMAND...

ROOT is a folder with a whole system in it, of this machine's processor or of arm64 or armhf; `/` is this machine itself, in which then
programs of those two run, too (for mmdebstrap). Inside there are /proc, /sys and a few devices; the network is this machine's. All
that the command started ends with it. Where the kernel lets no user name space have its own binfmt_misc (before 6.7), the emulator is
named outright: one program of the other processor runs, and the programs that it starts do not.

Needs Linux, qemu-user-static for another processor, and root for files of more than one owner. Exit code: the command's; 125 when it
could not be started.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NOT_STARTED = 125  # as docker and chroot have it
CLEAN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
EMULATED_AT = "/dev/.emulator"  # in the folder of devices, which is no part of the root

NEWNS, NEWUSER, NEWPID = 0x00020000, 0x10000000, 0x20000000  # unshare(2)
BIND, REC, PRIVATE, RDONLY, REMOUNT = 0x1000, 0x4000, 0x40000, 0x1, 0x20  # mount(2)
PDEATHSIG = 1  # prctl(2)
ALL_IDS = "0 0 65536\n"

# The head of an ELF program as binfmt_misc compares it: class, byte order, system (any), type (program or shared) and machine.
HEAD = rb"\x7fELF%s\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00%s"
MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


class CannotRun(Exception):
    """A command can't be run in a root: what is in the way, and what to do."""


@dataclass(frozen=True)
class Emulated:
    """A processor whose programs an emulator runs: its name in ELF, in qemu and in Debian."""

    elf: int
    word: bytes  # 32 or 64 bits, in ELF's head
    qemu: str
    debian: str

    def emulator(self) -> Path | None:
        """Return the emulator, linked statically: it must run where none of its libraries are."""
        for folder in os.environ.get("PATH", "").split(":"):
            found = Path(folder or ".", f"qemu-{self.qemu}-static")
            if os.access(found, os.X_OK):
                return found
        return None

    def registered(self) -> bytes | None:
        """Return the line for binfmt_misc, or None where the emulator is not here."""
        keeps_name = Path(f"/usr/libexec/qemu-binfmt/{self.qemu}-binfmt-P")  # Debian's: argv[0] stays as it was typed
        found = keeps_name if keeps_name.exists() else self.emulator()
        if found is None:
            return None
        flags = b"OPF" if found == keeps_name else b"OF"
        head = HEAD % (b"\\x0%d" % self.word[0], b"\\x%02x\\x00" % self.elf)
        return b":edge-%s:M::%s:%s:%s:%s" % (self.qemu.encode(), head, MASK, os.fsencode(found), flags)


@dataclass(frozen=True)
class Start:
    """What is started in a root, and how."""

    words: list[str]
    environment: dict[str, str]
    binds: list[tuple[str, str]]  # from this machine's folders to places inside
    chdir: str
    binfmt: bool  # the kernel is asked to know the emulator; else it is named


AARCH64 = Emulated(183, b"\x02", "aarch64", "arm64")
ARM = Emulated(40, b"\x01", "arm", "armhf")
EMULATED = (AARCH64, ARM)
OWN = {"x86_64": 62, "aarch64": 183, "armv7l": 40}


def run(
    root: Path | str,
    words: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    binds: Mapping[Path, str] | None = None,
    chdir: str = "/",
    timeout: float | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a root to its end, and return what it said (stdout and stderr, as text).

    env: variables beside a clean environment. binds: folders of this machine that are seen inside, by their place there; read and
    written. Raises CannotRun when it could not be started; with check, subprocess.CalledProcessError when it failed.
    """
    done = subprocess.run(
        command(root, words, env=env, binds=binds, chdir=chdir), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
    )
    if done.returncode == NOT_STARTED and done.stderr.startswith("hw.foreign: "):
        raise CannotRun(done.stderr.strip())
    if check and done.returncode:
        raise subprocess.CalledProcessError(done.returncode, [str(word) for word in words], done.stdout, done.stderr)
    return done


def command(
    root: Path | str,
    words: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    binds: Mapping[Path, str] | None = None,
    chdir: str = "/",
) -> list[str]:
    """Return the words that run a command in a root, for a process that outlives the call: subprocess.Popen. When it ends, so does all."""
    said = [sys.executable, "-I", str(Path(__file__).resolve()), "--chdir", chdir]
    said += [word for outside, inside in (binds or {}).items() for word in ("--bind", f"{Path(outside).resolve()}:{inside}")]
    said += [word for name, value in (env or {}).items() for word in ("--env", f"{name}={value}")]
    return [*said, str(root), *map(str, words)]


def obstacle(debian: str) -> str:
    """Return why programs of an architecture, by Debian's name, can't be run here; empty when they can."""
    for kind in EMULATED:
        if kind.debian == debian and kind.elf != OWN.get(os.uname().machine) and kind.emulator() is None:
            return f"no qemu-{kind.qemu}-static here: apt-get install qemu-user-static"
    try:
        run("/", ["/bin/true"], timeout=60)
    except (CannotRun, subprocess.SubprocessError) as error:
        return str(error)
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="hw.foreign", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bind", action="append", default=[], metavar="HOST:INSIDE", help="a folder of this machine, seen inside")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable beside a clean environment")
    parser.add_argument("--chdir", default="/", metavar="DIR", help="where the command starts, inside (default: /)")
    parser.add_argument("--no-binfmt", action="store_true", help="name the emulator outright, as where the kernel refuses the rest")
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    args = parser.parse_args(arguments)
    if not args.words:
        parser.error("no command to run")
    environment = dict(os.environ) if args.root == Path("/") else dict(CLEAN)
    environment |= dict(pair.partition("=")[::2] for pair in args.env)
    binds = [pair.partition(":")[::2] for pair in args.bind]
    try:
        return _apart(args.root.resolve(), Start(args.words, environment, binds, args.chdir, not args.no_binfmt))
    except (OSError, CannotRun) as error:
        print(f"hw.foreign: {error}", file=sys.stderr)
        return NOT_STARTED


def _apart(root: Path, start: Start) -> int:
    """Run the command two processes down: the first has name spaces of its own, the second is process 1 there, and waits."""
    machine = machine_of(root)
    asks, tells = os.pipe(), os.pipe()
    outer = os.getpid()
    apart = os.fork()
    if apart == 0:
        os.close(asks[0])
        os.close(tells[1])
        with _SayingWhatFailed():
            _call("unshare", NEWUSER | NEWNS | NEWPID)
            os.write(asks[1], b"x")
            if os.read(tells[0], 1) != b"x":
                os._exit(NOT_STARTED)
            os.setgid(0)
            os.setuid(0)
            _die_with(outer)
            first = os.fork()
            if first == 0:
                _die_with(0)
                os._exit(_as_first(root, machine, start))
            os._exit(_waited(first))
    os.close(asks[1])
    os.close(tells[0])
    if os.read(asks[0], 1) == b"x":  # else it has said why
        _map_ids(apart)
        os.write(tells[1], b"x")
    return _waited(apart)


def _as_first(root: Path, machine: int, start: Start) -> int:
    """Furnish the root, start the command in it, and gather what it leaves; all the rest ends with process 1."""
    with _SayingWhatFailed():
        _mount("none", "/", "", REC | PRIVATE)
        words = _emulate(machine, start, root)
        if root != Path("/"):
            _furnish(root)
        for outside, place in start.binds:
            _bind(Path(outside), root / place.lstrip("/"))
        if root == Path("/"):
            _mount("proc", "/proc", "proc")
        else:
            os.chroot(root)
        os.chdir(start.chdir)
        started = os.fork()
        if started == 0:
            with _SayingWhatFailed():
                os.execvpe(words[0], words, start.environment)
    while True:
        ended, status = os.wait()
        if ended == started:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def machine_of(root: Path) -> int:
    """Return the processor that a root is for, as ELF numbers it, by its shell. Raises CannotRun for no root, or an unknown one."""
    shell = inside(root, "/bin/sh")
    try:
        head = shell.read_bytes()[:20]
    except OSError as error:
        raise CannotRun(f"{root} holds no system that could be run: no /bin/sh in it ({error.strerror})") from None
    if head[:4] != b"\x7fELF":
        raise CannotRun(f"{root} holds no system that could be run: its /bin/sh is no ELF program")
    return int(struct.unpack_from("<H", head, 18)[0])


def inside(root: Path, path: str) -> Path:
    """Return where a path of a root lies here: its links lead within the root, not into this machine."""
    at, left, steps = root, path.strip("/").split("/"), 0
    while left:
        step, left = left[0], left[1:]
        if step in ("", "."):
            continue
        if step == "..":
            at = at if at == root else at.parent
            continue
        if (at / step).is_symlink():
            steps += 1
            if steps > 40:
                raise CannotRun(f"{root}: {path} is a circle of links")
            leads = os.readlink(at / step)
            at = root if leads.startswith("/") else at
            left = [*leads.strip("/").split("/"), *left]
        else:
            at = at / step
    return at


def _emulate(machine: int, start: Start, root: Path) -> list[str]:
    """Let this name space run programs of other processors; return the words to run, behind an emulator where the kernel knows none."""
    lines = {kind: line for kind in EMULATED if kind.elf != OWN.get(os.uname().machine) and (line := kind.registered())}
    needed = next((kind for kind in EMULATED if kind.elf == machine != OWN.get(os.uname().machine)), None)
    if needed is not None and needed not in lines:
        raise CannotRun(f"{root} is for {needed.debian}: apt-get install qemu-user-static")
    if needed is None and machine != OWN.get(os.uname().machine):
        raise CannotRun(f"{root} is for a processor that nothing here emulates (ELF machine {machine}); arm64 and armhf are known")
    try:
        if not start.binfmt:
            raise PermissionError
        _mount("binfmt_misc", "/proc/sys/fs/binfmt_misc", "binfmt_misc")
        for line in lines.values():
            with open("/proc/sys/fs/binfmt_misc/register", "wb", buffering=0) as file:
                file.write(line)
    except OSError:
        if needed is not None:
            return [EMULATED_AT, _found(start.words[0], root), *start.words[1:]]
    return start.words


def _found(program: str, root: Path) -> str:
    """Return a program by its whole path, for an emulator that asks no PATH."""
    if "/" in program:
        return program
    for folder in CLEAN["PATH"].split(":"):
        if inside(root, f"{folder}/{program}").exists():
            return f"{folder}/{program}"
    raise CannotRun(f"{root} holds no program {program}")


def _furnish(root: Path) -> None:
    """Mount what programs look for: processes, what the kernel says of the hardware, a few devices, memory to share."""
    for folder in ("proc", "sys", "dev"):
        (root / folder).mkdir(exist_ok=True)
    try:
        _mount("proc", str(root / "proc"), "proc")
    except OSError:  # in a container whose /proc is partly hidden
        _mount("/proc", str(root / "proc"), "", BIND | REC)
    _mount("/sys", str(root / "sys"), "", BIND | REC)
    _mount("tmpfs", str(root / "dev"), "tmpfs", 0, "mode=755")
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            (root / "dev" / name).touch()
            _mount(f"/dev/{name}", str(root / "dev" / name), "", BIND)
    for name, leads in LINKS.items():
        (root / "dev" / name).symlink_to(leads)
    (root / "dev" / "shm").mkdir()
    _mount("tmpfs", str(root / "dev" / "shm"), "tmpfs", 0, "mode=1777")
    machine = machine_of(root)
    for kind in EMULATED:
        if kind.elf == machine and (emulator := kind.emulator()):
            (root / EMULATED_AT.lstrip("/")).touch()
            _mount(str(emulator), str(root / EMULATED_AT.lstrip("/")), "", BIND)


def _bind(outside: Path, place: Path) -> None:
    if not outside.exists():
        raise CannotRun(f"there is no {outside} to be seen inside")
    if outside.is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    _mount(str(outside), str(place), "", BIND | REC)


def _map_ids(process: int) -> None:
    """Give a process's user name space all owners of a root; without root here only one, who is root there."""
    if os.geteuid() == 0:
        for kind in ("uid", "gid"):
            Path(f"/proc/{process}/{kind}_map").write_text(ALL_IDS)
        return
    Path(f"/proc/{process}/setgroups").write_text("deny")
    Path(f"/proc/{process}/uid_map").write_text(f"0 {os.geteuid()} 1\n")
    Path(f"/proc/{process}/gid_map").write_text(f"0 {os.getegid()} 1\n")


class _SayingWhatFailed:
    """A block in a forked process, which says what went wrong and ends: no exception climbs into its parent's frames."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            os.write(2, f"hw.foreign: {error}\n".encode())
            os._exit(NOT_STARTED)


def _waited(process: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code if code >= 0 else 128 - code


def _die_with(parent: int) -> None:
    """End with the process above, whatever ends it. parent: its number, to see whether it went before; 0 where it can't be told."""
    _call("prctl", PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if parent and os.getppid() != parent:
        os._exit(NOT_STARTED)


def _mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode() or None, flags, options.encode() or None)


def _call(name: str, *arguments: int | bytes | None) -> None:
    """Call a function of libc that Python has not. Raises OSError with the call in it."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        number = ctypes.get_errno()
        shown = ", ".join(one.decode() if isinstance(one, bytes) else hex(one) for one in arguments if one)
        raise OSError(number, f"{name}({shown}): {os.strerror(number)}")


if __name__ == "__main__":
    raise SystemExit(main())
