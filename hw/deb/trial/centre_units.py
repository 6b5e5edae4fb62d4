"""The centre's part of a life under systemd: set up as its pages say, killed, stuck, wrong in its settings, upgraded, copied, purged."""

from __future__ import annotations

import re

from tests.worlds import MODELS

from .booted import DB, DEVICE, DIRECTOR, FLEET, INGESTER, MODEL, NEWER, PackageLife, comes_back, quick

ALL = f"{INGESTER} {DIRECTOR} edgecloud-backup.timer edgecloud-renew.timer"
SETTINGS = """\
EDGECLOUD_BROKER=mqtts://localhost:8883
EDGECLOUD_CA=/var/lib/edgecloud/ca/ca.pem
EDGECLOUD_CERT=/var/lib/edgecloud/ca/issued/CENTRE.pem
EDGECLOUD_CERT_KEY=/var/lib/edgecloud/ca/issued/CENTRE.key
"""
# docs/broker.md, "On Debian"
BROKER = """\
cp -r /var/lib/edgecloud/edge /etc/mosquitto/edge
chown -R root:mosquitto /etc/mosquitto/edge
chmod 750 /etc/mosquitto/edge
chmod 640 /etc/mosquitto/edge/server.key
ln -s /etc/mosquitto/edge/conf.d/edge.conf /etc/mosquitto/conf.d/edge.conf
systemctl restart mosquitto
"""


def installed(life: PackageLife) -> None:
    with life.check("edgecloud: the package installs, and starts nothing by itself"):
        life.install("edgecloud")
        for unit in ALL.split():
            assert (life.show(unit, "LoadState"), life.show(unit, "ActiveState")) == ("loaded", "inactive"), unit
            assert life.show(unit, "UnitFileState") == "disabled", unit


def set_up(life: PackageLife) -> None:
    life.machine.put(f"/srv/{MODEL}.tflite", (MODELS / f"{MODEL}.tflite").read_bytes())
    with life.check("edgecloud: set up as its pages say, its units are active at their start", vital=True):
        life.centre(f"init --fleet {FLEET}")
        life.centre(f"bases add /srv/{MODEL}.tflite --no-rehearse")
        for words in ("ca init", "ca issue --centre", "broker config -o edge --host localhost --place /etc/mosquitto/edge"):
            life.do(f"cd /var/lib/edgecloud && sudo -u edgecloud edgecloud {words} --db {DB}")
        life.do(BROKER)
        life.do("install -m 600 -o edgecloud -g edgecloud /var/lib/edgecloud/director.key /etc/edgecloud/director.key")
        life.machine.put("/etc/edgecloud/ingest.env", SETTINGS.encode())
        quick(life, INGESTER)
        life.do(f"systemctl daemon-reload && systemctl enable --now {ALL}")
        assert all(life.active(unit) for unit in ALL.split())
        life.until("it listens", lambda: life.show(INGESTER, "StatusText").startswith("listens at mqtts://localhost:8883"))
    with life.check("edgecloud: mosquitto with its files lets nobody in without a certificate"):
        life.until("mosquitto listens", lambda: ":8883" in life.do("ss -ltn"))
        assert life.machine.try_run("echo | timeout 5 openssl s_client -connect localhost:8883 2>&1 | grep -q 'BEGIN CERT'").returncode == 0
        assert ":1883" not in life.do("ss -ltn"), "a port without TLS is open beside it"


BEGIN = (installed, set_up)


def ended(life: PackageLife) -> None:
    for how in ("KILL", "STOP"):
        with life.check(f"edgecloud: SIG{how} to the ingester, and systemd starts it again"):
            comes_back(life, INGESTER, how)
    with life.check("edgecloud: the watchdog was what ended it"):
        assert "Watchdog timeout" in life.do(f"journalctl --no-pager -u {INGESTER}")
    with life.check("edgecloud: updates go on after that"):
        held = life.verified()
        life.until("a version more is proven", lambda: life.verified() > held)


def wrong_settings(life: PackageLife) -> None:
    with life.check("edgecloud: wrong settings stop the ingester by a code that starts nothing again; right ones and a start mend it"):
        life.do("sed -i 's,mqtts://localhost:8883,telnet://localhost,' /etc/edgecloud/ingest.env")
        life.do(f"systemctl restart --no-block {INGESTER}")
        life.until("it is given up", lambda: life.show(INGESTER, "ActiveState") == "failed")
        code, never = life.show(INGESTER, "ExecMainStatus"), life.do(f"systemctl cat {INGESTER}")
        assert code in re.findall(r"^RestartPreventExitStatus=(.*)$", never, re.M)[0].split(), code
        life.machine.put("/etc/edgecloud/ingest.env", SETTINGS.encode())
        life.do(f"systemctl start {INGESTER}")
        assert life.active(INGESTER)


def upgraded(life: PackageLife) -> None:
    with life.check("edgecloud: an upgrade while a board publishes starts what ran, and nothing else, and loses nothing"):
        life.do(f"systemctl stop {DIRECTOR}")
        pid, held = life.show(INGESTER, "MainPID"), life.verified()
        life.install("edgecloud-newer")
        assert NEWER in life.do("dpkg-query -W edgecloud")
        life.until("it is active again", lambda: life.active(INGESTER))
        assert life.show(INGESTER, "MainPID") != pid
        assert life.show(DIRECTOR, "ActiveState") == "inactive", "what was stopped was started"
        assert life.active("edgecloud-backup.timer") and life.active("edgecloud-renew.timer")
        life.until("versions go on", lambda: life.verified() > held + 1)
        life.exact()
        numbers = [int(row["version"]) for row in life.centre(f"log {DEVICE}")["versions"]]
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), f"versions {sorted(numbers)}"
        life.do(f"systemctl start {DIRECTOR}")


def copied(life: PackageLife) -> None:
    with life.check("edgecloud: the timer's service makes a copy, and the copy comes back exact"):
        assert life.show("edgecloud-backup.timer", "Triggers") == "edgecloud-backup.service"
        assert life.show("edgecloud-backup.timer", "NextElapseUSecRealtime")
        life.do("systemctl start edgecloud-backup.service")
        life.do("systemctl stop edgeagent.service " + INGESTER)
        held = life.verified()
        copy = life.do("find /var/lib/edgecloud/backups -name '*.db' | sort | tail -n 1").strip()
        life.do(f"sudo -u edgecloud edgecloud restore {copy} --db {DB} --force")
        life.exact()
        assert 0 < life.verified() <= held
        life.do(f"systemctl start {INGESTER} edgeagent.service")
        life.until("a version beyond the copy is proven", lambda: life.verified() > held)
        life.exact()
    with life.check("edgecloud: the timer for certificates' service runs to its end, mosquitto read again"):
        life.do("systemctl start edgecloud-renew.service")
        assert life.show("edgecloud-renew.service", "Result") == "success"
        assert life.active("mosquitto.service")


def journal(life: PackageLife) -> None:
    with life.check("edgecloud: its lines in the journal name board and model, and are found by them"):
        said = life.do(f"journalctl --no-pager -q -o cat -u {INGESTER} EDGE_DEVICE={DEVICE} EDGE_MODEL={MODEL}")
        assert "verified" in said, said[-500:]
        assert not life.do(f"journalctl --no-pager -q -u {INGESTER} EDGE_DEVICE=pi-8")
    with life.check("edgecloud: nothing it does is in the way of what its units forbid"):
        worse = "grep -iE 'permission|not permitted|read-only|denied'"
        said = life.do(f"journalctl --no-pager -q -p warning -u 'edgecloud-*' | {worse} || true")
        assert not said, said


COURSE = (journal, ended, wrong_settings, upgraded, copied)


def removed(life: PackageLife) -> None:
    with life.check("edgecloud: removal ends its services and leaves registry, keys and settings"):
        life.do("apt-get remove -y -q edgecloud")
        assert not life.do("pgrep -u edgecloud || true")
        life.do(f"test -f {DB} && test -f /etc/edgecloud/ingest.env && test -f /etc/edgecloud/director.key")
        assert life.machine.try_run("test -e /usr/lib/edgecloud").returncode
    with life.check("edgecloud: purge leaves what its page says"):
        life.do("apt-get purge -y -q edgecloud")
        places = "/var/lib/edgecloud /etc/edgecloud /usr/lib/edgecloud"
        left = life.do(f"for place in {places}; do [ ! -e $place ] || echo $place; done").split()
        left += life.do("find /etc/systemd/system /var/lib/systemd /lib/systemd -name 'edgecloud*' ! -path '*.d*'").split()
        assert not left, left
        life.do("getent passwd edgecloud && test -d /etc/mosquitto/edge")
        assert "edge" not in life.do("systemctl list-units --failed --no-legend --no-pager")
