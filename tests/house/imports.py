"""What imports what in the four packages, read from their source: nothing is run, and what is imported in a function counts too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .pages import ROOT

PACKAGES = {
    "modelwire": ROOT / "modelwire",
    "edgecommon": ROOT / "edgecommon",
    "edgeagent": ROOT / "edgeagent",
    "edgecloud": ROOT / "cloud" / "edgecloud",
}


@dataclass(frozen=True, slots=True)
class Arrow:
    """A module that imports another, or a name out of it."""

    source: str
    target: str  # the module
    name: str  # what is taken out of it; empty where it is taken whole


@cache
def modules() -> dict[str, Path]:
    """Return the file of each module and, under its own name, of each package."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


@cache
def rooms() -> dict[str, Path]:
    """Return the `__init__.py` of each room: of each package inside one of the four."""
    return {name: path for name, path in modules().items() if path.name == "__init__.py" and name not in PACKAGES}


@cache
def source_of(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


def door(room: str) -> list[str] | None:
    """Return what a room's `__all__` lists, which may be nothing; None where it has none."""
    for node in source_of(room).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def room_of(module: str) -> str:
    """Return the room in which a module stands, inner rooms counted as their outer one; a module beside the rooms is its own."""
    outer = ".".join(module.split(".")[:2])
    return outer if outer in rooms() else module


@cache
def arrows() -> tuple[Arrow, ...]:
    """Return all that modules of the four packages import of each other; what only a type checker imports is left out."""
    return tuple(
        arrow for module in modules() for node in _nodes(source_of(module)) for arrow in _arrows(module, node) if arrow.target != module
    )


def circles(graph: Mapping[str, Set[str]]) -> list[list[str]]:
    """Return the sets of two and more nodes of which each leads to each other one."""
    reached = {node: _reached(graph, node) for node in graph}
    together = {frozenset({node, *(other for other in there if node in reached.get(other, ()))}) for node, there in reached.items()}
    return sorted(sorted(nodes) for nodes in together if len(nodes) > 1)


def _reached(graph: Mapping[str, Set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        new = graph.get(todo.pop(), set()) - seen
        seen |= new
        todo += new
    return seen


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _nodes(node)


def _arrows(module: str, node: ast.AST) -> Iterator[Arrow]:
    if isinstance(node, ast.Import):
        yield from (Arrow(module, alias.name, "") for alias in node.names if alias.name in modules())
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = module.split(".") if module in rooms() or module in PACKAGES else module.split(".")[:-1]
            base = ".".join([*above[: len(above) - node.level + 1], *([node.module] if node.module else [])])
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            if whole in modules():
                yield Arrow(module, whole, "")
            elif base in modules():
                yield Arrow(module, base, alias.name)
