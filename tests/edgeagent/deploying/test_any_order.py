"""Any order of what may befall a board with two bases: it is whole after each start, and a real registry holds the model that it serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random

import pytest

from edgeagent.deploying import places, switching
from modelwire.errors import LineageError
from modelwire.update.manifest import manifest_of
from tests.edgeagent.boards import PUBLIC, TINY, Rig, fill, rig
from tests.edgeagent.by_hand import train as by_hand
from tests.edgeagent.centre import FakeClock
from tests.edgeagent.deploying.bases import FAR, NEAR, scaled, staged, ways
from tests.edgeagent.deploying.test_centre_sees_it import RegistryLink
from tests.edgeagent.deploying.whole import check_whole
from tests.edgecloud.centre import add_base, admit, make_registry
from tests.edgecloud.device import FLEET, Base

FILES = [TINY, NEAR, FAR, scaled(0.5)]
STEPS = 40


class Walk:
    """One board, one registry, and chance."""

    def __init__(self, folder: Path, seed: int) -> None:
        store = make_registry(folder / "fleet.db", Base(TINY))
        for n, file in enumerate(FILES[1:]):
            add_base(store, Base(file), f"base{n}")
        admit(store, "pi-7", PUBLIC, 1)
        self.store, self.rng, self.folder, self.number = store, Random(seed), folder / "d", 0
        self.link = RegistryLink(FakeClock(), store)
        self.open, self.done, self.went = ExitStack(), list[str](), 0
        self.start()
        self.serve()

    def start(self) -> None:
        self.open.close()
        self.r: Rig = self.open.enter_context(rig(self.folder, self.link, device__fleet=FLEET, store__history="1"))
        check_whole(self.r, fresh=True)

    def step(self) -> None:
        verbs: list[Callable[[], None]] = [
            self.train, self.train, self.train, self.train, self.go_over, self.go_over, self.go_over, self.stage, self.soak, self.confirm,
            self.revert, self.back, self.back, self.start, self.cut, self.mend, self.serve, self.serve, self.serve, self.coalesce,
            self.snapshot, self.new_epoch,
        ]  # fmt: skip
        verb = self.rng.choice(verbs)
        self.done.append(verb.__name__)
        verb()
        check_whole(self.r)

    def train(self) -> None:
        if self.r.lineage.head().epoch and self.r.lineage.beside.soaking() is None:
            if not self.r.device.spool.count("tiny"):
                fill(self.r.device)
            by_hand(self.r, 1)

    def stage(self, files: Sequence[bytes] = FILES) -> None:
        self.number += 1
        file = self.rng.choice(files)
        with suppress(LineageError):
            staged(self.r.lineage, file, self.number)

    def soak(self) -> None:
        placed = self.r.lineage.beside.under_way()
        if placed is not None and not placed.learned:
            way = self.rng.choice(ways(self.r.lineage))
            switching.soak(self.r.lineage, way.state, way.residual, way.word, now=1)

    def go_over(self) -> None:
        """All of it at once, to any other base."""
        self.stage([file for file in FILES if manifest_of(file).commit != self.r.lineage.base_commit])
        self.soak()
        self.confirm()

    def confirm(self) -> None:
        if self.r.lineage.beside.soaking() is not None and self.r.lineage.head().epoch:
            switching.confirm(self.r.lineage, 1)
            self.went += 1

    def revert(self) -> None:
        switching.revert(self.r.lineage, "chance")

    def back(self) -> None:
        passive = self.r.lineage.beside.passive()
        if passive is not None and self.r.lineage.beside.soaking() is None:
            left = self.r.lineage.load_beside(passive).state
            assert places.back(self.r.lineage, passive.commit, number=1, now=1) is not None
            soaking = switching.soak_as_it_lies(self.r.lineage, now=1)
            assert self.r.lineage.load_beside(soaking).state == left
            if self.rng.random() < 0.7:
                self.confirm()

    def cut(self) -> None:
        self.link.cut()

    def mend(self) -> None:
        self.link.mend()

    def serve(self) -> None:
        self.r.serve(self.rng.choice((1, 30, 400)))

    def coalesce(self) -> None:
        self.r.lineage.coalesce()

    def snapshot(self) -> None:
        if self.r.lineage.head().epoch:
            self.r.lineage.snapshot(1, note="asked for")

    def new_epoch(self) -> None:
        if self.rng.random() < 0.3:
            self.r.device.renew_state()
            self.start()

    def settle(self) -> None:
        """Let all arrive, and see that the registry holds what the board serves."""
        self.link.mend()
        self.r.serve(4000)
        if self.r.lineage.beside.soaking() is not None:
            switching.confirm(self.r.lineage, 1)
        self.r.serve(4000)
        head = self.r.lineage.head()
        assert not head.blocked and not self.r.lineage.outbox.waiting(), (head, self.r.lineage.outbox.waiting())
        lineage = self.store.lineages.get("pi-7", "tiny")
        assert lineage is not None
        rows = [v for v in self.store.versions.of(lineage.id) if v.epoch == head.epoch]
        if head.version:
            assert (rows[-1].version, rows[-1].commit, rows[-1].status.value) == (head.version, head.commit, "verified")
            assert rows[-1].base == self.r.lineage.base_commit and rows[-1].root == self.r.lineage.load().state.root
        assert {v.status.value for v in rows} <= {"verified"}
        self.start()


@pytest.mark.slow("walks forty steps, each with a look at all files", seconds=15)
@pytest.mark.one_environment("what the rows and files of a board come to; the model is a scripted one")
@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_it_leaves_the_board_whole_and_the_registry_with_what_it_serves(tmp_path: Path, seed: int) -> None:
    walk = Walk(tmp_path, seed)
    try:
        for _ in range(STEPS):
            walk.step()
        walk.settle()
        assert walk.went > 1, "it went over"
    except BaseException as e:
        e.add_note(f"after {' '.join(walk.done)}") if hasattr(e, "add_note") else None
        raise
    finally:
        walk.open.close()
