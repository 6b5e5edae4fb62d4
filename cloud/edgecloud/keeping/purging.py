"""Drops the feature rows of recipes: the delta that each came to takes its place, proven first, so the version stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgecloud.registry import LineageRow, SqliteStore, Status, VersionRow
from edgecloud.versions import materialise, unlearning
from modelwire import limits

from .thinning import Hook, LetGo, Thinner


@dataclass(frozen=True, slots=True)
class Purgeable:
    """The recipes of a model whose rows may go."""

    recipes: tuple[VersionRow, ...]
    nameless: tuple[int, ...]  # versions that say not which samples their rows are of
    waiting: tuple[int, ...]  # versions that are not judged yet


def find(store: SqliteStore, lineage: LineageRow, *, every: bool = False) -> Purgeable:
    """Return the recipes that hold rows of samples which a later version has forgotten; every: all of them."""
    versions = store.versions.of(lineage.id)
    drops = unlearning.forgotten_in(versions)
    thinned = store.thinnings.of(lineage.id)
    recipes, nameless, waiting = list[VersionRow](), list[int](), list[int]()
    for version in versions:
        if version.kind != "recipe" or version.id in thinned or version.status is Status.REFUSED:
            continue
        rows = len(materialise.open_container(store, lineage, version).recipe(limits.LARGE).rows)
        named, held = unlearning.holds(version, rows, drops)
        if not (every or held):
            nameless += [] if named or not drops else [version.version]
        elif version.status is Status.STORED:
            waiting.append(version.version)
        else:
            recipes.append(version)
    return Purgeable(tuple(recipes), tuple(nameless), tuple(waiting))


def purge(
    store: SqliteStore, lineage: LineageRow, by: int, recipes: Sequence[VersionRow], *, hook: Hook = lambda step: None,
    clock: Callable[[], float] | None = None,
) -> LetGo:  # fmt: skip
    """Put the deltas in the place of recipes. by: number of the operator's word. What was dropped is written over in the database."""
    store.database.run("PRAGMA secure_delete = ON")
    thinner = Thinner(store, hook=hook) if clock is None else Thinner(store, hook=hook, clock=clock)
    done = thinner.purge(lineage, by, recipes)
    store.database.shorten_log()
    return done
