"""Write the worked examples into the pages of the format, between `<!-- example: NAME -->` and `<!-- end -->`.

    python -m tests.vectors.page_examples

The device's private key is 00 01 .. 1f, the fleet id 00 01 .. 0f. A page may have other examples: they are left as they are.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from modelwire.lattice.state import ModelState
from modelwire.tensors import Dtype, Schema, TensorSpec
from modelwire.update.container import seal
from modelwire.update.header import Header
from modelwire.update.manifest import manifest_for
from modelwire.update.proof import header_proof
from modelwire.update.sections import Kind, Section, Sections
from tests.keys import FLEET_ID, NO_FILE
from tests.modelwire.models import KEY, exact_update

ROOT = Path(__file__).parents[2]
_PLACE = re.compile(r"<!-- example: ([a-z-]+) -->\n(?:(?:(?!<!-- example:).)*?<!-- end -->\n)?", re.S)


@dataclass(frozen=True)
class Update:
    """An example: a base, what becomes of it, and the container that says so."""

    base: ModelState
    after: ModelState
    data: bytes


def _sealed(base: ModelState, kind: Kind, sections: Sections, after: ModelState) -> Update:
    m = base.manifest
    header = Header(kind, "pi-7", "digits", 1, 1, m.commit, m.schema.id, after.root, after.fingerprint)
    return Update(base, after, seal(header, sections, m.schema, KEY, FLEET_ID).data)


@cache
def delta() -> Update:
    """Two entries of a tensor of 2 x 4 move by 3 and -1 steps of 40 units."""
    schema = Schema((TensorSpec("dense_kernel", (2, 4)),))
    flat = [np.array([0.5, -0.25, 1, -0.0, 0.125, 0.75, -1, 0], np.float32)]
    base = ModelState.of_base(manifest_for(schema, flat, **NO_FILE, exponents={}), flat)
    section = Section(0, np.array([1, 6], np.uint32), np.array([3, -1], np.int32), 40, base.exponents[0])
    after = base.copy()
    after.apply(Kind.DELTA, (section,))
    return _sealed(base, Kind.DELTA, (section,), after)


@cache
def exact() -> Update:
    """Two entries of an exact float16 tensor move by 1 and -1."""
    schema = Schema((TensorSpec("head", (4,), Dtype.FLOAT16),))
    flat = [np.array([1, -2, 0.5, 0], np.float32)]
    base = ModelState.of_base(manifest_for(schema, flat, **NO_FILE, exponents={}, exact=True), flat)
    kind, sections, after = exact_update(base, [np.array([1 + 2**-10, -2, 0.5, -0.0], np.float32)])
    return _sealed(base, kind, sections, after)


def block(data: bytes) -> str:
    """Return bytes as an indented block of Markdown: 32 a line, four by four."""
    lines = [data[i : i + 32] for i in range(0, len(data), 32)]
    return "\n".join("    " + line.hex(" ", -4) for line in lines)


def _manifest(made: Update) -> str:
    manifest = made.base.manifest
    return f"{block(manifest.encode())}\n\nIts SHA-256, the commit of version 0, is `{manifest.commit.hex()}`."


def _container(made: Update) -> str:
    return f"{len(made.data)} bytes, 32 a line:\n\n{block(made.data)}"


def _root_proof() -> str:
    parts = delta().after.root_parts
    told = f"The root proof of version 1 of the example is\n\n{block(parts.encode())}\n\n"
    return f"{told}Its unit is `f2`, e = -14, and its Q node that of no tensors. Its SHA-256 is the root\n`{parts.root.hex()}`."


def _header_proof() -> str:
    proof = header_proof(delta().data)
    commit = delta().data[-96:-64].hex()
    return f"The header proof of the example has {len(proof)} bytes:\n\n{block(proof)}\n\nIts commit is `{commit}`."


def _refused() -> str:
    text = """\
`refused` has the negative vectors, a folder for each page: bytes that every reader refuses. The `index.json` of a folder lists
them: `file`; `rules`, the numbers of the rules that it breaks; `error`; `as`, how the bytes are read; `with`, what the reader
holds. Of a container that is a golden `folder` with the container `on` whose state is the parent's (null: the base), or a base as
`manifest` and `weights` in hexadecimal; `limits` other than the default ones; a `fleet_id` or `key` other than those of all
vectors. Each breaks its own rule and is right in all else, as far as bytes can be: commit, lengths, checksums, signature, and mostly
the root of what a reader comes to that forgets the rule."""
    return "\n".join(textwrap.wrap(" ".join(text.split()), 130, break_on_hyphens=False, break_long_words=False))


EXAMPLES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/format/container.md": {
        "container-delta": lambda: _container(delta()),
        "manifest-delta": lambda: _manifest(delta()),
        "root-proof": _root_proof,
        "header-proof": _header_proof,
        "manifest-exact": lambda: _manifest(exact()),
        "container-exact": lambda: _container(exact()),
    },
    "docs/format/README.md": {"vectors-refused": _refused},
}


def filled(page: str, text: str) -> str:
    """Return a page's text with its examples as they are now. Raises KeyError for one that nobody makes."""
    return _PLACE.sub(lambda place: f"<!-- example: {place[1]} -->\n\n{EXAMPLES[page][place[1]]()}\n\n<!-- end -->\n", text)


def main() -> None:
    """Fill the pages."""
    for page in EXAMPLES:
        path = ROOT / page
        path.write_text(filled(page, path.read_text()))


if __name__ == "__main__":
    main()
