"""The agent's part of a life under systemd: waits for its settings, trains, is upgraded in a round, killed, stuck, filled up, purged."""

from __future__ import annotations

import io
import json
import re

import numpy as np

from edgeagent.boards import PLACE, profile, unit_drop_in
from tests.worlds import world

from .booted import AGENT, DEVICE, FLEET, HOME, MODEL, NEWER, PackageLife, comes_back, quick

TWIN = "/srv/twin"
EPOCHS = 3_000  # of the first round: some seconds, which an upgrade meets
SETTINGS = {
    "train.margin": "1000", "train.every": "365d", "train.min_new_samples": "0", "update.kind": "delta", "train.epochs": str(EPOCHS),
    "link.resend": "2s", "link.reconnect_min": "200ms", "link.reconnect_max": "2s", "link.tls_ca": "ca.pem", "link.tls_cert": "tls.pem",
    "link.tls_key": "tls.key",
}  # fmt: skip
BOARD = "pi-zero-2w"
ROOM = 32  # MiB of the small disk
WITHOUT_IT = f"mv {HOME}/edgeagent.toml {HOME}/right.toml"


def installed(life: PackageLife) -> None:
    with life.check("edgeagent: the package installs, is enabled, and waits for its settings"):
        life.install("edgeagent")
        assert life.show(AGENT, "UnitFileState") == "enabled"
        assert (life.show(AGENT, "ActiveState"), life.show(AGENT, "ConditionResult")) == ("inactive", "no")


def set_up(life: PackageLife) -> None:
    held = io.BytesIO()
    x, y = world(MODEL, 0).stream(0, 200)
    np.savez(held, x=x, y=y)
    life.machine.put("/srv/samples.npz", held.getvalue())
    with life.check("edgeagent: set up as its pages say, with a certificate", vital=True):
        life.do("cp /var/lib/edgecloud/fleet.pub /var/lib/edgecloud/ca/ca.pem /srv/ && chmod 644 /srv/fleet.pub /srv/ca.pem")
        settings = " ".join(f"--set {name}={value}" for name, value in SETTINGS.items())
        made = life.agent(
            f"init --device {DEVICE} --fleet {FLEET} --broker mqtts://localhost:8883 --fleet-key /srv/fleet.pub"
            f" --model {MODEL}=/srv/{MODEL}.tflite --spool-group edgeagent-samples --no-check {settings}"
        )
        life.agent("certificate request")
        life.do(f"cp {HOME}/../{DEVICE}.csr /srv/ && chmod 644 /srv/{DEVICE}.csr")
        life.centre(f"ca issue {DEVICE} --request /srv/{DEVICE}.csr")
        life.do(f"cp /var/lib/edgecloud/ca/issued/{DEVICE}.pem /srv/ && chmod 644 /srv/{DEVICE}.pem")
        life.agent(f"certificate install /srv/{DEVICE}.pem --ca /srv/ca.pem")
        life.centre(f"devices add {DEVICE} {made['public_key']}")


def appended(life: PackageLife) -> None:
    add = f"sudo -u app edgeagent samples add {MODEL} /srv/samples.npz --dir {HOME}"
    with life.check("edgeagent: a user of the group edgeagent-samples appends samples, and another one can't"):
        life.do(f"useradd --system --no-create-home app && chmod o+x {HOME}")
        assert life.machine.try_run(add).returncode, "a stranger may add samples"
        life.do("usermod -aG edgeagent-samples app")
        life.do(add)
        for place in ("device.key", "tls.key", "edgeagent.db"):
            read = f"sudo -u app find {HOME} -name '{place}' -exec cat {{}} + 2>/dev/null | grep -q ."
            assert life.machine.try_run(read).returncode, f"an application reads {place}"
    with life.check("edgeagent: doctor is content with what stands, and with the broker"):
        life.do(f"sudo -u edgeagent edgeagent doctor --dir {HOME}")
        life.agent("publish")


def upgraded(life: PackageLife) -> None:
    """The service trains its first round, and in the middle of it a newer package comes."""
    life.do(f"cp -a {HOME} {TWIN}")
    with life.check("edgeagent: with its settings the unit becomes active, by its own word", vital=True):
        life.do(f"systemctl start {AGENT}")
        assert (life.show(AGENT, "Type"), life.show(AGENT, "ActiveState"), life.show(AGENT, "SubState")) == ("notify", "active", "running")
    with life.check("edgeagent: an upgrade in the middle of a round, by apt: stopped, started, its state kept, the round taken up"):
        life.until("a round is under way", lambda: not life.machine.try_run("ls /dev/shm/*.round").returncode)
        pid = life.show(AGENT, "MainPID")
        life.install("edgeagent-newer")
        assert NEWER in life.do("dpkg-query -W edgeagent")
        life.until("it is active again", lambda: life.active(AGENT))
        assert life.show(AGENT, "MainPID") != pid
        life.until("the round's version is proven", lambda: life.verified() > 0, within=600)
        said = life.do(f"journalctl --no-pager -q -o cat -u {AGENT}")
        (step,) = re.findall(r"round 1 goes on after step (\d+ of \d+)", said)
        life.seen["interrupted"] = step
    with life.check("edgeagent: an uninterrupted twin comes to the same bits, and the centre's file has them"):
        life.do(f"systemctl stop {AGENT}")
        life.agent("train", home=TWIN)
        life.do(f"cd /var/lib/edgecloud && sudo -u edgecloud edgecloud materialise {DEVICE}@1 -o /var/lib/edgecloud/it.tflite")
        files = f"find {HOME} {TWIN} /var/lib/edgecloud/it.tflite \\( -name served.tflite -o -name it.tflite \\) -exec sha256sum {{}} +"
        found = [line.split()[0] for line in life.do(files).splitlines()]
        assert len(found) == 3 and len(set(found)) == 1, found
        assert life.do(f"sha256sum /srv/{MODEL}.tflite").split()[0] not in found, "it served its base"
    for name, value in {"every": '"1s"', "epochs": "1"}.items():  # from here on it publishes again and again
        life.do(f"sed -i 's/^{name} = .*/{name} = {value}/' {HOME}/edgeagent.toml")
    quick(life, AGENT)
    life.do(f"systemctl daemon-reload && systemctl start {AGENT}")


def limited(life: PackageLife) -> None:
    with life.check("edgeagent: the limits of a board's profile hold once its drop-in is there, and an upgrade leaves them"):
        life.machine.put(PLACE, unit_drop_in(profile(BOARD)).encode())
        life.do(f"systemctl daemon-reload && systemctl restart {AGENT}")
        wanted = {name: str(figure.value) for name, figure in profile(BOARD).unit.items()}
        assert int(life.show(AGENT, "MemoryMax")) == int(wanted["MemoryMax"].removesuffix("M")) << 20
        assert life.show(AGENT, "CPUWeight") == wanted["CPUWeight"]
        assert life.active(AGENT)


def journal(life: PackageLife) -> None:
    of_unit = f"journalctl --no-pager -q -u {AGENT}"
    with life.check("edgeagent: its lines in the journal name board, fleet and model, and are found by them"):
        life.until("it publishes", lambda: life.verified() > 1)
        found = life.do(f"{of_unit} -o json EDGE_DEVICE={DEVICE} EDGE_FLEET={FLEET} EDGE_MODEL={MODEL}")
        lines = [json.loads(line) for line in found.splitlines()]
        assert lines
        for line in lines:
            assert line["_SYSTEMD_UNIT"] == AGENT and line["SYSLOG_IDENTIFIER"] == "edgeagent", line
            assert re.fullmatch(r"[0-9a-f]{32}", line["MESSAGE_ID"]) and line["PRIORITY"] in "34567", line
            assert MODEL in line["MESSAGE"] and line["LOGGER"].startswith("edgeagent") and int(line["CODE_LINE"]), line
        assert not life.do(f"{of_unit} EDGE_DEVICE=pi-8")
    with life.check("edgeagent: a message's id finds all lines of its kind, and no other"):
        verified = next(line for line in reversed(lines) if ": verified: @" in line["MESSAGE"])
        alike = life.do(f"{of_unit} -o cat MESSAGE_ID={verified['MESSAGE_ID']}").splitlines()
        assert len(alike) > 1 and all(re.search(r": (verified|stored): @", line) for line in alike), alike


def ended(life: PackageLife) -> None:
    for how in ("KILL", "STOP"):
        with life.check(f"edgeagent: SIG{how} to its process, and systemd starts it again"):
            comes_back(life, AGENT, how)
    with life.check("edgeagent: the watchdog was what ended it, and updates go on"):
        assert "Watchdog timeout" in life.do(f"journalctl --no-pager -u {AGENT}")
        held = life.verified()
        life.until("a version more is proven", lambda: life.verified() > held)
    with life.check("edgeagent: a stop is orderly, and well within its time"):
        took = -float(life.do("date +%s.%N"))
        life.do(f"systemctl stop {AGENT}")
        took += float(life.do("date +%s.%N"))
        assert (life.show(AGENT, "Result"), life.show(AGENT, "ExecMainStatus")) == ("success", "0")
        assert took * 1e6 < 90e6, f"{took:.0f} s"
        assert not life.do("pgrep -u edgeagent || true"), "a process outlives the service"
        life.seen["stop_s"] = round(took, 1)
        life.do(f"systemctl start {AGENT}")


def alone(life: PackageLife) -> None:
    with life.check("edgeagent: while the broker is away it stays active, also when it is started then, and is never given up"):
        before = life.restarts(AGENT)
        life.do("systemctl stop mosquitto")
        life.until("it says what it waits for", lambda: life.show(AGENT, "StatusText").startswith("waits for mqtts://localhost:8883"))
        assert life.active(AGENT) and life.restarts(AGENT) == before
        life.do(f"systemctl restart {AGENT}")
        assert life.active(AGENT) and life.show(AGENT, "StartLimitIntervalUSec") == "0"
        life.do("systemctl start mosquitto")
        held = life.verified()
        life.until("a version more is proven", lambda: life.verified() > held)
        assert life.restarts(AGENT) == 0


def wrong_settings(life: PackageLife) -> None:
    with life.check("edgeagent: wrong settings stop it by a code that starts nothing again; right ones and a start mend it"):
        life.do(f"{WITHOUT_IT} && (echo 'colour = \"red\"'; cat {HOME}/right.toml) > {HOME}/edgeagent.toml")
        life.do(f"chown edgeagent:edgeagent {HOME}/edgeagent.toml && systemctl restart --no-block {AGENT}")
        life.until("it is given up", lambda: life.show(AGENT, "ActiveState") == "failed")
        code, never = life.show(AGENT, "ExecMainStatus"), life.do(f"systemctl cat {AGENT}")
        assert code in re.findall(r"^RestartPreventExitStatus=(.*)$", never, re.M)[0].split(), code
        assert "colour" in life.do(f"journalctl --no-pager -q -o cat -n 20 -u {AGENT}"), "the journal does not say what is wrong"
        life.do(f"mv {HOME}/right.toml {HOME}/edgeagent.toml && systemctl start {AGENT}")
        assert life.active(AGENT)


def filled(life: PackageLife) -> None:
    """The state lies on a small disk of its own, which fills up while the agent is killed again and again."""
    disk = "/var/lib/edgeagent"
    with life.check("edgeagent: on a full disk it is started as often as it ends, never given up, and goes on when there is room"):
        life.do(f"systemctl stop {AGENT} && mount -t tmpfs -o mode=751,size={ROOM}m small /mnt && cp -a {disk}/. /mnt/")
        life.do(f"chown edgeagent:edgeagent /mnt && mount --move /mnt {disk} && systemctl start {AGENT}")

        def waits() -> bool:
            life.do(f"cat /dev/zero > {disk}/filler 2> /dev/null || true")
            return life.show(AGENT, "StatusText").startswith("waits for room on its disk")

        life.until("it says that it waits", waits)
        for _ in range(8):  # systemd's own limit is 5 starts in 10 s
            before = life.restarts(AGENT)
            life.do(f"systemctl kill -s KILL {AGENT}")
            life.until("it is started again", lambda before=before: life.restarts(AGENT) > before)  # type: ignore[misc]
        life.until("it says that it waits, on a disk full from its start", waits)
        assert life.show(AGENT, "ActiveState") in ("activating", "active")
        life.install("edgeagent-newest")
        life.until("an upgrade meanwhile starts it again, and does not wait for it", waits)
        held = life.verified()
        life.do(f"rm {disk}/filler")
        life.until("a version more is proven", lambda: life.verified() > held)
        assert life.active(AGENT)
    life.do(f"systemctl stop {AGENT} && mkdir -p /srv/held && cp -a {disk}/. /srv/held/ && umount {disk} && cp -a /srv/held/. {disk}/")
    life.do(f"systemctl start {AGENT}")


def stopped(life: PackageLife) -> None:
    with life.check("edgeagent: an upgrade starts none that its operator has stopped, and one that runs though it is disabled"):
        life.do(f"systemctl stop {AGENT}")
        life.install("edgeagent")
        life.do("sleep 3")  # nothing comes; what came would be there at once
        assert life.show(AGENT, "ActiveState") == "inactive"
        life.do(f"systemctl disable {AGENT} && systemctl start {AGENT}")
        life.install("edgeagent-newer")
        life.until("it is active again", lambda: life.active(AGENT))
        assert life.show(AGENT, "UnitFileState") == "disabled"
        life.do(f"systemctl enable {AGENT}")


COURSE = (installed, set_up, appended, upgraded, limited, journal, ended, alone, wrong_settings, filled, stopped)


def removed(life: PackageLife) -> None:
    with life.check("edgeagent: nothing it did was in the way of what its unit forbids"):
        said = life.do(f"journalctl --no-pager -q -o cat -u {AGENT} | grep -iE 'permission|not permitted|read-only|denied' || true")
        assert not said, said
    with life.check("edgeagent: removal ends the service and leaves state, keys, settings and the board's limits"):
        life.do(f"systemctl start {AGENT} && apt-get remove -y -q edgeagent")
        assert not life.do("pgrep -u edgeagent || true")
        life.do(f"find {HOME} -name device.key | grep -q . && test -f {HOME}/edgeagent.toml && test -f {PLACE}")
        assert life.machine.try_run("test -e /usr/lib/edgeagent").returncode
    with life.check("edgeagent: installed again it is started, and goes on from its state by itself"):
        held = life.verified()
        life.install("edgeagent")
        life.until("it is active", lambda: life.active(AGENT))
        life.until("a version more is proven", lambda: life.verified() > held)
    with life.check("edgeagent: purge leaves what its page says"):
        life.do("apt-get purge -y -q edgeagent")
        places = "/var/lib/edgeagent /usr/lib/edgeagent /usr/bin/edgeagent"
        left = life.do(f"for place in {places}; do [ ! -e $place ] || echo $place; done").split()
        left += life.do("find /etc/systemd/system /var/lib/systemd /lib/systemd -name 'edgeagent*' ! -name '*.d'").split()
        assert not left, left
        life.do(f"getent passwd edgeagent && getent group edgeagent-samples && test -f {PLACE} && test -d {TWIN}")
