"""How rounds get at the runtime: it is loaded with the first model that is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeagent.board.sensors import Memory
from edgeagent.features.exact_course import FEATURES
from edgeagent.features.gathering import Extractors
from edgeagent.rounds.standing import Standing, base_of
from edgeagent.state.folder import DeviceFolder
from edgeagent.state.lineage import Lineage
from edgeagent.training import int8_head
from edgeagent.training.batches import Trainable

if TYPE_CHECKING:
    from edgecommon.runtime import Runtime


class Opener:
    """Opens models for rounds. The runtime takes 10 to 60 MB: what never opens a model never loads it."""

    def __init__(self, device: DeviceFolder) -> None:
        self.extractors = Extractors(device.database.path.parent, device.spool)
        self._runtime: Runtime | None = None

    def __call__(self, file: bytes, name: str) -> Trainable:
        """Return a model to train; an int8 head needs no runtime. Raises RuntimeUnusable or NotTrainable."""
        if int8_head.trains(file, model=name):
            return int8_head.Int8Model(file, model=name)
        if self._runtime is None:
            from edgecommon import runtime

            self._runtime = runtime.load()
        return self._runtime.open(file, model=name, signature="")


def opener(device: DeviceFolder, *, eager: bool) -> Opener:
    """Return what opens a model for a round. eager: load the runtime now, and note what it will be known as in hello.

    Raises RuntimeUnusable, at once or at the first round; an int8 head needs no runtime.
    """
    made = Opener(device)
    for name, lineage in device.lineages.items() if eager else ():
        if device.settings.model(name).train.mode == FEATURES:
            lineage.set_runtime(made.extractors.runtime_key(base_of(lineage)))
        else:
            lineage.set_runtime(made(lineage.load().file, name).runtime_key)
    return made


def standing_of(device: DeviceFolder, lineage: Lineage, models: Opener, *, memory: Memory | None = None) -> Standing:
    """Return what rounds of one of the device's models stand on. memory: of this process, as rounds before found it."""
    settings = device.settings.model(lineage.name)
    return Standing(lineage, device.spool, settings, models, models.extractors, memory or Memory())
