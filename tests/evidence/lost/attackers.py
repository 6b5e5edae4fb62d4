"""Those who attack an ingester, each a process of its own on a bare socket, as fast as the broker takes it.

    python -m tests.evidence.lost.attackers KIND PORT SECONDS

What is sent again and again is made before the clock starts, so that an attacker costs little of the machine that it attacks.
"""

from __future__ import annotations

import hashlib
import itertools
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from modelwire.limits import DEFAULT
from modelwire.output_head.recipe import Recipe
from modelwire.update.container import CODEC_RANGE
from modelwire.update.header import Header, commit_from, write_front
from modelwire.update.sections import Kind
from modelwire.wire import parts, signing
from modelwire.wire.records import encode
from modelwire.wire.topics import up
from tests.edgecloud.device import FLEET, Base, ScriptedDevice, key_of, recipe_on
from tests.keys import FLEET_ID
from tests.mqtt_bytes import CONNECT, PUBLISH, packet, text

EVE = "eve"  # is enrolled: its models are m-0 and so on, each of which has an epoch
MODELS = 6
STRANGERS = 1000
NOISE = 60 << 20
PART = 34 * 1024  # a message; its part has 32 KiB
WORK = 1 << 37  # of the longest training that a centre takes
SECTION = struct.Struct("<HBBBbHI")
MAKERS: dict[str, Callable[[], Iterator[bytes]]] = {}


def publish(topic: str, data: bytes, qos: int = 1) -> bytes:
    """Return one message as it goes out; all have one number, as nobody looks at what the broker says of it."""
    return packet(PUBLISH if qos else 0x30, text(topic.encode()) + (struct.pack(">H", 1) if qos else b"") + data)


def eve(model: int) -> ScriptedDevice:
    """Return one of its models, as far as messages about it need one."""
    device = ScriptedDevice(Base.of(), name=EVE, model=f"m-{model}")
    device.epoch, device.fleet_id = 1, FLEET_ID
    return device


def hellos(qos: int) -> Iterator[bytes]:
    """Strangers, each with a name and a key of its own."""
    made = []
    for n in range(STRANGERS):
        device = ScriptedDevice(Base.of(), name=f"nobody-{n}")
        device.fleet_id = FLEET_ID
        made.append(publish(*device.hello(), qos))
    return itertools.cycle(b"".join(made[n : n + 10]) for n in range(0, STRANGERS, 10))


def noise(model: int, version: int, key: signing.PrivateKey) -> bytes:
    """Return 60 MiB that are signed and no update."""
    device = eve(model)
    header = Header(
        kind=Kind.DELTA, device=EVE, model=device.model, epoch=1, version=version, parent=device.head,
        schema_id=device.base.manifest.schema.id, root=bytes(32), fingerprint=(0, 0), base=b"", extension={},
    )  # fmt: skip
    content = SECTION.pack(1, CODEC_RANGE, 1, 0, 0, 0, 9) + np.random.default_rng([model, version]).bytes(NOISE)
    front = write_front(header, extension=0, sections=1, content=len(content), limit=DEFAULT)
    commit = commit_from(front, hashlib.sha256(b"").digest(), hashlib.sha256(content).digest())
    return front + content + commit + key.sign(signing.UPDATE, FLEET_ID, commit)


def in_parts(model: int, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the messages of an update that goes in parts."""
    device = eve(model)
    out = parts.describe(data, fleet=FLEET, device=EVE, model=device.model, at=1, part=PART)
    topic = up(FLEET, EVE, device.model, "part")
    yield topic, encode(out.transfer, device.key, FLEET_ID, role=signing.Role.DEVICE)
    for index in range(out.count):
        yield topic, out.cut(index)


def never_joined() -> list[tuple[str, bytes]]:
    """Return a transfer that never joins, as no key of the device has signed what it makes."""
    return list(in_parts(0, noise(0, 1, key_of("somebody else"))))


def join() -> Iterator[bytes]:
    """The last part of such a transfer again and again; what comes before it is there already."""
    return itertools.cycle([publish(*never_joined()[-1]) * 4])


def signed_noise() -> Iterator[bytes]:
    ready = [[publish(*one) for one in in_parts(n % MODELS, noise(n % MODELS, 1 + n // MODELS, key_of(EVE)))] for n in range(4)]
    for sent in ready:
        yield from sent
    for n in itertools.count(4):
        for one in in_parts(n % MODELS, noise(n % MODELS, 1 + n // MODELS, key_of(EVE))):
            yield publish(*one)


def longest(base: Base) -> Recipe:
    """Return the recipe of the longest training that a centre takes."""
    made = recipe_on(base, range(3), batch=3)
    steps = WORK // replace(made.head, steps=1).work(3)
    return recipe_on(base, range(3), batch=3, steps=steps)


def recipes() -> Iterator[bytes]:
    """Six recipes at once, and nothing more."""
    for model in range(MODELS):
        device = eve(model)
        made = device.seal(Kind.RECIPE, (), recipe=longest(device.base).encode(), extension={})
        print(f"a recipe of {len(made.data)} bytes", file=sys.stderr)
        yield publish(*device.update(made))


MAKERS |= {"flood": lambda: hellos(1), "flood0": lambda: hellos(0), "join": join, "noise": signed_noise, "recipe": recipes}


def main(kind: str, port: int, seconds: float) -> None:
    """Send for so long. Says `ready` when it begins, and how much it sent at its end."""
    messages = MAKERS[kind]()
    first = next(messages)
    link = socket.create_connection(("127.0.0.1", port))
    link.sendall(packet(CONNECT, text(b"MQTT") + bytes([4, 2, 0, 0]) + text(f"attacker-{kind}".encode())))
    link.settimeout(0.05)
    print("ready", flush=True)
    end, sent, left, began = time.monotonic() + seconds, 0, memoryview(first), time.monotonic()
    while time.monotonic() < end:
        try:
            done = link.send(left)
            sent, left = sent + done, left[done:]
        except TimeoutError:
            pass
        link.setblocking(False)
        try:
            while link.recv(1 << 16):  # what the broker acknowledges: unread it would hold us back
                pass
        except BlockingIOError:
            pass
        link.settimeout(0.05)
        if not left:
            following = next(messages, None)
            if following is None:
                break
            left = memoryview(following)
    print(f"{kind}: {sent / (time.monotonic() - began) / (1 << 20):.1f} MiB/s", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
