"""A fleet that rolls out: a director beside broker, ingester and devices, variants of the digits, and who counts what is sent."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import paho.mqtt.client as paho
from ai_edge_litert import schema_py_generated as schema

from edgecloud.graft.grafting import Wish, graft
from modelwire.tensors import F32
from modelwire.tflite.file import read_weights, write_weights
from tests.paper.nets import RELU, NetWriter
from tests.worlds import model_file, world

from .fleet import Fleet, Process

MODEL = "digits"
SETTINGS = {
    "link.resend": "1s", "link.resend_max": "2s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "train.epochs": "2",
    "train.margin": "1000", "train.learning_rate": "0.05", "train.every": "365d", "train.min_new_samples": "0", "train.held_out": "0.5",
    "update.kind": "delta",
}  # fmt: skip
SAMPLES = 400  # of which half judge
PATIENCE = 300.0  # seconds, a safety limit: what is waited for comes within a few on a machine of its own
LOOK = 0.1
WIDE, LAYERS = 128, 24  # of the slow variant


class RollingFleet(Fleet):
    """A fleet with a director, and devices that have trained once."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder, url, inside=True)
        command = [sys.executable, "-m", "edgecloud", "director", "--db", str(self.db), "--every", "1s"]
        self.director = Process("director", command, folder / "director.log")
        self.add_base(MODEL)

    def settle(self, names: Sequence[str], **settings: str) -> None:
        """Make devices that have samples and trained once, and start them all, the ingester and the director too."""
        self.ingester.start()
        for n, name in enumerate(names):
            self.add_device(name, {MODEL: MODEL_FILE}, SETTINGS | {key.replace("__", "."): value for key, value in settings.items()})
            x, y = world(MODEL, n).stream(0, SAMPLES)
            with self.spool(name) as spool:
                spool.extend(MODEL, x, y.tolist())
            self.agent(name, "run", "--rounds", "1", "--timeout", f"{PATIENCE:g}s")
        for name in names:
            self.devices[name].start()
        self.director.start()

    def add_variant(self, name: str, file: bytes, *words: str) -> bytes:
        """Let the registry know a base, and seal it as a variant; return the file."""
        path = self.folder / f"{name}.tflite"
        path.write_bytes(file)
        self.add_base(name, path)
        self.cloud("variants", "add", name, "--model", MODEL, *words)
        return file

    def rollout(self, name: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.look_up("rollout", "show", name)
        return shown

    def served(self, device: str) -> bytes:
        """Return the file that the application on a device opens."""
        return (self.home(device) / "state" / "models" / MODEL / "served.tflite").read_bytes()

    def desired(self, device: str, variant: str) -> dict[str, Any] | None:
        """Return how far a device is with a variant; None where it is another that is desired, or none."""
        said: dict[str, Any] | None = self.look(device, "desired")["models"][0]["desired"]
        return said if said is not None and said["name"] == variant else None

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until something holds. Raises TimeoutError with the ends of the logs."""
        end = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > end or (self.director.starts and not self.director.running):
                logs = "\n".join(f"--- {p.name}\n{p.tail(12)}" for p in (self.ingester, self.director, *self.devices.values()))
                raise TimeoutError(f"{what} did not come within {PATIENCE:g} s\n{logs}")
            time.sleep(LOOK)

    def deploy(self, variant: str, *words: str) -> str:
        """Seal a plan for the whole fleet, start it, and return its name."""
        said = self.cloud("deploy", variant, "--all", "--no-follow", "--jitter", "0s", "--start", *words)
        return str(said["rollout"])

    def ever_served(self, variant: str) -> list[str]:
        """Return the devices that have served a variant at any time, by their own word."""
        lines = {name: p.log.read_text(errors="replace").splitlines() for name, p in self.devices.items()}
        return [name for name, said in lines.items() if any(f"the variant {variant} (" in one and ": soaking" in one for one in said)]

    def until_state(self, rollout: str, *states: str) -> dict[str, Any]:
        """Wait until a rollout is in one of these states, and return it."""
        self.until(f"{rollout} {' or '.join(states)}", lambda: self.rollout(rollout)["state"] in states)
        return self.rollout(rollout)

    def close(self) -> None:
        self.director.kill()
        super().close()


MODEL_FILE = Path(__file__).parents[1] / "models" / f"{MODEL}.tflite"


def changed(change: Callable[[str, F32], F32]) -> bytes:
    """Return the base with other weights. change: name and weights in, weights out."""
    base = model_file(MODEL)
    return write_weights(base, {name: change(name, w).astype(np.float32) for name, w in read_weights(base).items()})


def equal(seed: int = 1) -> bytes:
    """Return a variant that answers as the base does, but for a sample in a thousand."""
    rng = np.random.default_rng([seed, 17])
    return changed(lambda name, w: w + rng.normal(0, 1e-4, w.shape))


def worse() -> bytes:
    """Return a variant that loads and runs, and answers with even digits alone: about half of what was right is wrong."""
    return changed(lambda name, w: w - 100 * (np.arange(len(w)) % 2) if name == "output_bias" else w)


def not_finite() -> bytes:
    """Return a variant whose weights are finite, and whose answers are not."""
    return changed(lambda name, w: w * np.float32(1e30))


@contextmanager
def listening(port: int) -> Iterator[Counter[tuple[str, str]]]:
    """Count the bytes of the payloads that the broker passes on, by device and kind of record, while the block runs."""
    counts: Counter[tuple[str, str]] = Counter()
    heard = threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)

    def take(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        words = message.topic.split("/")
        counts[words[2], words[-1]] += len(message.payload)

    client.on_message = take
    client.on_subscribe = lambda *_: heard.set()
    client.on_connect = lambda c, *_: c.subscribe("e1/#", 1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        assert heard.wait(PATIENCE), "the broker lets nobody listen"
        yield counts
    finally:
        client.disconnect()
        client.loop_stop()


def crashing() -> bytes:
    """Return a variant whose inference ends the process that opens it: a loop whose condition is the subgraph that it stands in."""
    model = schema.ModelT.InitFromPackedBuf(model_file(MODEL), 0)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.WHILE
    code.version = 1
    model.operatorCodes.append(code)
    own, other = [s.subgraphIndex for key in (b"infer", b"eval") for s in model.signatureDefs if s.signatureKey == key]
    for index, body in ((own, other), (other, own)):
        graph, loop = model.subgraphs[index], schema.OperatorT()
        x = graph.tensors[graph.inputs[0]]
        result = schema.TensorT()
        result.name, result.shape, result.type, result.buffer = b"loop", x.shape, x.type, 0
        graph.tensors.append(result)
        loop.opcodeIndex, loop.inputs = len(model.operatorCodes) - 1, np.array(graph.inputs, np.int32)
        loop.outputs = np.array([len(graph.tensors) - 1], np.int32)
        loop.builtinOptionsType, loop.builtinOptions = schema.BuiltinOptions.WhileOptions, schema.WhileOptionsT()
        loop.builtinOptions.condSubgraphIndex, loop.builtinOptions.bodySubgraphIndex = index, body
        graph.operators.append(loop)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def slow() -> bytes:
    """Return a file that takes the samples of the digits and computes a thousand times as much, with a head to be trained."""
    net = NetWriter(5)
    x = first = net.tensor("x", (1, 64))
    shape = net.tensor("shape", (4,), np.array((1, 8, 8, 1), np.int32))
    x = net.op(schema.BuiltinOperator.RESHAPE, "ReshapeOptions", (x, shape), ("image", (1, 8, 8, 1)), newShape=[1, 8, 8, 1])
    x = net.conv(x, WIDE, 3, 1, RELU)
    kernel, bias = net.drawn("kernel", (WIDE, 3, 3, WIDE), 9 * WIDE, 1.0), net.tensor("bias", (WIDE,), np.zeros(WIDE, np.float32))
    for n in range(LAYERS):  # all with the same weights: the file stays small
        x = net.op(schema.BuiltinOperator.CONV_2D, "Conv2DOptions", (x, kernel, bias), (f"conv{n}", (1, 8, 8, WIDE)), strideH=1, strideW=1,
            dilationHFactor=1, dilationWFactor=1, fusedActivationFunction=RELU)  # fmt: skip
    stock = net.file(first, net.softmax(net.dense(net.pooled(x), 10)))
    return graft(stock, Wish(modes=("head",), batch=32)).file
