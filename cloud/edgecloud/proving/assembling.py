"""Makes verify_proof.py: the verifier's modules as one file that needs no other of this project."""

from __future__ import annotations

import ast
from importlib.resources import files

from . import verifier

_HEAD = '''"""Checks what `edgecloud prove` and `edgecloud evidence` wrote, from the fleet's public key alone.

    python verify_proof.py proof.zip --fleet fleet.pub
    python verify_proof.py evidence.jsonl --fleet fleet.pub

One file, for Python 3.10 and later with numpy and cryptography. It imports nothing of the project, decodes no update and runs no model.
Take it from the project's release, and fleet.pub from whom you trust: neither from whoever hands you the proof.
Exit code 0: proven, and what is printed is what is proven. 1: not proven, and the line names the field. 2: it could not be read.
"""

from __future__ import annotations

'''


def verify_proof_py() -> str:
    """Return the program's text."""
    imports: set[str] = set()
    bodies = []
    for name in verifier.MODULES:
        text = files(verifier).joinpath(f"{name}.py").read_text("utf-8")
        bodies.append(_body(text, imports))
    plain = sorted(one for one in imports if one.startswith("import "))
    named = sorted(one for one in imports if one.startswith("from "))
    ours = [one for one in (*plain, *named) if "numpy" in one or "cryptography" in one]
    others = [one for one in (*plain, *named) if one not in ours]
    return _HEAD + "\n".join(others) + "\n\n" + "\n".join(ours) + "\n" + "".join(bodies)


def _body(text: str, imports: set[str]) -> str:
    """Return a module without its imports, which are noted; what it says it is for becomes a comment."""
    tree, lines = ast.parse(text), text.splitlines()
    said = ast.get_docstring(tree) or ""
    last = 0
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not node.level and node.module != "__future__":
            imports.update(f"from {node.module} import {one.name}" for one in node.names)
        elif isinstance(node, ast.Import):
            imports.update(f"import {one.name}" + (f" as {one.asname}" if one.asname else "") for one in node.names)
        elif not isinstance(node, (ast.ImportFrom, ast.Expr)):
            last = node.lineno if last == 0 else last
    started = last - 1
    while lines[started - 1].startswith(("#", "@")):
        started -= 1
    comment = "\n".join(f"# {line}".rstrip() for line in said.splitlines())
    return f"\n\n{comment}\n\n" + "\n".join(lines[started:]).rstrip() + "\n"
