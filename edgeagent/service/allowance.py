"""Whether the board lets a model train now: what makes it wait, what has to be measured first, and that no mode fits."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping

from edgeagent.board import budget
from edgeagent.board.budget import Pauses, TrainingWait
from edgeagent.board.sensors import Sensors
from edgeagent.settings.tree import ModelSettings
from edgeagent.settings.units import say_seconds
from edgeagent.state.folder import DeviceFolder
from edgeagent.state.lineage import Lineage
from edgeagent.system.clock import Clock
from edgecommon.memory import give_back
from modelwire.errors import DiskUnwritable, NoModeFits, NotTrainable, RuntimeLost

from . import measuring
from .measuring import Measuring

COUNTED = 60  # seconds of waiting for a last model that a kill may forget
ENDED = (NoModeFits, NotTrainable, RuntimeLost)  # errors after which a model waits, and is tried again
LOST = (1.0, 30.0)  # seconds before a round goes on whose process was lost, once and twice; then it is AGAIN
SETTLES = 2.0  # seconds after a start or a round in which the link has its turn; then what they took of memory goes back
AGAIN = 600.0  # seconds before a model that no mode fits is tried again
_log = logging.getLogger("edgeagent")


class Allowance:
    """What the budgets of all models say at this moment; `edgeagent status` reads of it in the database."""

    def __init__(
        self, device: DeviceFolder, sensors: Sensors, clock: Clock, held: Mapping[str, Callable[[], TrainingWait | None]] | None = None
    ) -> None:
        """held: by model, what else keeps it from training: a variant that is tried."""
        self._device, self._clock, self._held = device, clock, held or {}
        self._pauses = {name: Pauses(device.settings.model(name).budget, sensors) for name in device.lineages}
        self._told: dict[str, TrainingWait | None] = dict.fromkeys(device.lineages, TrainingWait("", ""))  # what an earlier run left there
        self._unfit: dict[str, tuple[float, TrainingWait]] = {}
        self._quiet = clock.monotonic() + SETTLES
        self._lost: dict[str, int] = {}  # by model, how often in a row a round lost the process that ran it
        self._back = {name: clock.monotonic() for name, lineage in device.lineages.items() if lineage.wish() is not None}
        self._measuring: Measuring | None = None
        self._measured: set[tuple[str, bytes]] = set()  # models, each on a base
        self._base = b""  # whose modes are being measured

    def close(self) -> None:
        """Stop what is being measured; nothing waits any more."""
        if self._measuring is not None:
            self._measuring.close()
            self._measuring = None
        for lineage in self._device.lineages.values():
            with contextlib.suppress(DiskUnwritable):  # it is for people, and the next start says it anew
                self._tell(lineage, None)

    def waits(self, lineage: Lineage) -> bool:
        """Return whether this model may not train now, and let others know why."""
        now = self._clock.monotonic()
        until, unfit = self._unfit.get(lineage.name, (0.0, None))
        held = self._held.get(lineage.name)
        wait = self._for_last_model(lineage, now) or (held() if held is not None else None)
        if wait is None:
            wait = unfit if now < until else self._pauses[lineage.name].look(now, self._clock.wall())
        self._tell(lineage, wait)
        return wait is not None

    def _for_last_model(self, lineage: Lineage, now: float) -> TrainingWait | None:
        """Return why a model that would like its last version back does not train yet; not for longer than the settings say.

        Only the time in which an agent runs is counted, by no clock that can be set.
        """
        since = self._back.get(lineage.name)
        if since is None:
            return None
        wish, most = lineage.wish(), self._device.settings.link.resume_wait
        if wish is None or wish.waited + now - since >= most:
            del self._back[lineage.name]
            if wish is not None:
                _log.warning("%s: its last model has not come in %.0f s: it goes on from its base", lineage.name, most)
                lineage.waited(int(most))
            return None
        if now - since >= COUNTED:
            lineage.waited(int(now - since))
            self._back[lineage.name] = since + int(now - since)
        what = f"@{wish.version}, its last model, is to come back" if wish.version else "the centre is asked for its last model"
        return TrainingWait(what, f"it is here, or link.resume_wait ({say_seconds(most)}) is over")

    def after(self, lineage: Lineage, error: NoModeFits | NotTrainable | RuntimeLost, *, endless: bool) -> bool:
        """Let a model wait whose round ended with an error, and return whether it is tried again in this run.

        Where no mode fits, its samples, or what is known of its modes, may be others later. A round whose process was lost stands in its
        journal: it is taken up soon, then later; a run that ends does so twice.
        """
        lost = isinstance(error, RuntimeLost)
        tries = self._lost[lineage.name] = self._lost.get(lineage.name, 0) + 1 if lost else 0
        if not endless and not 0 < tries <= len(LOST):
            return False
        pause = LOST[tries - 1] if 0 < tries <= len(LOST) else AGAIN
        until = f"it is taken up again in {say_seconds(pause)}" if lost else "it fits; it is looked at again in 10 minutes"
        wait = TrainingWait(error.message, until)
        self._unfit[lineage.name] = self._clock.monotonic() + pause, wait
        self._tell(lineage, wait)
        return True

    def done(self, model: str) -> None:
        """Note that a round of this model came to its end; what it took of memory goes back soon."""
        self._lost.pop(model, None)
        self._quiet = self._clock.monotonic() + SETTLES

    def measures_first(self, lineage: Lineage, settings: ModelSettings) -> bool:
        """Begin to measure what the plan of a round needs to know, once in a run for each base; return whether there is something."""
        one = lineage.name, lineage.base_commit
        if one in self._measured or not budget.limited(settings.budget):
            return False
        self._measured.add(one)
        modes = measuring.unknown(lineage, lineage.head().runtime, settings.budget.max_ram)
        if modes:
            self._measuring = Measuring(self._device.path, lineage.name, modes, limit=settings.budget.max_ram, clock=self._clock)
            self._base = lineage.base_commit
        return bool(modes)

    def measuring(self) -> bool:
        """Return whether something is being measured; once it is over, what came of it is written down."""
        if self._clock.monotonic() >= self._quiet:
            self._quiet = float("inf")
            give_back(code=True)
        measuring = self._measuring
        if measuring is None:
            return False
        if not measuring.done:
            return True
        self._measuring = None
        lineage, one = self._device.lineages[measuring.model], (measuring.model, self._base)
        if lineage.base_commit != self._base:
            return False  # the model went over to another base meanwhile
        self._measured.discard(one)  # once it is noted, it is done: what was the disk's trouble is tried again
        measuring.note(lineage, lineage.head().runtime, int(self._clock.wall()))
        self._measured.add(one)
        return False

    def _tell(self, lineage: Lineage, wait: TrainingWait | None) -> None:
        before = self._told[lineage.name]
        if before == wait:
            return
        lineage.set_waiting(wait, int(self._clock.wall()))
        self._told[lineage.name] = wait
        if wait is not None and (before is None or before.until != wait.until):
            _log.info("%s: training waits: %s; until %s", lineage.name, wait.reason, wait.until)
        elif wait is None and before is not None and before.reason:
            _log.info("%s: training goes on", lineage.name)
