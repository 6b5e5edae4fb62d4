"""Whether the bytes of an update decode to what its header says, before any of them is kept. Writes nothing, and needs no parent."""

from __future__ import annotations

from modelwire import limits
from modelwire.errors import IndexOutOfRange
from modelwire.tensors import Schema
from modelwire.update import planes
from modelwire.update.container import CODEC_RANGE, Container
from modelwire.update.sections import Kind

ENTRIES_MOST = 8 * 1024 * 1024  # that are decoded at once; a larger update is judged by a worker, and its bytes count until then


def require_content(container: Container, schema: Schema, limit: limits.Limits = limits.DEFAULT) -> None:
    """Raise what keeps a container from being decoded: Malformed, IndexOutOfRange, WrongBase or TooLarge.

    That it decodes says nothing of what it makes of a model: the root does, once that is rebuilt. Memory is bounded by ENTRIES_MOST and
    one block of planes.
    """
    if container.header.kind is Kind.RECIPE:
        container.recipe(limit)
        return
    container.check_schema(schema)
    coded = [entry for entry in container.entries if entry.codec == CODEC_RANGE]
    for entry in coded:  # however large: a count that no tensor has room for must not be the way around
        size = schema.tensors[entry.tensor].size if entry.tensor < len(schema.tensors) else 0
        if entry.count > size:
            raise IndexOutOfRange(tensor=entry.tensor, index=entry.count, size=size)
    if sum(entry.count for entry in coded) <= ENTRIES_MOST:
        for section in container.sections(schema):
            del section  # decoded, and that is all
    for dense in container.plane_sections(schema).values():
        for block in planes.blocks(dense.planes, dense.entries, dense.dtype.width):
            block.unpack(dense.dtype.width)
