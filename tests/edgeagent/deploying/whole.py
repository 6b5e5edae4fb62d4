"""What holds of a board's files at every start, whatever was under way: the model is served whole from one place; nothing is left over."""

from __future__ import annotations

import hashlib
import os

from edgeagent.state.history import Head
from edgeagent.state.lineage import Lineage
from edgeagent.troubles.noted import all_noted
from tests.edgeagent.boards import Rig


def check_whole(r: Rig, *, fresh: bool = False) -> None:
    """Raise AssertionError unless the files of the rig's model are those that its rows name, and no others.

    fresh: it was just opened; later each place may have its other slot, too.
    """
    lineage, folder = r.lineage, r.lineage.store.folder
    head, soaking = lineage.head(), lineage.beside.soaking()
    served = hashlib.sha256(lineage.store.served.read_bytes()).digest()
    assert served == (soaking.file_sha256 if soaking is not None else head.file_sha256), "served is another model than the rows say"
    place, slot = (soaking.place, soaking.slot) if soaking is not None else (head.place, head.slot)
    assert os.readlink(lineage.store.served) == os.path.join(place, slot, "model.tflite")
    assert lineage.load().state.root == root_of(lineage), "the head's weights are not those of its version"
    for placed in lineage.beside.all():
        assert lineage.beside_store(placed).base()
        if placed.slot:
            lineage.load_beside(placed)
    wanted = {f"{p}/base.tflite".lstrip("/") for p in lineage.named()}
    wanted |= {f"{p}/{s}/{f}".lstrip("/") for p, slots in lineage.named().items() for s in slots for f in ("model.tflite", "private")}
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()}
    kept = {name for name in there if name.startswith("history/")}
    others = set() if fresh else {f"{p}/{s}/{f}".lstrip("/") for p in lineage.named() for s in "ab" for f in ("model.tflite", "private")}
    assert there - kept - {"round", "sent"} - (others - wanted) == wanted | {"served.tflite"}, "what no row names, or not all that is"
    assert [one for one in all_noted(r.device.database) if one.id != "served-gone"] == []


def root_of(lineage: Lineage) -> bytes:
    """Return the root that the head's version is said to have; the base's where there is none."""
    head: Head = lineage.head()
    row = lineage.version(head.version)
    return bytes(row["root"]) if row is not None else lineage.manifest.root
