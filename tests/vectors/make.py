"""Write the golden vectors of wire 1. Vectors are only added, never edited: it refuses to overwrite a folder.

    python -m tests.vectors.make
"""

from __future__ import annotations

import json

from modelwire.output_head.forgotten import KEY as FORGOT
from modelwire.output_head.forgotten import Forgotten
from modelwire.update.container import parse, unsigned
from modelwire.update.header import Header
from modelwire.update.manifest import parse_manifest
from modelwire.update.proof import header_proof
from modelwire.update.sections import invert
from modelwire.wire import log, parts, records
from modelwire.wire.commands import Adopt
from modelwire.wire.keys import KeyKind, write_key
from modelwire.wire.records import Command
from modelwire.wire.signing import Role
from tests.keys import FLEET_ID, RECEIPT
from tests.modelwire.update.test_proof import chain
from tests.modelwire.wire.examples import EXAMPLES, KEYS, WHO
from tests.vectors import make_cards, make_protocol, make_recipes, make_updates

from .folder import WIRE_1

RECORDS = """\
# Golden records, parts, keys and links, wire 1

`N-KIND.bin` is one signed record, in the role that `expected.json` names; `example` there is N: records of one N say the same, each in
another role. The update in `6-command.bin` is bytes that count up: right as a record, but no container. `parts-transfer.bin` is a record
`transfer` that describes 5,000 bytes (i * i mod 251 for i from 0) in parts of 1,024, `parts-N.bin` its parts. `adopt.bin` is a command
whose update stands on version 1 of `../updates` (`1-delta`) and leads to the base's weights; it forgets samples; `adopt-plain.bin` is the
same without `forgot`. `keys.json` has a key of each kind as text, `links.json` a log's entries with the 40 bytes of each link and their
signatures.

Of the device the private key is `00 01 02 .. 1f`; of the root, receipt, command and director 32 bytes `f1`, `f2`, `f3` and `f4`.
The fleet id is `00 01 02 .. 0f`. Files are only added, never changed.
"""
PROOFS = """\
# Golden header proofs, wire 1

What is left of twenty versions when their content is gone: `N.bin` is the header proof of version N, each on the one before, the first
on the base whose commit `expected.json` names. It has every version's commit and root too. Signed by the private key `00 01 02 .. 1f`
in the fleet whose id is `00 01 02 .. 0f`. Files are only added, never changed.
"""


def write_records() -> None:
    folder = WIRE_1 / "records"
    folder.mkdir()
    rows = []
    for n, record in enumerate(EXAMPLES):
        for role in record.ROLES:
            name = f"{n}-{record.KIND}" + (f"-{role.name.lower()}" if len(record.ROLES) > 1 else "")
            (folder / f"{name}.bin").write_bytes(records.encode(record, KEYS[role], FLEET_ID, role=role))
            rows.append({"file": f"{name}.bin", "kind": record.KIND, "role": role.name.lower(), "example": n})
    (folder / "expected.json").write_text(json.dumps(rows, indent=1) + "\n")
    whole = bytes(i * i % 251 for i in range(5000))
    out = parts.describe(whole, fleet="demo", device="pi-7", model="digits", at=1_700_000_000, part=2000)
    (folder / "parts-transfer.bin").write_bytes(records.encode(out.transfer, KEYS[Role.DEVICE], FLEET_ID))
    for i in range(out.count):
        (folder / f"parts-{i}.bin").write_bytes(out.cut(i))
    write_adopts()
    keys = {kind.prefix: write_key(kind, bytes(range(kind.value[2]))) for kind in KeyKind}
    (folder / "keys.json").write_text(json.dumps(keys, indent=1) + "\n")
    link, links = None, []
    for entry in (b"admit pi-7", b"", b"revoke pi-7"):
        link = log.next_link(link, entry)
        links.append({"entry": entry.hex(), "link": link.encode().hex(), "signature": link.sign(RECEIPT, FLEET_ID).hex()})
    (folder / "links.json").write_text(json.dumps(links, indent=1) + "\n")
    (folder / "README.md").write_text(RECORDS)


def write_adopts() -> None:
    """Two commands to take over a model: back to the base's weights from version 1, with and without samples to forget."""
    updates = WIRE_1 / "updates"
    manifest = parse_manifest((updates / "manifest.bin").read_bytes())
    first = parse((updates / "1-delta.bin").read_bytes())
    sections = invert(first.sections(manifest.schema))
    for name, extension in (("adopt", {FORGOT: Forgotten((3, 8)).encode()}), ("adopt-plain", {})):
        header = Header(
            first.header.kind, "pi-7", "digits", 1, 2, first.commit, manifest.schema.id, manifest.root, (0, 0), extension=extension
        )
        update = unsigned(header, sections, manifest.schema)
        task = Adopt(update)
        command = Command(*WHO, 12, 1_700_090_000, bytes(range(16)), 1, first.commit, task.VERB, task.body())
        (WIRE_1 / "records" / f"{name}.bin").write_bytes(records.encode(command, KEYS[Role.COMMAND], FLEET_ID))


def write_proofs() -> None:
    folder = WIRE_1 / "proofs"
    folder.mkdir()
    start, containers = chain(20)
    rows = []
    for n, data in enumerate(containers, start=1):
        (folder / f"{n}.bin").write_bytes(header_proof(data))
        whole = parse(data)
        rows.append({"file": f"{n}.bin", "commit": whole.commit.hex(), "root": whole.header.root.hex()})
    (folder / "expected.json").write_text(json.dumps({"base": start.manifest.commit.hex(), "versions": rows}, indent=1) + "\n")
    (folder / "README.md").write_text(PROOFS)


def main() -> None:
    """Write all folders."""
    make_updates.main()
    make_recipes.main()
    write_records()
    write_proofs()
    make_protocol.main()
    make_cards.main()


if __name__ == "__main__":
    main()
