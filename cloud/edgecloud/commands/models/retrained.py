"""What `replay` and `forget` share: a model trained anew beside the one that is stored, and the file that it may go to."""

from __future__ import annotations

from pathlib import Path

from edgecloud.versions import comparing, exporting, materialise
from modelwire.errors import BadArgument
from modelwire.lattice.state import ModelState

from ..answer import Document


def distance(one: ModelState, other: ModelState) -> Document:
    """Return what a document says of the way from one state to another."""
    apart = comparing.distance(one, other)
    units = [t.units for t in apart.tensors if t.units is not None]
    return {
        "root": other.root, "changed": apart.changed, "entries": apart.entries, "units": sum(units), "largest_units": apart.largest_units,
        "max_abs": apart.largest, "l2": apart.l2,
    }  # fmt: skip


def in_words(d: Document) -> str:
    """Return the same as a line of text."""
    if not d["changed"]:
        return "nothing: bit for bit the same"
    most = f", at most {d['largest_units']} units" if d["largest_units"] is not None else ""
    return f"{d['changed']} of {d['entries']} weights{most} ({d['max_abs']:.6g})"


def output_path(name: str | None) -> Path | None:
    """Return where a result is to be written, if anywhere. Raises BadArgument for a name of no format."""
    path = None if name is None else Path(name)
    if path is not None and path.suffix not in exporting.FORMATS:
        raise BadArgument(reason=f"{path.name!r} names no format", fix="name the file FILE.tflite, FILE.npz or FILE.safetensors")
    return path


def write(path: Path, state: ModelState, base: materialise.LoadedBase, name: str, document: Document) -> None:
    """Write a state in the format that the path names, and say so in the document."""
    said = {"name": name, "root": state.root.hex(), "base": base.manifest.commit.hex()}
    document["file"], document["bytes"] = str(path), len(exporting.export(path, state, base, said))
