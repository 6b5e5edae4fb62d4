"""In the virtual machine: broker, ingester and agent as real processes, their folders on two disks, until the rounds are done.

What was said over the broker goes to standard output, a line each, once it was said: FACT update|stored|verified VERSION COMMIT.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import paho.mqtt.client as mqtt

from modelwire.update import container
from modelwire.wire import records, topics
from modelwire.wire.records import Receipt
from tests import broker

ROUNDS, MORE = 24, 12  # before and after the operator has let old versions go
DB, HOME = Path("/disks/centre/registry/fleet.db"), Path("/disks/board/pi-7")


def main() -> int:
    with broker.mosquitto(Path("/tmp/broker")) as hub:
        listen(hub.port)
        words = ["ingest", "--db", str(DB), "--broker", hub.url, "--resend", "2", "--workers", "0"]
        ingester = subprocess.Popen([sys.executable, "-m", "edgecloud", *words], stderr=subprocess.DEVNULL)
        run("edgeagent", "run", "--rounds", str(ROUNDS), "--pause", "100ms", "--timeout", "300s", "--set", f"link.broker={hub.url}")
        run("edgecloud", "snapshot", "request", "pi-7")
        run("edgecloud", "policy", "--keep", "last 12")
        run("edgecloud", "compact")
        run("edgecloud", "thin")
        more = str(ROUNDS + MORE)
        run("edgeagent", "run", "--rounds", more, "--pause", "100ms", "--timeout", "300s", "--set", f"link.broker={hub.url}")
        ingester.terminate()
        ingester.wait()
    return 0


def run(program: str, *words: str) -> None:
    where = ["--dir", str(HOME)] if program == "edgeagent" else ["--db", str(DB)]
    done = subprocess.run([sys.executable, "-m", program, *words, *where], capture_output=True, text=True, check=False)
    end = done.stderr.strip().splitlines()[-1:]
    print(f"RAN {program} {words[0]} {done.returncode} {end if done.returncode else ''}", flush=True)


def listen(port: int) -> None:
    """Tell what is said over the broker from now on."""
    ready: list[int] = []

    def heard(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        leaf = topics.parse(message.topic).leaf
        if leaf == "update":
            one = container.parse(message.payload)
            print(f"FACT update {one.header.version} {one.commit.hex()}", flush=True)
        elif leaf == "receipt":
            said = records.parse(message.payload).record
            if isinstance(said, Receipt):
                print(f"FACT {said.level.value} {said.version} {said.commit.hex()}", flush=True)

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_message = heard
    client.on_subscribe = lambda *_: ready.append(1)
    client.connect("127.0.0.1", port)
    client.subscribe("#", 1)
    client.loop_start()
    while not ready:
        time.sleep(0.01)


if __name__ == "__main__":
    raise SystemExit(main())
