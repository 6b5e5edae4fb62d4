"""How rounds get at the runtime: each model that is opened has a process of its own, which loads it and ends with the round."""

from __future__ import annotations

from contextlib import closing

from edgeagent.board.sensors import Memory, Sensors
from edgeagent.features.exact_course import FEATURES
from edgeagent.features.gathering import Extractors
from edgeagent.opened.model_process import ModelProcess
from edgeagent.rounds.standing import Standing, base_of
from edgeagent.state.folder import DeviceFolder
from edgeagent.state.lineage import Lineage
from edgeagent.training import int8_head
from edgeagent.training.batches import Trainable


class Opener:
    """Opens models for rounds, in other processes: the runtime alone takes 10 to 60 MB, and a running agent never loads it."""

    def __init__(self, device: DeviceFolder) -> None:
        self.extractors = Extractors(device.database.path.parent, device.spool)
        self.most = 0  # bytes that this process and one that runs a model ever held together
        self._sensors = Sensors()

    def __call__(self, file: bytes, name: str) -> Trainable:
        """Return a model to train; an int8 head needs no runtime. Raises RuntimeUnusable, NotTrainable or RuntimeLost."""
        if int8_head.trains(file, model=name):
            return int8_head.Int8Model(file, model=name)
        return ModelProcess(file, model=name, ends=self._saw)

    def _saw(self, process: int) -> None:
        self.most = max(self.most, self._sensors.peak() + self._sensors.peak(process))


def opener(device: DeviceFolder, *, eager: bool) -> Opener:
    """Return what opens a model for a round. eager: try the runtime now, and note what it will be known as in hello.

    Raises RuntimeUnusable, at once or at the first round; an int8 head needs no runtime.
    """
    made = Opener(device)
    for name, lineage in device.lineages.items() if eager else ():
        if device.settings.model(name).train.mode == FEATURES:
            lineage.set_runtime(made.extractors.runtime_key(base_of(lineage)))
        else:
            with closing(made(lineage.load().file, name)) as model:
                lineage.set_runtime(model.runtime_key)
    return made


def standing_of(device: DeviceFolder, lineage: Lineage, models: Opener, *, memory: Memory | None = None) -> Standing:
    """Return what rounds of one of the device's models stand on. memory: of this process, as rounds before found it."""
    settings = device.settings.model(lineage.name)
    return Standing(lineage, device.spool, settings, models, models.extractors, memory or Memory())
