"""What the rounds of one model stand on: one object, from the agent's start to the end of its last round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edgeagent.board.sensors import Memory
from edgeagent.features.gathering import Extractors, FeaturesBase
from edgeagent.samples.spool import Spool
from edgeagent.settings.tree import Model
from edgeagent.state.lineage import Lineage
from edgeagent.system.clock import Clock
from edgeagent.training.batches import Trainable

OpenModel = Callable[[bytes, str], Trainable]  # a model's file, and its name for errors


@dataclass(frozen=True, slots=True)
class Standing:
    """What always travels together."""

    lineage: Lineage
    spool: Spool
    settings: Model
    open_model: OpenModel
    extractors: Extractors | None = None  # what mode features needs
    memory: Memory = field(default_factory=Memory)  # of this process, as the rounds before found it
    clock: Clock = field(default_factory=Clock)

    @property
    def name(self) -> str:
        """The model's."""
        return self.lineage.name

    @property
    def base(self) -> FeaturesBase:
        """The model's base, for those that compute features."""
        return base_of(self.lineage)


def base_of(lineage: Lineage) -> FeaturesBase:
    """Return a model's base, for those that compute features."""
    return FeaturesBase(lineage.name, lineage.base_commit, lineage.store.base_file, lineage.manifest.schema)
