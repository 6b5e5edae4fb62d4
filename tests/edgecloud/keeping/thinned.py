"""A history that is thinned, and what must hold of it after every step: what tests of thinning and of erasing stand on."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgecloud.audit import tampering
from edgecloud.audit.admissions import Admissions
from edgecloud.keeping import deciding
from edgecloud.keeping.thinning import Thinner
from edgecloud.registry import SqliteStore, open_registry
from edgecloud.versions import materialise
from modelwire.errors import ModelWireError, Thinned
from tests.edgecloud.centre import Centre
from tests.edgecloud.device import ScriptedDevice
from tests.keys import COMMAND


class Killed(BaseException):
    """The process ends here."""


def number(store: SqliteStore) -> int:
    held = Admissions(store.identity)
    held.catch_up(store.log, store.database.path)
    return held.act + 1


def keep(store: SqliteStore, what: str) -> int:
    """Let the operator say what is kept."""
    return deciding.decide_keep(store, COMMAND, what, number(store), 1).number


def thinner(store: SqliteStore) -> Thinner:
    return Thinner(store, clock=lambda: 1000)


def history(centre: Centre, device: ScriptedDevice, what: str) -> None:
    """Let a device send versions, a letter each: d a delta, s a snapshot, r a recipe; all of them verified."""
    for place, letter in enumerate(what):
        if letter == "r":
            centre.deliver(device, device.learn(range(100 + place, 110 + place)))
        else:
            centre.deliver(device, device.train() if letter == "d" else device.snapshot())
    centre.rebuild()


def recoverable(store: SqliteStore) -> dict[str, bytes]:
    """Return the roots of all versions that come back, by name; each is proven. Whatever else is wrong is raised."""
    bases, out = materialise.LoadedBases(store), {}
    for lineage in store.lineages.all():
        for version in store.versions.of(lineage.id):
            name = f"{lineage}@{version.version}"
            try:
                state = materialise.rebuild(store, version, bases)
            except Thinned:
                continue
            assert state.root == version.root, name
            out[name] = state.root
    return out


def wrong(store: SqliteStore) -> list[str]:
    """Return all that verify and audit find."""
    found = store.problems() + tampering.look(store)
    bases = materialise.LoadedBases(store)
    for lineage in store.lineages.all():
        found += [f"{one}: {one.error}" for one in materialise.check_lineage(store, lineage, bases) if one.error is not None]
    return found


def copied(store: SqliteStore, folder: Path) -> SqliteStore:
    """Return the registry as a kill leaves it on the disk, in another folder."""
    folder.mkdir()
    path = store.database.path
    for name in path.parent.glob(f"{path.name}*"):
        if name.is_dir():
            shutil.copytree(name, folder / name.name)
        else:
            shutil.copy(name, folder / name.name)
    return open_registry(folder / path.name, synchronous="OFF")


def error_of(store: SqliteStore, text: str) -> ModelWireError:
    """Return what a version's name comes to that is not to be had."""
    from edgecloud.versions import naming

    place = naming.find(store, naming.parse(text))
    assert place.version is not None
    try:
        materialise.rebuild(store, place.version, materialise.LoadedBases(store))
    except ModelWireError as error:
        return error
    raise AssertionError(f"{text} came back")
