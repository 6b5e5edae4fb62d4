"""The process that tries a variant: it opens what is served and what would be, and says on its standard output what it found."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgeagent.settings import reading
from edgeagent.state.beside.rows import Lies, PlacedBase
from edgeagent.state.folder import open_folder
from edgeagent.state.lineage import Lineage
from edgeagent.system.children import end_with

from . import places
from .board_means import ways_of
from .learned import KEPT
from .means import Probed
from .probing import OpenModel, ProbeRules, confine, held_out, opened_by_runtime, probe, said_of, told


def main(words: Sequence[str], open_model: OpenModel = opened_by_runtime) -> int:
    """Try a variant. words: the path of the settings, a model, the commit of a base that lies here, the rules as JSON."""
    path, model, commit, said = Path(words[0]), words[1], bytes.fromhex(words[2]), json.loads(words[3])
    end_with(int(said.pop("parent")))
    confine(int(said.pop("seconds")))
    anew, rules = bool(said.pop("anew")), ProbeRules(**said)

    def work() -> Probed:
        with open_folder(reading.load(path, environment=os.environ, flags={}), alone=False) as device:
            lineage = device.lineages[model]
            placed = places.found(lineage, commit)
            assert placed is not None, "its base does not lie here"
            samples = held_out(device.spool, model, device.settings.model(model).train.held_out, rules.most)
            return probe(model, lambda: lineage.load().file, candidates(lineage, placed, anew), samples, rules, open_model)

    print(said_of(told(work)), flush=True)
    return 0


def candidates(lineage: Lineage, placed: PlacedBase, anew: bool) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield (word, the file) of what may be served on a base, best first; of the way back, what was served when it was left."""
    if placed.slot:
        yield KEPT, lambda: lineage.load_beside(placed).file
        return
    store, begins_anew = lineage.beside_store(placed), anew or placed.lies is Lies.PASSIVE  # a way back that had to forget its model
    for way in ways_of(lineage, placed, anew=begins_anew):
        yield way.word, lambda way=way: store.contents(way.state, way.residual)[0]  # type: ignore[misc]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
