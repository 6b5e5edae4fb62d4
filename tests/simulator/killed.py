"""The centre in a process of its own, which somebody kills for real: it takes messages in, judges, thins and erases until it is dead.

    python -m tests.simulator.killed FOLDER       prints a word for each thing that is committed; test_killed.py reads them
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from edgecloud.keeping import erasing
from edgecloud.keeping.thinning import Thinner
from edgecloud.registry import open_registry
from tests.simulator.small_fleet import NOW, judge_all, take_all
from tests.simulator.works import erase, set_policy


def main(folder: Path) -> None:
    """Work on the registry in `folder` with the messages that lie beside it."""
    said = pickle.loads((folder / "said").read_bytes())  # ours: the test wrote it a moment ago
    store = open_registry(folder / "fleet.db")  # synchronous=FULL, as in the field
    print("open", flush=True)
    for i, message in enumerate(said):
        take_all([message])(store)
        judge_all(store)
        print(f"took {i}", flush=True)
        if i == len(said) // 3:
            set_policy(store, "last 3", NOW)
        if i > len(said) // 3:
            Thinner(store, clock=lambda: NOW).run()
            print("thinned", flush=True)
        if i == 2 * len(said) // 3 and not store.erasures.all():
            erase(store, "pi-1", NOW)
    erasing.resume(store)
    print("done", flush=True)
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
