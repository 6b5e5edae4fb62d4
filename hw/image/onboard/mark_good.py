#!/usr/bin/python3
"""Calls the booted system good once it has shown that it is: its agent runs and is well, and the centre has answered since this boot.

    mark-good wait       after the agent's start: wait for both, then tell RAUC
    mark-good overdue    ten minutes after the boot: a system that is still on trial is left by a reboot, which costs it a try

A slot that was good before stays good, whatever the broker does: both do nothing then. It stands alone: the image holds it as
/usr/lib/edgeagent-image/mark-good.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RUN = Path("/run/edgeagent-image")
BOOT = Path("/proc/sys/kernel/random/boot_id")
FOLDER = "/var/lib/edgeagent/agent"
SLOTS = "/usr/lib/edgeagent-image/slots"
CONSOLE = Path("/dev/console")
USER = "edgeagent"
PAUSE = 10.0  # seconds between two looks: each starts a Python on a slow board
PATIENCE = 300.0  # seconds that one look may take
# What `edgeagent doctor` finds of the board itself. The rest is about the broker, the centre, and the clock.
OWN = ("kernels", "runtime", "settings", "key", "state", "disk", "model", "unseen")


def main(words: list[str]) -> int:
    if not (RUN / "trial").exists():
        return 0
    if os.geteuid():
        print("mark-good: root alone calls a system good", file=sys.stderr)
        return 1
    match words:
        case ["wait"]:
            wait()
        case ["overdue"]:
            say("this system was not called good within ten minutes: the board starts again, and the slot has one try less")
            subprocess.run(["systemctl", "reboot"], check=True)  # where that fails, the unit's failure starts the board anew
        case _:
            print("mark-good: one of wait, overdue", file=sys.stderr)
            return 2
    return 0


def wait() -> None:
    """Wait until the system has shown that it is good, and tell RAUC. Ends with the unit: the timer is what gives up."""
    last = ""
    while why := lacking():
        if why != last:
            say(f"on trial: {why}")
            last = why
        time.sleep(PAUSE)
    subprocess.run(["rauc", "status", "mark-good"], check=True)
    (RUN / "trial").unlink(missing_ok=True)
    slot = (RUN / "slot").read_text().strip()
    say(f"slot {slot} is good: the agent runs, its self-test passed, the centre has answered")


def lacking() -> str:
    """Return what is still missing for the system to be good; empty when nothing is."""
    if subprocess.run(["systemctl", "is-active", "--quiet", "edgeagent.service"], check=False).returncode:
        return "the agent does not run"
    said = asked("status")
    if said is None:
        return "edgeagent status does not answer"
    if said.get("answered_in_boot") != BOOT.read_text().strip():
        return "the centre has not answered since this boot"
    return "; ".join(faults(asked("doctor")))


def faults(said: dict[str, Any] | None) -> list[str]:
    """Return what the agent's doctor finds wrong with the board itself."""
    if said is None:
        return ["edgeagent doctor does not answer"]
    checks = said.get("checks")
    if not isinstance(checks, list) or not checks:
        return [f"edgeagent doctor found out nothing: {str(said)[:200]}"]
    return [f"{one.get('what')}: {one.get('text')}" for one in checks if one.get("key") in OWN and one.get("ok") is False]


def asked(command: str) -> dict[str, Any] | None:
    """Return what a command of the agent says, asked as its user; None where it says nothing."""
    words = ["/usr/bin/edgeagent", command, "--json", "--dir", FOLDER]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False, user=USER, group=USER, extra_groups=[])
        said = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        print(f"edgeagent {command} took longer than {PATIENCE:.0f} s", flush=True)
        return None
    except (OSError, ValueError) as error:
        last = done.stderr.strip().splitlines()[-1:] if isinstance(error, ValueError) else [str(error)]
        print(f"edgeagent {command} said no JSON: {' '.join(last)}", flush=True)
        return None
    return said if isinstance(said, dict) else None


def say(text: str) -> None:
    """Say something in the journal and on the console."""
    print(f"edgeagent-mark-good: {text}", flush=True)
    with contextlib.suppress(OSError), CONSOLE.open("w") as console:
        console.write(f"\redgeagent-mark-good: {text}\r\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
