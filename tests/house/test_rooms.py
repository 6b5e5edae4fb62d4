"""The four packages are houses in rooms: small folders, short modules and functions, doors, no circles, and each name once.

A line counts, whatever is on it; a function has those from its `def` to its last one, functions inside it included. The C core and what is
generated from it are not measured.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable

import pytest

from .imports import PACKAGES, Arrow, arrows, circles, door, modules, room_of, rooms, source_of

MODULES_OF_A_FOLDER = 18
LINES_OF_A_MODULE = 450
LINES_OF_A_FUNCTION = 60
LINES_OF_A_FUNCTION_IN = {"edgeagent.rounds": 50}


def test_no_folder_holds_more_than_18_modules() -> None:
    counts: dict[str, int] = defaultdict(int)
    for path in modules().values():
        counts[str(path.parent)] += path.name != "__init__.py"
    for folder in PACKAGES.values():
        for path in folder.rglob("*.pyx"):
            counts[str(path.parent)] += 1
    none(f"{folder} holds {n}" for folder, n in counts.items() if n > MODULES_OF_A_FOLDER)


def test_no_module_has_more_than_450_lines() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    none(f"{name} has {n}" for name, n in lengths.items() if n > LINES_OF_A_MODULE)


@pytest.mark.slow("reads the source of all packages")
def test_no_function_has_more_than_60_lines_and_none_of_a_round_more_than_50() -> None:
    long = []
    for module in modules():
        most = LINES_OF_A_FUNCTION_IN.get(room_of(module), LINES_OF_A_FUNCTION)
        for node in ast.walk(source_of(module)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > most:
                    long.append(f"{module}.{node.name} has {lines}")
    none(long)


def test_no_file_leads_back_to_itself() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for arrow in arrows():
        graph[arrow.source].add(arrow.target)
    none(" and ".join(circle) for circle in circles(graph))


def test_no_room_leads_back_to_itself() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for arrow in arrows():
        here, there = room_of(arrow.source), room_of(arrow.target)
        if here != there:
            graph[here].add(there)
    none(" and ".join(circle) for circle in circles(graph))


def test_every_room_says_what_it_is_for_and_what_others_may_use() -> None:
    silent = [f"{name} says nothing" for name in (*PACKAGES, *rooms()) if not ast.get_docstring(source_of(name))]
    none(silent + [f"{room} has no __all__" for room in rooms() if door(room) is None])


def test_a_door_hands_out_what_is_there() -> None:
    missing = []
    for room in rooms():
        there = _bound(source_of(room)) | {module.removeprefix(f"{room}.") for module in modules()}
        missing += [f"{room}.{name}" for name in door(room) or () if name not in there]
    none(missing)


def test_who_stands_outside_a_room_takes_only_what_its_door_hands_out() -> None:
    taken = {f"{arrow.source} takes {room}.{what}" for arrow in arrows() for room, what in _doors(arrow) if what not in (door(room) or ())}
    none(taken)


def test_a_public_class_name_stands_once() -> None:
    places = defaultdict(list)
    for module in modules():
        if not any(part.startswith("_") for part in module.split(".")):
            for node in source_of(module).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(module)
    none(f"{name} stands in {', '.join(where)}" for name, where in places.items() if len(where) > 1)


def none(found: Iterable[str]) -> None:
    """Fail with all that was found, a line each."""
    lines = sorted(found)
    assert not lines, "\n" + "\n".join(lines)


def _doors(arrow: Arrow) -> list[tuple[str, str]]:
    """Return the rooms that an arrow enters, each with what it takes from there."""
    whole = f"{arrow.target}.{arrow.name}" if arrow.name else arrow.target
    entered = [room for room in rooms() if f"{whole}.".startswith(f"{room}.") and not f"{arrow.source}.".startswith(f"{room}.")]
    return [(room, whole.removeprefix(f"{room}.").split(".")[0]) for room in entered if whole != room]


def _bound(tree: ast.Module) -> set[str]:
    """Return the names that a module binds, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
