"""A fleet whose devices publish every kind of update of every kind of model: what proofs are made of, and attacked on."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgecloud.graft.writing import flat
from edgecloud.graft.writing.flat import TableNode, TableVector
from edgecloud.proving.verifier.placing import ASSIGN_VARIABLE, CALL_ONCE, READ_VARIABLE, VAR_HANDLE
from edgecloud.registry import LineageRow, SqliteStore, VersionRow
from modelwire.lattice.between import exact_sections
from modelwire.lattice.snap import snap
from modelwire.tensors import Dtype, Held
from modelwire.tflite.file import parse_trainable, read_weights
from modelwire.update.manifest import manifest_of
from modelwire.update.sections import Kind
from tests.edgecloud.centre import Centre, add_base, admit, make_registry, revoke, sign
from tests.edgecloud.device import TINY, Base, ScriptedDevice, Sent, key_of
from tests.edgecloud.keeping.thinned import keep, thinner
from tests.stock import STOCK

MODELS = TINY.parent


class AnyBase(Base):
    """A base of any tensors, on the lattice or exact."""

    def __init__(self, file: bytes, *, exact: bool = False) -> None:
        self.file, self.manifest, self.parsed = file, manifest_of(file, exact=exact), parse_trainable(file)
        self.weights = tuple(self.manifest.schema.flat(read_weights(self.parsed)))


class AnyDevice(ScriptedDevice):
    """Moves tensors of every type, each by steps that it has."""

    def train(self, *, density: float = 0.2, **header: object) -> Sent:
        trained = [self._moved(t, w) for t, w in enumerate(self.state.weights)]
        if self.base.manifest.all_exact:
            sections = exact_sections(self.state, trained)
            self.state.apply(Kind.EXACT, sections)
            return self.seal(Kind.EXACT, sections, **header)
        round = snap(self.state, trained, self.residual, density=density, max_bytes=1 << 20)
        self.state, self.residual = round.state, round.residual
        return self.seal(Kind.DELTA, round.sections, **header)

    def _moved(self, tensor: int, w: Held) -> Held:
        spec, rng = self.base.manifest.schema.tensors[tensor], self.rng
        if spec.name in ("head_output_zero", "head_kernel_scale", "head_bias_scale"):
            return w  # two halves of one number, and scales that must fit each other
        if spec.name == "head_bias" and len(spec.shape) == 2:
            return w  # of 64 bits: two halves each
        if spec.dtype is Dtype.INT32:
            return w + rng.integers(-3, 4, len(w)).astype(np.int32)
        if spec.dtype is Dtype.INT8:
            return np.clip(w + rng.integers(-3, 4, len(w)), -127, 127).astype(np.float32)
        if "scale" in spec.name or not self.base.manifest.lattice(tensor):
            moved = (w * np.float32(1 + 0.01 * rng.random())).astype(np.float32)
        else:
            moved = w + rng.standard_normal(len(w)).astype(np.float32) * np.float32(0.01)
        return moved.astype(np.float16).astype(np.float32) if spec.dtype is Dtype.FLOAT16 else moved


def float16_file() -> bytes:
    """Return a file that has float16 weights and what is read of a trainable file: no converter writes one that trains."""
    rng = np.random.default_rng(16)
    weights = {f"w{n}": rng.standard_normal(size).astype("<f2") for n, size in enumerate((70_000, 12, 3))}
    first, getter, buffers, names = Subgraph(), Subgraph(), [TableNode({})], []
    getter.operators.append(operator(3, [], [], 103, {0: flat.i32(1)}))  # CALL_ONCE of the other one
    for name, value in weights.items():
        buffers.append(TableNode({0: flat.data(value.tobytes())}))
        handles = [graph.variable(name) for graph in (first, getter)]
        first.operators.append(operator(2, [handles[0], first.tensor(1, value.shape, len(buffers) - 1)], [], 0, {}))  # ASSIGN_VARIABLE
        read = getter.tensor(1, value.shape, 0)
        getter.operators.append(operator(1, [handles[1]], [read], 0, {}))  # READ_VARIABLE
        names.append(TableNode({0: flat.text(name), 1: flat.u32(read)}))
        getter.outputs.append(read)
    signature = TableNode({1: TableVector(names), 2: flat.text("get_weights"), 4: flat.u32(0)})
    codes = [TableNode({0: flat.i8(127), 3: flat.i32(code)}) for code in (VAR_HANDLE, READ_VARIABLE, ASSIGN_VARIABLE, CALL_ONCE)]
    root = TableNode({
        0: flat.u32(3), 1: TableVector(codes), 2: TableVector([getter.table(), first.table()]), 4: TableVector(buffers),
        7: TableVector([signature]),
    })  # fmt: skip
    return flat.write(root, b"TFL3", b"")


class Subgraph:
    """A subgraph that is being written."""

    def __init__(self) -> None:
        self.tensors: list[TableNode] = []
        self.operators: list[TableNode] = []
        self.outputs: list[int] = []

    def tensor(self, kind: int, shape: tuple[int, ...], buffer: int) -> int:
        self.tensors.append(TableNode({0: flat.integers(shape), 1: flat.i8(kind), 2: flat.u32(buffer)}))
        return len(self.tensors) - 1

    def variable(self, name: str) -> int:
        """Add a VAR_HANDLE and return the tensor of its handle."""
        handle = self.tensor(13, (), 0)
        self.operators.append(operator(0, [], [handle], 111, {0: flat.text(""), 1: flat.text(name)}))
        return handle

    def table(self) -> TableNode:
        return TableNode({
            0: TableVector(self.tensors), 1: flat.integers([]), 2: flat.integers(self.outputs), 3: TableVector(self.operators),
        })  # fmt: skip


def operator(code: int, takes: list[int], gives: list[int], kind: int, options: dict[int, flat.Number | flat.Node]) -> TableNode:
    fields: dict[int, flat.Number | flat.Node] = {0: flat.u32(code), 1: flat.integers(takes), 2: flat.integers(gives)}
    return TableNode(fields | ({3: flat.u8(kind), 4: TableNode(options)} if kind else {}))


@dataclass
class Fleet:
    """One registry and who is in it."""

    store: SqliteStore
    centre: Centre
    devices: dict[str, ScriptedDevice] = field(default_factory=dict)

    @property
    def key(self) -> bytes:
        """What fleet.pub holds."""
        return self.store.identity.root + self.store.identity.id

    def lineage(self, device: str) -> LineageRow:
        lineage = self.store.lineages.get(device, "digits")
        assert lineage is not None
        return lineage

    def version(self, device: str, number: int) -> VersionRow:
        row = self.store.versions.numbered(self.lineage(device).id, number)
        assert row is not None
        return row

    def versions(self) -> Iterator[VersionRow]:
        """Yield all versions that are served."""
        for name in self.devices:
            yield from self.store.versions.of(self.lineage(name).id)


def bases() -> dict[str, Base]:
    """Return bases of every type and class, by the name of the device that is on each."""
    tiny = TINY.read_bytes()
    return {
        "float32": AnyBase(tiny), "exact": AnyBase(tiny, exact=True), "float16": AnyBase(float16_file()),
        "mixed": AnyBase((MODELS / "mixed.tflite").read_bytes()), "large": AnyBase((MODELS / "digits.tflite").read_bytes()),
        "motion": AnyBase((MODELS / "motion.tflite").read_bytes(), exact=True),
        "int8-softmax": AnyBase((STOCK / "int8_softmax.tflite").read_bytes()),
        "int8-two-outputs": AnyBase((STOCK / "int8_two_outputs.tflite").read_bytes()),
        "int8-wide": AnyBase((STOCK / "int8_wide_conv.tflite").read_bytes()),
    }  # fmt: skip




def make_fleet(folder: Path, rounds: int = 3) -> Fleet:
    """Return a fleet that has published deltas, exact updates, recipes, snapshots, in larger units and on another base.

    rounds: updates of each device; one more has a key that was replaced, and one that was revoked.
    """
    store = make_registry(folder / "fleet.db", None)
    centre = Centre(store)
    fleet = Fleet(store, centre)
    made = bases()
    for name, base in made.items():
        add_base(store, base, name)
        fleet.devices[name] = centre.meet(AnyDevice(base, name=name))
    fleet.devices["recipes"] = centre.meet(AnyDevice(made["float32"], name="recipes"))
    fleet.devices["replaced"] = centre.meet(AnyDevice(made["float32"], name="replaced"))
    for number in range(rounds):
        for name, device in fleet.devices.items():
            sent = device.learn(range(number * 9, number * 9 + 30)) if name == "recipes" else device.train()
            centre.deliver(device, sent)
    for name in ("float32", "float16", "exact"):
        centre.deliver(fleet.devices[name], fleet.devices[name].snapshot())
    _other_base(fleet, made["float32"])
    _other_key(fleet)
    centre.rebuild()
    return fleet


def _other_base(fleet: Fleet, base: Base) -> None:
    """One device goes over to another base by a snapshot, and on from there."""
    file = bytearray(base.file)
    v = base.parsed.variables[-1]
    file[v.offset : v.offset + 4] = struct.pack("<f", 0.125)
    other, device = AnyBase(bytes(file)), fleet.devices["float32"]
    add_base(fleet.store, other, "float32-2")
    fleet.centre.deliver(device, device.rebase(other))
    fleet.centre.deliver(device, device.train())


def _other_key(fleet: Fleet) -> None:
    """One device's key is revoked, and another one speaks for it."""
    device = fleet.devices["replaced"]
    revoke(fleet.store, device.name, 2000)
    device.key = key_of(device.name, 1)
    admit(fleet.store, device.name, device.key.public, 2001)
    fleet.centre.deliver(device, device.train())


def make_thinned(folder: Path) -> Fleet:
    """Return a fleet of which one device's versions 1 to 5 are gone, 6 is led to by a squash, and 7 has its own update."""
    folder.mkdir(parents=True, exist_ok=True)
    base = AnyBase(TINY.read_bytes())
    store = make_registry(folder / "fleet.db", base)
    fleet = Fleet(store, Centre(store))
    for name in ("thinned", "beside"):
        device = fleet.devices[name] = fleet.centre.meet(AnyDevice(base, name=name))
        fleet.centre.deliver(device, *(device.train() for _ in range(7)))
    fleet.centre.rebuild()
    keep(store, "last 2")
    thinner(store).run([fleet.lineage("thinned")])
    sign(store)
    return fleet
