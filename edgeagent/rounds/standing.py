"""What the rounds of one model stand on: one object, from the agent's start to the end of its last round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields

from edgeagent.board.sensors import Memory
from edgeagent.features.exact_course import RECIPE
from edgeagent.features.gathering import Extractors, FeaturesBase
from edgeagent.planning.choosing import ROOM
from edgeagent.planning.conditions import Basis, basis_of
from edgeagent.samples.spool import Spool
from edgeagent.settings.tree import ModelSettings
from edgeagent.state.lineage import Lineage
from edgeagent.system.clock import Clock
from edgeagent.training.batches import Trainable

# They say when a round is done and what becomes of it, not what its bits are: a change of them does not end a round under way.
_ELSEWHERE = {"every", "min_samples", "min_new_samples", "margin", "when", "drift_loss", "drift_psi"}
OpenModel = Callable[[bytes, str], Trainable]  # a model's file, and its name for errors


@dataclass(frozen=True, slots=True)
class Standing:
    """What always travels together."""

    lineage: Lineage
    spool: Spool
    settings: ModelSettings
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

    @property
    def planning(self) -> Basis | None:
        """What decisions about its updates stand on; None where the settings say their kind."""
        if not self.settings.update.planned:
            return None
        return basis_of(self.settings, self.lineage.figures, self.lineage.link_figures)

    @property
    def fixed_bytes(self) -> int:
        """Bytes of every update that are the same whatever a round comes to."""
        return self.lineage.fixed_bytes + (ROOM if self.settings.update.planned else 0)

    @property
    def shaping(self) -> str:
        """The settings that a round's bits follow from, as text. A setting that nobody spoke of here is one of them."""
        train, update = self.settings.train, self.settings.update
        named = [(f.name, getattr(train, f.name)) for f in fields(train) if f.name not in _ELSEWHERE]
        if update.by_recipe:  # whether the round can be one hangs on its size
            named += [("kind", RECIPE), ("max_bytes", update.max_bytes), ("checkpoints", update.checkpoints)]
        return ", ".join(f"{name}={value!r}" for name, value in named)


def base_of(lineage: Lineage) -> FeaturesBase:
    """Return a model's base, for those that compute features."""
    return FeaturesBase(lineage.name, lineage.base_commit, lineage.store.base_file, lineage.manifest.schema)
