"""Updates through kills of everything: what is lost, doubled or another at the end, with a broker that keeps nothing on disk.

    python -m tests.evidence.lost.chaos              400 updates of 5 agents through 15 kills, then with a queue of 100 and a pause
    FULL=1 python -m tests.evidence.lost.chaos       10,000 updates of 20 agents through 60 kills, and the same again with queue and pause

Agents are processes of the product with all that it has but the TFLite runtime: `tests.soak` says what stands in for it. `chaos_*` is the
first course, `chaos_queue_*` the second, in which the broker holds 100 messages for a client and the ingester stands still for a while.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests import broker
from tests.evidence.parts import Figures, alone
from tests.soak.ordeal import Outcome, Plan, endure

SMALL = Plan(agents=5, rounds=80, kills=15, seed=16)
WHOLE = Plan(agents=20, rounds=500, kills=60, seed=16)
QUEUE, PAUSE = 100, 60.0  # messages, seconds


def measure(full: bool) -> Figures:
    """Return what came of both courses; nothing where there is no mosquitto. Prints how far it is to standard error."""
    if broker.program() is None:
        print(broker.MISSING, file=sys.stderr)
        return {}
    plan = WHOLE if full else SMALL
    figures: Figures = {}
    # The small size has too few boards to fill 100 places: theirs are as many fewer.
    queue, pause = (QUEUE, PAUSE) if full else (QUEUE * SMALL.agents // WHOLE.agents, 8.0)
    for name, course in (("chaos", plan), ("chaos_queue", replace(plan, queue=queue, freeze=pause, seed=plan.seed + 1))):
        with tempfile.TemporaryDirectory(prefix="chaos") as folder:
            came = endure(Path(folder), course, _say)
        for line in came.books.wrong[:10]:
            _say(line)
        figures |= _figures(name, came, course)
    return figures


def _figures(name: str, came: Outcome, plan: Plan) -> Figures:
    books = came.books
    out: Figures = {
        "agents": plan.agents, "updates": books.made, "lost": len(books.lost), "doubled": len(books.doubled),
        "diverged": len(books.diverged), "verified": books.verified, "kills": sum(came.kills.values()),
        **{f"kills_{kind}": count for kind, count in came.kills.items()}, "reconnects": came.reconnects, "seconds": round(came.seconds),
    }  # fmt: skip
    if plan.freeze:
        out |= {"overflows": came.overflows, "pause_s": plan.freeze}
    return {f"{name}_{key}": value for key, value in out.items()}


_began = time.monotonic()


def _say(text: str) -> None:
    print(f"  [{time.monotonic() - _began:5.0f} s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    alone("lost", "chaos", measure)
