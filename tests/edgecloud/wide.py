"""Models of any size for tests of the store: a file that lists weights and computes nothing, and devices that move some of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache

import numpy as np

from edgecloud.graft.stock import read as read_stock
from edgecloud.graft.writing.build import FileBuilder, GraphBuilder
from edgecloud.registry import HeadRow, NewVersion, SqliteStore, VersionRow
from modelwire.lattice.state import ModelState
from modelwire.tensors import TensorClass
from modelwire.update.container import seal
from modelwire.update.header import Header
from modelwire.update.sections import AnySection, Kind, section_of
from modelwire.wire import cbor
from tests.edgecloud.device import TINY, Base, key_of
from tests.keys import FLEET_ID


@cache
def wide_base(weights: int, columns: int = 1024, rows: int = 512) -> Base:
    """Return a base of so many weights in matrices, the same each time."""
    file = FileBuilder(read_stock(TINY.read_bytes()))
    initial, listed = GraphBuilder(file, "initial"), GraphBuilder(file, "get_weights")
    listed.call_once(initial)
    outputs = {}
    for t in range(-(-weights // (rows * columns))):
        size = min(weights - t * rows * columns, rows * columns)
        shape = (size // columns, columns) if size % columns == 0 else (size,)
        value = np.random.default_rng(t).standard_normal(size, np.float32).reshape(shape) * np.float32(0.05)
        name = f"kernel_{t:02}"
        initial.assign(initial.variable(name), initial.constant_of(value))
        outputs[name] = listed.read(listed.variable(name), shape)
    file.sign("get_weights", listed, {}, outputs)
    return Base(file.write({}))


class WideDevice:
    """Moves random weights of a wide base by a few units and seals what moved. Its versions go straight into a registry, as verified."""

    def __init__(self, base: Base, name: str = "pi-7", seed: int = 0) -> None:
        self.base, self.name, self.key = base, name, key_of(name)
        self.state = ModelState.of_base(base.manifest, base.weights)
        self.rng = np.random.default_rng([seed, *name.encode()])
        self.version, self.head = 0, base.manifest.commit

    def moved(self, share: float) -> tuple[AnySection, ...]:
        """Return an update of a share of the weights, and move by it."""
        out: list[AnySection] = []
        for t, q in enumerate(self.state.integers):
            assert self.base.manifest.classes[t] is TensorClass.LATTICE
            count = self.rng.binomial(len(q), share)
            if not count:
                continue
            index = np.unique(self.rng.integers(0, len(q), count)).astype(np.uint32)
            steps = self.rng.choice(np.array([-3, -2, -1, 1, 2, 3]), len(index), p=[0.02, 0.08, 0.4, 0.4, 0.08, 0.02])
            section = section_of(t, steps.astype(np.int64) * 96, self.state.exponents[t], index=index)
            if section is not None:
                out.append(section)
        self.state.apply(Kind.DELTA, out)
        return tuple(out)

    def seal(self, kind: Kind, sections: tuple[AnySection, ...], root: bytes | None = None) -> tuple[Header, bytes, bytes]:
        """Return header, commit and bytes of the next version. root: where it is known already."""
        header = Header(
            kind, self.name, "wide", 1, self.version + 1, self.head, self.base.manifest.schema.id,
            self.state.root if root is None else root, self.state.fingerprint,
            self.base.manifest.commit if kind is Kind.SNAPSHOT else b"",
        )  # fmt: skip
        made = seal(header, sections, self.base.manifest.schema, self.key, FLEET_ID)
        self.version, self.head = header.version, made.commit
        return header, made.commit, made.data


def enrol(store: SqliteStore, device: WideDevice) -> int:
    """Make a lineage for a device, with its base and epoch, and return it."""
    store.devices.add(device.name, device.key.public, 1)
    lineage = store.lineages.ensure(device.name, "wide").id
    store.lineages.grant(lineage, hashlib.sha256(device.name.encode()).digest()[:16], device.base.manifest.commit, 1)
    return lineage


def add_version(store: SqliteStore, lineage: int, made: tuple[Header, bytes, bytes], base: bytes, *, at: int = 1) -> VersionRow:
    """Keep a sealed update as the ingester does, and call it verified."""
    header, commit, data = made
    head = store.lineages.head(lineage, 1)
    assert head is not None and head.commit == header.parent
    extension = cbor.encode(dict(header.extension)) if header.extension else b""
    lanes = header.fingerprint[0].to_bytes(8, "little") + header.fingerprint[1].to_bytes(8, "little")
    row = store.versions.add(
        NewVersion(
            lineage, 1, header.version, header.kind.name.lower(), commit, header.parent, head.version_id, base, header.root, lanes,
            store.blobs.put(data), len(data), at, extension,
        )
    )  # fmt: skip
    store.lineages.move_head(lineage, 1, header.parent, HeadRow(row.id, commit, header.version))
    store.versions.verify(row.id)
    found = store.versions.by_id(row.id)
    assert found is not None
    return found


def grow(store: SqliteStore, lineage: int, device: WideDevice, shares: Mapping[int, float] | list[float]) -> list[VersionRow]:
    """Add a version for each share of weights that moves, in one transaction."""
    with store.transaction():
        values = list(shares.values()) if isinstance(shares, Mapping) else shares
        return [
            add_version(store, lineage, device.seal(Kind.DELTA, device.moved(share)), device.base.manifest.commit) for share in values
        ]
