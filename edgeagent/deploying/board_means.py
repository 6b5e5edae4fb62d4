"""What a board has to bring a variant to a model's place: the download, the places of bases, the process that tries it, the switch."""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edgeagent.board.sensors import Sensors
from edgeagent.fetching.download import Download
from edgeagent.fetching.over_http import CountsMonth
from edgeagent.fetching.sources import over_http
from edgeagent.fetching.tasks import task_of
from edgeagent.state.beside import lying
from edgeagent.state.beside.rows import Lies, PlacedBase
from edgeagent.state.folder import DeviceFolder
from edgeagent.state.lineage import Lineage
from edgeagent.system.backoff import Backoff
from edgeagent.system.clock import Clock
from edgecommon.memory import give_back
from modelwire.deploying.terms import DeployTerms, Learned
from modelwire.deploying.variants import Variant
from modelwire.errors import LinkError
from modelwire.lattice.state import ModelState
from modelwire.tflite.file import read_weights
from modelwire.wire.parts import Part
from modelwire.wire.records import Desired, Transfer

from . import hosts, places, switching
from .desired_store import DesiredStore
from .learned import ANEW, BroughtOver, brought_over
from .machine import DeployMachine
from .means import BasePlace, BoardFacts, DeployTarget, Fetched, Probed, Stop
from .probing import ProbeRules, ProbeRun

COMING = "coming"  # folder of a file that is on its way, in the model's
LEAST = 192 << 20  # bytes that a process with a runtime may take whatever the settings say: nothing could be tried with less
_PLACES = {Lies.STAGED: BasePlace.STAGED, Lies.SOAKING: BasePlace.SOAKING, Lies.PASSIVE: BasePlace.PASSIVE}
Want = Callable[[bytes, bytes], None]  # lets a `wanted` be sent: SHA-256 of the file, bitmap of what is here


class MakeMachine(Protocol):
    """Makes what becomes of what is desired for a model."""

    def __call__(
        self, device: DeviceFolder, lineage: Lineage, idle: Callable[[], bool], wake: Callable[[], None], clock: Clock,
        month: CountsMonth | None,
    ) -> DeployMachine: ...  # fmt: skip


class BoardMeans:
    """The means of one model. Of one thread, the agent's."""

    def __init__(
        self, device: DeviceFolder, lineage: Lineage, want: Want, wake: Callable[[], None], clock: Clock, month: CountsMonth | None
    ) -> None:
        """want: asks for parts over the link; wake: called from another thread when an answer is there."""
        self._device, self._lineage, self._want, self._wake, self._clock, self._month = device, lineage, want, wake, clock, month
        self._coming = lineage.store.folder / COMING
        self._download: Download | None = None
        self._run: ProbeRun | None = None
        self._linked = False

    # Where bases lie.

    def where(self, commit: bytes) -> BasePlace:
        return place_of(self._lineage, commit)

    def serves(self) -> bytes:
        soaking = self._lineage.beside.soaking()
        return self._lineage.base_commit if soaking is None else soaking.commit

    def passive(self) -> bytes:
        passive = self._lineage.beside.passive()
        return b"" if passive is None else passive.commit

    def facts(self) -> BoardFacts:
        return facts_of(self._lineage)

    # Its file.

    def fetch(self, desired: Desired, terms: DeployTerms, variant: Variant, now: float) -> Fetched:
        task = task_of(desired.number, variant, terms)
        if self._download is None or self._download.task != task:
            self._end_download()
            link = self._device.settings.link
            ca = self._device.path.parent / link.tls_ca if link.tls_ca else None
            self._download = Download(
                self._coming, task, source=over_http(ca, self._wake), ask=lambda have: self._want(task.file, have),
                backoff=Backoff(link.resend, link.resend_max, random.Random()), month=self._month,
            )  # fmt: skip
            if self._linked:
                self._download.connected(now)
        download = self._download
        if now >= download.due:
            with contextlib.suppress(LinkError):  # it is asked for again
                download.tick(now)
        said, failed = download.progress, download.failure
        return Fetched(download.file is not None, said.here, said.failed, None if failed is None else Stop(failed.code, failed.reason))

    def due(self) -> float:
        return math.inf if self._download is None else self._download.due

    def waits(self) -> str:
        """Return what fetching waits for, in words; empty when it goes on."""
        return "" if self._download is None else self._download.progress.waits

    def linked(self, now: float) -> None:
        """Take note that the centre has welcomed this model on a new connection."""
        self._linked = True
        if self._download is not None:
            self._download.connected(now)

    def unlinked(self) -> None:
        self._linked = False
        if self._download is not None:
            self._download.lost()

    def described(self, transfer: Transfer, now: float) -> bool:
        """Take the word on how a file is cut; return whether it is the one that comes. Raises WireError."""
        return self._download is not None and self._download.described(transfer, now)

    def arrived(self, part: Part, size: int, now: float) -> bool:
        """Take a part that came in a message of so many bytes; return whether it is of the file that comes. Raises WireError."""
        if self._download is None or part.id != self._download.task.file:
            return False
        self._download.arrived(part, size, now)
        return True

    # Laid down and tried.

    def stage(self, desired: Desired, variant: Variant) -> None:
        received = self._download.file if self._download is not None else None
        now = int(self._clock.wall())
        places.stage(self._lineage, variant, received or self._coming / "none", number=desired.number, now=now)
        self.forget_file()

    def probe(self, commit: bytes, terms: DeployTerms) -> None:
        self.cease()
        settings = self._device.settings.model(self._lineage.name)
        rules = ProbeRules(terms.slower, terms.worse, settings.train.margin)
        limit = max(settings.budget.max_ram, LEAST) if settings.budget.max_ram else Sensors().available()
        anew = terms.learned == Learned.ANEW
        self._run = ProbeRun(self._device.path, self._lineage.name, commit, rules, limit=limit, anew=anew)

    def probed(self) -> Probed | None:
        assert self._run is not None, "nothing is tried"
        found = self._run.poll()
        if found is not None:
            self._run.close()
            self._run = None
        return found

    def cease(self) -> None:
        if self._run is not None:
            self._run.close()
            self._run = None
        self._end_download()

    def drop(self) -> None:
        self.forget_file()
        places.unstage(self._lineage)

    # Served.

    def soak(self, commit: bytes, learned: str) -> None:
        lineage, now = self._lineage, int(self._clock.wall())
        placed = places.found(lineage, commit)
        assert placed is not None, "nothing is staged"
        if placed.lies is Lies.PASSIVE:
            places.back(lineage, commit, number=placed.number, now=now)
        if placed.lies is Lies.PASSIVE or placed.slot:  # staged with a model of its own: a kill, or a full disk, came behind that
            switching.soak_as_it_lies(lineage, now=now)
            return
        ways = ways_of(lineage, placed)
        way = next((one for one in ways if one.word == learned), ways[-1])
        switching.soak(lineage, way.state, way.residual, way.word, now=now)
        del ways, way
        give_back()

    def revert(self, reason: str) -> None:
        switching.revert(self._lineage, reason)

    def confirm(self, now: int) -> None:
        switching.confirm(self._lineage, now)
        give_back()

    def _end_download(self) -> None:
        if self._download is not None:
            self._download.cancel()
            self._download = None

    def forget_file(self) -> None:
        if self._download is not None:
            self._download.discard()
            self._download = None
        discard_coming(self._coming)


def place_of(lineage: Lineage, commit: bytes) -> BasePlace:
    """Return where a base lies on this board."""
    if commit == lineage.base_commit:
        return BasePlace.SERVED
    placed = places.found(lineage, commit)
    if placed is None or lying.incomplete(lineage.store.folder, placed):
        return BasePlace.NOWHERE
    return _PLACES[placed.lies]


def facts_of(lineage: Lineage) -> BoardFacts:
    """Return what the board has now for a variant of a model; what came of a file already counts as room."""
    space, coming, here = os.statvfs(lineage.store.folder), lineage.store.folder / COMING, 0
    with contextlib.suppress(OSError):  # an agent beside who asks lets go of it
        for file in coming.iterdir():
            here += file.stat().st_blocks * 512
    room = places.room_for(0, lineage.manifest.schema.size)
    return BoardFacts(lineage.head().runtime, Sensors().available(), space.f_bavail * space.f_frsize + here, room)


def discard_coming(folder: Path) -> None:
    """Remove what came of a file. Raises DiskUnwritable."""
    from edgecommon import disk

    if folder.is_dir():
        with disk.named(folder):
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()


def ways_of(lineage: Lineage, placed: PlacedBase, *, anew: bool = False) -> list[BroughtOver]:
    """Return the ways in which what the board has learned goes over to a base that lies here, best first. anew: nothing of it does."""
    manifest = placed.parsed()
    base = manifest.schema.flat(read_weights(lineage.beside_store(placed).base()))
    stored = lineage.load()
    ways = brought_over(stored.state, stored.residual, ModelState.of_base(manifest, base))
    return [way for way in ways if way.word == ANEW] if anew else ways


def deploy_machine(
    device: DeviceFolder, lineage: Lineage, idle: Callable[[], bool], wake: Callable[[], None], clock: Clock, month: CountsMonth | None
) -> DeployMachine:
    """Return what becomes of what is desired for one of the device's models.

    idle: whether no round of it is under way; wake: called from another thread when something is to do; month: counts what is fetched.
    """
    board, trust, name = device.board, device.trust, lineage.name
    target = DeployTarget(
        board.fleet, board.device, name, board.identity.id, lambda: trust.held.root, lambda: trust.time, clock.wall
    )

    def free() -> bool:
        """Return whether nothing else moves the model: a round, an update that comes back, the last one of a board set up anew."""
        wish, most = lineage.wish(), device.settings.link.resume_wait
        return idle() and lineage.takings.current() is None and (wish is None or wish.waited >= most)

    means = BoardMeans(device, lineage, lambda file, have: made.want(file, have), wake, clock, month)
    made = DeployMachine(
        target, DesiredStore(device.database, name), means, device.settings.model(name), idle=free,
        host=lambda number: hosts.said(device.database, name, number),
    )  # fmt: skip
    return made
