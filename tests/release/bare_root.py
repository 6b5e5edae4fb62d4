"""`make bare`: the README and the first hour in an empty Debian, pasted block by block by a user without root.

    sudo python3 -m tests.release.bare_root [--folder build/bare] [--keep]

As root: debootstrap, and the README's line for apt-get. Then as an ordinary user: a clone of what is committed here, and every block of
both pages in their order. Nothing of this machine's /dev is seen inside; /proc and /dev/shm are the folder's own, in a name space
that ends with the command. How packages are reached (resolver, certificates, pip's settings) is taken over from this machine.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.house.pages import DOCS, ROOT
from tests.house.pasting import blocks_of, script_of, without

USER = "person"
HOME = f"/home/{USER}"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"  # what Debian gives to a user: without /usr/sbin
CERTIFICATES = "/usr/local/share/certificates.pem"
INSTALL = "sudo apt-get install -y git make gcc python3-dev python3-venv mosquitto"
PAGES = (ROOT / "README.md", DOCS / "first-hour.md")
TAKEN_OVER = ("PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class BareRoot:
    """A Debian in a folder."""

    folder: Path

    def run(self, command: Sequence[str], *, user: str = "root", shown: Path | None = None) -> int:
        """Run a command inside to its end, and return its exit code. shown: also write what it says to this file, as it comes."""
        inside = shlex.quote(str(self.folder))
        mounts = f"mount -t proc proc {inside}/proc && mount -t tmpfs -o mode=1777 tmpfs {inside}/dev/shm"
        as_user = ["runuser", "-u", user, "--"] if user != "root" else []
        home, path = (HOME, PATH) if user != "root" else ("/root", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        clean = ["env", "-i", f"HOME={home}", f"PATH={path}", f"USER={user}", f"PIP_CERT={CERTIFICATES}"]
        clean += [f"{name}={os.environ[name]}" for name in TAKEN_OVER if name in os.environ]
        clean += ["DEBIAN_FRONTEND=noninteractive"] if user == "root" else []
        line = f"{mounts} && exec chroot {inside} {shlex.join([*as_user, *clean, *command])}"
        whole = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", line]
        process = subprocess.Popen(whole, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        with open(shown or os.devnull, "a") as log:
            for said in process.stdout:
                log.write(said)
                log.flush()
                if said.startswith("== ") or shown is None:
                    print(f"     {said.rstrip()}", flush=True)
        return process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make bare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bare", help="where the Debian is made (default: build/bare)")
    parser.add_argument("--suite", default="bookworm", help="which Debian (default: bookworm)")
    parser.add_argument("--keep", action="store_true", help="leave the folder there afterwards")
    args = parser.parse_args(arguments)
    folder: Path = args.folder.resolve()
    if os.geteuid() or shutil.which("debootstrap") is None:
        print("make bare needs root, and debootstrap: sudo apt-get install debootstrap; sudo make bare", file=sys.stderr)
        return 2
    if folder.exists():
        print(f"{folder} is there already: remove it, or name another with --folder", file=sys.stderr)
        return 2
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    log.write_text("")
    root = BareRoot(folder)
    try:
        return pasted(root, args.suite, log)
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)


def pasted(root: BareRoot, suite: str, log: Path) -> int:
    """Make the Debian, paste the pages, and return 0 when all blocks ran."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {text}", flush=True)

    say(f"debootstrap {suite}; everything that is said goes to {log}")
    with log.open("a") as out:
        subprocess.run(["debootstrap", "--variant=minbase", suite, str(root.folder)], check=True, stdout=out, stderr=out)
    take_over(root.folder)
    install = INSTALL.removeprefix("sudo ")
    say(f"as root: {install}")
    made = f"apt-get update -qq && {install} && useradd --create-home --shell /bin/bash {USER}"
    if code := root.run(["sh", "-c", made], shown=log):
        return failed("the line for apt-get", code, log)
    bundle = root.folder / "srv" / "edgeagent.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(bundle)], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    if code := root.run(["chown", "-R", USER, "/srv/edgeagent.git"], shown=log):
        return failed("chown", code, log)
    say(f"as {USER}, without root: git clone, commit {head[:12]}")
    clone = f"cd && git clone --quiet /srv/edgeagent.git edgeagent && cd edgeagent && git checkout --quiet {head}"
    if code := root.run(["bash", "-e", "-c", clone], user=USER, shown=log):
        return failed("git clone", code, log)
    for page in PAGES:
        blocks = blocks_of(page)
        if page.name == "README.md":
            blocks = without(blocks, {INSTALL: "root has done it"})
        say(f"{page.relative_to(ROOT)}: {len(blocks)} blocks")
        script = f"cd ~/edgeagent\n{script_of(blocks)}printf '\\n== the end of %s\\n' {page.name}\n"
        if code := root.run(["bash", "-e", "-c", script], user=USER, shown=log):
            return failed(re.findall(r"^== (.*)$", log.read_text(), re.M)[-1], code, log)
    say("every block of both pages ran")
    return 0


def take_over(folder: Path) -> None:
    """Let the Debian reach packages as this machine does, and start no service while it installs."""
    shutil.copy("/etc/resolv.conf", folder / "etc" / "resolv.conf")
    believed = os.environ.get("PIP_CERT") or ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    shutil.copy(believed, folder / CERTIFICATES.lstrip("/"))
    for settings in sorted(Path("/etc/apt/apt.conf.d").glob("*")):
        if "Acquire::" in settings.read_text():
            shutil.copy(settings, folder / "etc" / "apt" / "apt.conf.d" / settings.name)
    policy = folder / "usr" / "sbin" / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    (folder / "dev" / "shm").mkdir(exist_ok=True)


def failed(what: str, code: int, log: Path) -> int:
    """Say which block ended it, with the end of what was said, and return 1."""
    print(f"FAIL {what} ended with {code}:\n{log.read_text()[-3000:]}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
