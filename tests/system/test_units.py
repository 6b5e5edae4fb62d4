"""Both services under a real systemd: ready, watched, started again; and the centre's page, typed there."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import broker
from tests.house.pages import DOCS, console_lines
from tests.system.machine import PROJECT, Machine, machine, missing
from tests.worlds import world

pytestmark = [pytest.mark.skipif(broker.program() is None, reason=broker.MISSING)]

AGENT, INGESTER = "edgeagent.service", "edgecloud-ingest.service"
WATCHDOG = 10  # seconds; a machine that is busy with other tests must not be taken for one that hangs
AGAIN = 60.0  # seconds in which a board publishes again
QUICK = {
    "link.resend": "1s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "train.epochs": "1", "train.margin": "1000",
    "train.every": "1s",
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Iterator[tuple[Machine, broker.Mosquitto]]:
    if why := missing():
        pytest.skip(why)
    with broker.mosquitto(tmp_path) as b, machine(tmp_path) as m:
        yield m, b


def typed(m: Machine, text: str) -> str:
    """Type lines as a person would, in a clone of the repository."""
    return m.run(f"cd {PROJECT}\n{text}")


def set_up_centre(m: Machine, b: broker.Mosquitto, *, watchdog: int = 0) -> None:
    """Type the sections on registry and ingester."""
    lines = console_lines(DOCS / "centre.md")
    begin, end = lines.index(next(x for x in lines if " init " in x)), lines.index("systemctl status edgecloud-ingest")
    quick(m, INGESTER, watchdog)
    small_disk(m, "edgecloud")
    typed(m, "\n".join(lines[begin : end + 1]).replace("1883", str(b.port)))


def quick(m: Machine, unit: str, watchdog: int) -> None:
    """Let systemd start a unit again at once. watchdog: seconds that it waits for a sign of life; 0: as long as the unit says."""
    watched = f"WatchdogSec={watchdog}\n" if watchdog else ""
    m.put(f"/etc/systemd/system/{unit}.d/quick.conf", f"[Service]\nRestartSec=1s\n{watched}".encode())


def small_disk(m: Machine, user: str) -> None:
    """Give the folder of a service a disk of its own, small enough to be filled."""
    m.run(f"mount -t tmpfs -o mode=750,size=24m {user} /var/lib/{user} && chown {user}:{user} /var/lib/{user}")


def fill(m: Machine, user: str) -> None:
    """Fill the disk, again where a service gave back what it can spare."""
    m.run(f"cat /dev/zero > /var/lib/{user}/filler 2> /dev/null || true")


def set_up_board(m: Machine, b: broker.Mosquitto, *, watchdog: int = 0) -> None:
    """Make a board that trains again and again, let it in as the centre's page says, and start its service from the page's unit."""
    world_ = world("digits", 0)
    x, y = world_.stream(0, 96)
    held = io.BytesIO()
    np.savez(held, x=x, y=y)
    m.put("/tmp/samples.npz", held.getvalue())
    small_disk(m, "edgeagent")
    m.run(f"install -m 644 /var/lib/edgecloud/fleet.pub {PROJECT}/tests/models/digits.tflite /var/lib/edgeagent/")
    settings = " ".join(f"--set {name}={value}" for name, value in QUICK.items())
    made = m.run(
        "cd /var/lib/edgeagent && sudo -u edgeagent /opt/edgeagent/bin/edgeagent init --dir agent --device pi-7 --fleet home"
        f" --broker {b.url} --fleet-key fleet.pub --model digits=digits.tflite {settings}"
    )
    fingerprint = re.search(r"fingerprint +([-0-9a-f]+)", made)
    assert fingerprint, made
    m.run("sudo -u edgeagent /opt/edgeagent/bin/edgeagent samples add digits /tmp/samples.npz --dir /var/lib/edgeagent/agent")
    quick(m, AGENT, watchdog)
    typed(m, f"cp deploy/{AGENT} /etc/systemd/system/ && systemctl daemon-reload && systemctl enable --now edgeagent")
    (let_in,) = re.findall(r"^ {4}(sudo .* devices add .*)$", (DOCS / "centre.md").read_text(), re.M)
    let_in = let_in.replace("FINGERPRINT", fingerprint.group(1))
    m.until("its key waits", lambda: m.try_run(let_in).returncode == 0)


def stored(m: Machine) -> int:
    """Return how many updates the ingester has stored since it was started, as `systemctl status` tells it."""
    said = re.search(r"(\d+) stored", m.of_unit(INGESTER, "StatusText"))
    return int(said.group(1)) if said else 0


def newest(m: Machine) -> int:
    """Return the newest version that the centre holds."""
    rows = json.loads(m.run("sudo -u edgecloud /opt/edgecloud/bin/edgecloud log pi-7 --json --db /var/lib/edgecloud/fleet.db"))
    return max((int(row["version"]) for row in rows["versions"]), default=0)


def exact(m: Machine) -> None:
    """See that every version is exact, and that nothing in the registry's folder is another user's than the service's."""
    said = m.run("sudo -u edgecloud /opt/edgecloud/bin/edgecloud verify --all --db /var/lib/edgecloud/fleet.db")
    assert re.search(r"^(\d+) of \1 versions exact|versions exact, \d+ waiting", said, re.M), said
    assert m.run("find /var/lib/edgecloud ! -user edgecloud").split() == []


@pytest.mark.slow("starts a systemd and two services", seconds=30)
def test_both_services_are_ready_say_what_they_do_wait_for_a_broker_and_start_again(here: tuple[Machine, broker.Mosquitto]) -> None:
    m, b = here
    b.kill()
    set_up_centre(m, b)  # `systemctl start` of a service that notifies returns when it is ready
    assert m.of_unit(INGESTER, "ActiveState") == "active"
    m.until("it says what it waits for", lambda: m.of_unit(INGESTER, "StatusText").startswith(f"waits for {b.url}"))
    b.start()
    m.until("it listens", lambda: m.of_unit(INGESTER, "StatusText").startswith(f"listens at {b.url}"))
    set_up_board(m, b)
    assert m.of_unit(AGENT, "ActiveState") == "active"
    m.until("an update comes", lambda: stored(m) > 0)
    m.until("it says what it does", lambda: bool(re.match(rf"connected to {b.url}; digits@\d+", m.of_unit(AGENT, "StatusText"))))
    served = m.run("find /var/lib/edgeagent -name served.tflite").strip()
    for group, may in (("edgeagent", True), ("nogroup", False)):
        read = m.try_run(f"setpriv --reuid=nobody --regid={group} --clear-groups cat {served} > /dev/null")
        assert (read.returncode == 0) is may, f"an application of the group reads the served model, and nobody else: {read.stderr}"
    assert m.run("find /var/lib/edgeagent -name '*.key' -perm /077") == ""
    b.kill()
    m.until("it says what it waits for", lambda: m.of_unit(AGENT, "StatusText").startswith(f"waits for {b.url}: "))
    assert m.of_unit(AGENT, "NRestarts") == m.of_unit(INGESTER, "NRestarts") == "0"
    m.run(f"systemctl stop {AGENT} {INGESTER}")
    assert m.of_unit(AGENT, "Result") == m.of_unit(INGESTER, "Result") == "success"
    exact(m)
    a_wrong_setting_is_not_tried_again_and_a_file_that_is_not_there_yet_is(m)


def a_wrong_setting_is_not_tried_again_and_a_file_that_is_not_there_yet_is(m: Machine) -> None:
    folder = "/var/lib/edgeagent/agent"
    m.run(f"echo 'colour = \"red\"' | cat - {folder}/edgeagent.toml > {folder}/wrong.toml")
    m.run(f"mv {folder}/edgeagent.toml {folder}/right.toml; mv {folder}/wrong.toml {folder}/edgeagent.toml")
    assert m.try_run(f"systemctl start {AGENT}").returncode != 0
    m.until("it is given up", lambda: m.of_unit(AGENT, "ActiveState") == "failed")
    assert (m.of_unit(AGENT, "ExecMainStatus"), m.of_unit(AGENT, "NRestarts")) == ("11", "0")
    m.run(f"mv {folder}/right.toml {folder}/edgeagent.toml; mv {folder}/device.key {folder}/away.key; systemctl start --no-block {AGENT}")
    m.until("it is tried again", lambda: int(m.of_unit(AGENT, "NRestarts")) >= 2)
    m.run(f"mv {folder}/away.key {folder}/device.key")
    m.until("it serves without a hand", lambda: m.of_unit(AGENT, "ActiveState") == "active")
    m.run(f"systemctl stop {AGENT}; mv {folder}/edgeagent.toml {folder}/away.toml; systemctl start {AGENT}")
    assert (m.of_unit(AGENT, "ActiveState"), m.of_unit(AGENT, "ConditionResult")) == ("inactive", "no"), "no settings yet is no fault"


@pytest.mark.slow("starts a systemd and lets its watchdog end two services", seconds=45)
def test_a_service_that_is_stuck_is_ended_and_started_again_and_loses_nothing(here: tuple[Machine, broker.Mosquitto]) -> None:
    m, b = here
    set_up_centre(m, b, watchdog=6)
    set_up_board(m, b, watchdog=6)
    m.until("an update comes", lambda: stored(m) > 0)
    for unit in (AGENT, INGESTER):
        before, held = m.of_unit(unit, "MainPID"), newest(m)
        m.run(f"kill -STOP {before}")
        took = m.until("the watchdog fires", lambda unit=unit: int(m.of_unit(unit, "NRestarts")) > 0)  # type: ignore[misc]
        took += m.until("it serves again", lambda unit=unit: m.of_unit(unit, "ActiveState") == "active")  # type: ignore[misc]
        print(f"{unit}: stopped, and active again after {took:.1f} s")
        assert m.of_unit(unit, "MainPID") != before
        assert "Watchdog timeout" in m.run(f"journalctl --no-pager -u {unit}")
        assert newest(m) >= held > 0
        m.until("updates go on", lambda held=held: newest(m) > held)  # type: ignore[misc]
    exact(m)


@pytest.mark.slow("starts a systemd and two services, and fills their disks", seconds=60)
def test_a_service_whose_disk_is_full_waits_says_so_and_goes_on_within_a_minute_of_room(here: tuple[Machine, broker.Mosquitto]) -> None:
    m, b = here
    set_up_centre(m, b, watchdog=WATCHDOG)
    set_up_board(m, b, watchdog=WATCHDOG)
    m.until("an update comes", lambda: stored(m) > 0)
    a_board_fills_up(m)
    a_board_starts_on_a_full_disk(m)
    a_centre_fills_up(m)
    a_centre_starts_on_a_full_disk(m)
    exact(m)


def a_board_fills_up(m: Machine) -> None:
    def waits() -> bool:
        fill(m, "edgeagent")
        return m.of_unit(AGENT, "StatusText").startswith("waits for room on its disk: ")

    m.until("it says that it waits", waits)
    pid, held = m.of_unit(AGENT, "MainPID"), newest(m)
    looked = m.run("sudo -u edgeagent /opt/edgeagent/bin/edgeagent status --dir /var/lib/edgeagent/agent")
    assert "pi-7" in looked

    def alive() -> int:
        return int(m.of_unit(AGENT, "WatchdogTimestampMonotonic"))

    since = alive()
    m.until("an agent that waits lives, for longer than systemd waits for a sign of it", lambda: alive() > since + WATCHDOG * 1_000_000)
    m.until("it still waits", waits)
    m.run("rm /var/lib/edgeagent/filler")
    took = m.until("it publishes again", lambda: newest(m) > held, within=AGAIN)
    print(f"published again {took:.1f} s after there was room")
    assert (m.of_unit(AGENT, "MainPID"), m.of_unit(AGENT, "NRestarts")) == (pid, "0")


def a_board_starts_on_a_full_disk(m: Machine) -> None:
    m.run(f"systemctl stop {AGENT}")
    fill(m, "edgeagent")
    held = newest(m)
    m.run(f"systemctl start --no-block {AGENT}")
    m.until("it says that it waits", lambda: m.of_unit(AGENT, "StatusText").startswith("waits for room on its disk: "))
    assert m.of_unit(AGENT, "ActiveState") in ("activating", "active")
    m.run("rm /var/lib/edgeagent/filler")
    m.until("it publishes again", lambda: newest(m) > held, within=AGAIN)
    assert m.of_unit(AGENT, "NRestarts") == "0"


def a_centre_fills_up(m: Machine) -> None:
    def waits() -> bool:
        fill(m, "edgecloud")
        return m.of_unit(INGESTER, "StatusText").startswith("waits for room on its disk: ")

    m.until("it says that it waits", waits)
    pid, before = m.of_unit(INGESTER, "MainPID"), stored(m)

    def alive() -> int:
        return int(m.of_unit(INGESTER, "WatchdogTimestampMonotonic"))

    since = alive()
    m.until("an ingester that waits lives, for longer than systemd waits for a sign of it", lambda: alive() > since + WATCHDOG * 1_000_000)
    m.until("it still waits", waits)
    m.run("rm /var/lib/edgecloud/filler")
    took = m.until("it takes in again", lambda: stored(m) > before, within=AGAIN)
    print(f"taken in again {took:.1f} s after there was room")
    assert (m.of_unit(INGESTER, "MainPID"), m.of_unit(INGESTER, "NRestarts")) == (pid, "0")


def a_centre_starts_on_a_full_disk(m: Machine) -> None:
    m.run(f"systemctl stop {INGESTER}")
    fill(m, "edgecloud")
    m.run(f"systemctl start --no-block {INGESTER}")
    m.until("it says that it waits", lambda: m.of_unit(INGESTER, "StatusText").startswith("waits for room on its disk: "))
    assert m.of_unit(INGESTER, "ActiveState") == "activating", "it does not serve yet, and is not given up"
    m.run("rm /var/lib/edgecloud/filler")
    m.until("it takes in again", lambda: stored(m) > 0, within=AGAIN)
    assert m.of_unit(INGESTER, "NRestarts") == "0"


@pytest.mark.slow("starts a systemd and types a page", seconds=35)
def test_the_page_of_the_centre_can_be_typed_under_a_systemd(here: tuple[Machine, broker.Mosquitto]) -> None:
    m, b = here
    set_up_centre(m, b)
    set_up_board(m, b)
    m.until("an update is proven", lambda: " 0 verified" not in m.of_unit(INGESTER, "StatusText"))
    m.run(f"systemctl stop {AGENT}")
    lines = console_lines(DOCS / "centre.md")
    lines = lines[lines.index("systemctl status edgecloud-ingest") + 1 :]
    place = next(n for n, line in enumerate(lines) if "AGE1PUBLICKEY" in line)
    said = typed(m, "\n".join(lines[:place]))
    assert re.search(r"fleet-\S+Z\.db", said), said
    public = re.search(r"age1\w+", said)
    assert public, said
    said = typed(m, "\n".join(lines[place:]).replace("AGE1PUBLICKEY", public.group()))
    assert re.search(r"^(\d+) of \1 versions exact", said, re.M) and "restored from" in said, said
    copies = sorted(Path(line).suffix for line in m.run("find /var/lib/edgecloud/backups -type f").split())
    assert copies == [".age", ".db"]
    assert m.run("systemctl --failed --no-legend") == ""
    assert m.of_unit(INGESTER, "ActiveState") == "active"
    assert "edgecloud-backup.timer" in m.run("systemctl list-timers --no-legend")
    exact(m)
    assert m.run("find /var/lib/edgecloud -name '*.db*' -perm /077") == "", "registry and copies are their owner's alone"
