"""What the negative vectors of docs/format/container.md and coder.md are made by: cases, their folder, and good updates to break."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelwire import _core
from modelwire.identity import RootParts, _node
from modelwire.lattice.state import ModelState, fingerprint_of
from modelwire.merkle import merkle
from modelwire.tensors import Dtype, Schema
from modelwire.update.container import seal
from modelwire.update.header import Header
from modelwire.update.sections import AnySection, Kind, Section
from tests.hostile.mutations import Open, opened
from tests.keys import FLEET_ID
from tests.modelwire import golden
from tests.modelwire.models import KEY
from tests.vectors.container_readers import READERS
from tests.vectors.refused import FOLDER, Refused

Held = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A vector before it is written."""

    rule: str
    name: str
    error: str
    read_as: str
    data: bytes
    held: Held = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name of its file, which says the rule, what is wrong, and the error."""
        said = re.sub(r"(?<![0-9a-z])-(?=[0-9])", "minus ", self.name.lower())
        return f"{self.rule}-{re.sub(r'[^a-z0-9]+', '-', said).strip('-')}.{self.error}.bin"


def write(page: str, cases: Iterable[Case]) -> None:
    """Write a page's vectors into a new folder. Raises FileExistsError where there is one, AssertionError when a reader disagrees."""
    made = sorted(cases, key=lambda case: int(case.rule[1:]))
    assert len({case.file for case in made}) == len(made), "two vectors have one name"
    for case in made:
        verdict = Refused(page, FOLDER / case.file, (case.rule,), case.error, case.read_as, case.held)
        try:
            READERS[case.read_as](case.data, case.held)
        except Exception as error:  # noqa: BLE001 - of any kind: what is no ModelWireError is a fault of the reader
            assert type(error).__name__ == case.error, f"{case.file}: {error!r}"
        else:
            raise AssertionError(f"{verdict.file.name}: taken")
    folder = FOLDER / page
    folder.mkdir(parents=True)
    rows = []
    for case in made:
        (folder / case.file).write_bytes(case.data)
        row = {"file": case.file, "rules": [case.rule], "error": case.error, "as": case.read_as, "with": dict(case.held)}
        rows.append(f" {json.dumps({k: v for k, v in row.items() if v != {}})}")
    (folder / "index.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")
    print(f"{len(made)} vectors in {folder}")


def on(folder: str, name: str | None = None) -> Held:
    """Return what a reader holds whose model is at a golden container, or at the folder's base."""
    return {"folder": folder, "on": name}


def update(state: ModelState, kind: Kind, sections: Sequence[AnySection], *, apply_as: Kind | None = None) -> Open:
    """Return a good update of a state, taken apart. apply_as: the kind that its content is of, where `kind` lies about it."""
    after = state.at_base() if kind is Kind.SNAPSHOT else state.copy()
    after.apply(apply_as or kind, sections)
    return sealed(after, kind, sections)


def sealed(after: ModelState, kind: Kind, sections: Sequence[AnySection]) -> Open:
    """Return an update that says that it comes to `after`, taken apart."""
    manifest = after.manifest
    header = Header(
        kind, "pi-7", "digits", 1, 2, manifest.commit, manifest.schema.id, after.root, after.fingerprint,
        manifest.commit if kind is Kind.SNAPSHOT else b"",
    )  # fmt: skip
    return opened(seal(header, sections, manifest.schema, KEY, FLEET_ID).data)


def counted(state: ModelState, o: Open, sections: Sequence[Section]) -> Open:
    """Return an update with the fingerprint that these sections give, though no model has their weights."""
    lanes = fingerprint_of(sections, state.manifest)
    after = [(a + b) % (1 << 64) for a, b in zip(state.fingerprint, lanes, strict=True)]
    return replace(o, fingerprint=struct.pack("<QQ", *after))


def coded(schema: Schema, sections: Sequence[Section]) -> bytes:
    """Return the stream of sections in any order."""
    tensors = [schema.tensors[s.tensor] for s in sections]
    return _core.encode_sections([(t.rows, t.columns, s.index, s.value) for t, s in zip(tensors, sections, strict=True)])


def root_of(schema: Schema, stored: Sequence[bytes], units: Sequence[int], integers: Mapping[int, bytes]) -> bytes:
    """Return the root of stored bytes, whatever they mean. integers: Q by tensor, as int32."""
    nodes = [_node(t, spec, spec.dtype, (memoryview(raw),)) for t, (spec, raw) in enumerate(zip(schema.tensors, stored, strict=True))]
    kept = [_node(t, schema.tensors[t], Dtype.INT32, (memoryview(q),)) for t, q in sorted(integers.items())]
    return RootParts(schema.id, merkle(nodes), tuple(units), merkle(kept)).root


def stored_at(folder: str, name: str | None = None) -> ModelState:
    """Return a state of the golden vectors, to be looked at only."""
    return golden.state_of(folder, name)
