"""Devices in memory that are sent variants of the tiny model: the file comes from memory, and what tries it is in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.deploying import hosts, places, probe_child, probing
from edgeagent.deploying.board_means import BoardMeans
from edgeagent.deploying.desired_store import DesiredStore
from edgeagent.deploying.machine import DeployMachine
from edgeagent.deploying.means import DeployTarget, Fetched, Probed
from edgeagent.deploying.probing import OpenModel, ProbeRules
from edgeagent.fetching.over_http import CountsMonth
from edgeagent.service.agent import Agent
from edgeagent.state.folder import DeviceFolder
from edgeagent.state.lineage import Lineage
from edgeagent.system.clock import Clock
from modelwire.deploying import variants
from modelwire.deploying.terms import DeployTerms
from modelwire.deploying.variants import Variant
from modelwire.tflite.file import read_weights, write_weights
from modelwire.update.manifest import manifest_of
from modelwire.wire.records import Desired, Report
from tests import keys
from tests.edgeagent.boards import TINY, Rig, rig, scripted
from tests.edgeagent.centre import Centre

FAR = 1 << 40


def other_base(seed: int = 1, scale: float = 0.3) -> bytes:
    """Return another base of the tiny model: the same shapes, other weights."""
    rng = np.random.default_rng(seed)
    weights = read_weights(TINY)
    return write_weights(TINY, {n: (w + rng.normal(0, scale, w.shape)).astype(np.float32) for n, w in weights.items()})


def variant_of(file: bytes, **said: Any) -> Variant:
    """Return the variant whose file this is."""
    m = manifest_of(file)
    fields: dict[str, Any] = {
        "fleet": "home", "model": "tiny", "name": "night", "commit": m.commit, "file": m.file_sha256, "size": m.file_size,
        "tree": m.file_tree, "schema": m.schema.id, "exact": False, "runtime": "", "ram": 0, "parents": (), "at": 0, "number": 1, **said,
    }  # fmt: skip
    return Variant(**fields)


def bring(file: bytes, number: int = 1, *, expiry: int = FAR, **said: Any) -> Desired:
    """Return a desired that brings a file. said: of its terms."""
    variant = variant_of(file)
    terms = DeployTerms(b"r" * 16, variants.statement(variant, keys.ROOT, keys.FLEET_ID), **{"soak": 20, "slower": 0, **said})
    return Desired("home", "pi-7", "tiny", 0, number, expiry, variant.commit, variant.size, 2, more=terms.as_map())


def back_to(file: bytes, number: int) -> Desired:
    """Return a desired that names the way back."""
    terms = DeployTerms(b"r" * 16, soak=5, back=True, slower=0)
    return Desired("home", "pi-7", "tiny", 0, number, FAR, manifest_of(file).commit, 0, 2, more=terms.as_map())


class HereMeans(BoardMeans):
    """Means whose file comes from memory in two looks, and that try it in this process."""

    files: dict[bytes, bytes]
    open_model: OpenModel = staticmethod(scripted)

    def fetch(self, desired: Desired, terms: DeployTerms, variant: Variant, now: float) -> Fetched:
        file = self.files[variant.file]
        path = self._coming / "file"
        self._coming.mkdir(exist_ok=True)
        if not path.exists():
            path.write_bytes(file[:100])
            return Fetched(False, 100)
        path.write_bytes(file)
        self.received = path
        return Fetched(True, len(file))

    def stage(self, desired: Desired, variant: Variant) -> None:
        places.stage(self._lineage, variant, self._coming / "file", number=desired.number, now=0)
        self.forget_file()

    def probe(self, commit: bytes, terms: DeployTerms) -> None:
        self.tried = commit, terms

    def probed(self) -> Probed | None:
        (commit, terms), lineage = self.tried, self._lineage
        placed = places.found(lineage, commit)
        assert placed is not None
        rules = ProbeRules(terms.slower, terms.worse, 0.02)
        samples = probing.held_out(self._device.spool, lineage.name, 0.2, 512)
        ways = probe_child.candidates(lineage, placed, terms.learned == "anew")
        return probing.told(lambda: probing.probe(lineage.name, lambda: lineage.load().file, ways, samples, rules, self.open_model))


def machines(files: dict[bytes, bytes], open_model: OpenModel = scripted) -> Callable[..., DeployMachine]:
    """Return what makes machines with such means. files: by SHA-256."""

    def make(
        device: DeviceFolder, lineage: Lineage, idle: Callable[[], bool], wake: Callable[[], None], clock: Clock, month: CountsMonth | None
    ) -> DeployMachine:
        trust, name = device.trust, lineage.name
        means = HereMeans(device, lineage, lambda file, have: None, wake, clock, month)
        means.files, means.open_model = files, open_model
        root = lambda: trust.held.root  # noqa: E731
        target = DeployTarget("home", "pi-7", name, keys.FLEET_ID, root, lambda: trust.time, clock.wall)
        return DeployMachine(
            target, DesiredStore(device.database, name), means, device.settings.model(name), idle=idle,
            host=lambda number: hosts.said(device.database, name, number),
        )  # fmt: skip

    return make


@contextmanager
def deployed(folder: Path, centre: Centre, *files: bytes, open_model: OpenModel = scripted, **changes: Any) -> Iterator[Rig]:
    """Yield a device whose variants' files are these, and a centre that holds them as bases."""
    known = {variant_of(file).file: file for file in files}
    for file in files:
        m = manifest_of(file)
        centre.bases[m.commit] = (m, m.schema.flat(read_weights(file)))
    with rig(folder, centre, **changes) as r:
        r.agent = Agent(
            r.device, centre, scripted, "test", clock=Clock(centre.clock.monotonic, centre.clock.wall), rng=r.agent.rng,
            deploys=machines(known, open_model),
        )  # fmt: skip
        yield r


def states(centre: Centre, number: int = 1) -> list[str]:
    """Return the states that were reported of a number, each once."""
    said = [x.state for x in centre.reports if isinstance(x, Report) and x.number == number]
    return [s for i, s in enumerate(said) if i == 0 or said[i - 1] != s]


def seen(r: Rig) -> bytes:
    """Return the bytes of the file that the application opens."""
    return r.lineage.store.served.read_bytes()
