"""kill -9 of real processes while a variant comes: agent, ingester, director and file server, in the states of the device's machine.

    python -m tests.evidence.deploy.kills      some states and processes; FULL=1 each process in each state

A base comes by HTTP to two agents, waits for their host's yes, is tried, soaks and is confirmed. When the first of them is in a state, one
process is killed and started again. Each agent must end confirmed or reverted and serve what the centre makes of its head, and the
rollout must come to its end. `offered` is left within the same moment: tests/evidence/deploy/device.py kills there, at each write.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from modelwire.deploying.states import State
from tests import broker
from tests.evidence.parts import Figures, alone
from tests.system import rolling
from tests.system.fleet import Process
from tests.system.rolling import MODEL, RollingFleet

NAMES = ("pi-1", "pi-2")
STATES = (State.FETCHING, State.STAGED, State.PROBING, State.SOAKING, State.CONFIRMED)
VICTIMS = ("agent", "ingester", "director", "files")
SOME = (("agent", State.FETCHING), ("agent", State.PROBING), ("agent", State.SOAKING), ("ingester", State.STAGED),
        ("director", State.SOAKING), ("files", State.FETCHING))  # fmt: skip
SLOW = 0.3  # seconds before the file server answers: a piece is under way for as long
ENDS = ("confirmed", "reverted")


class KilledFleet(RollingFleet):
    """A fleet whose variants come from a file server of its own."""

    def __init__(self, folder: Path, url: str, count: int) -> None:
        """count: variants that there are."""
        super().__init__(folder, url)
        web, self.port = folder / "web", broker.free_port()
        web.mkdir()
        for n in range(count):
            self.add_variant(f"v{n}", rolling.equal(n + 1))
            self.cloud("variants", "publish", f"v{n}", str(web))
        words = [str(web), str(self.port), str(folder / "asked.log"), str(SLOW)]
        command = [sys.executable, "-m", "tests.edgeagent.fetching.serving_child", *words]
        self.files = Process("files", command, folder / "files.log")

    def begin(self) -> None:
        """Start everything."""
        self.serve_files()
        self.settle(NAMES)

    def serve_files(self) -> None:
        self.files.start()
        self.until("the file server", self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def close(self) -> None:
        self.files.kill()
        super().close()


def measure(full: bool) -> Figures:
    """Return how often a process was killed while a variant came, and how often something did not end whole."""
    cases = tuple(itertools.product(VICTIMS, STATES)) if full else SOME
    wrong, met = list[str](), dict[str, int]()
    with tempfile.TemporaryDirectory() as name, broker.mosquitto(Path(name)) as hub:
        fleet = KilledFleet(Path(name) / "fleet", hub.url, len(cases))
        try:
            fleet.begin()
            for n, (victim, state) in enumerate(cases):
                found, seen = killed(fleet, f"v{n}", victim, state)
                met[seen] = met.get(seen, 0) + 1
                print(f"{victim} killed while {seen}: {found or 'whole'}", file=sys.stderr, flush=True)
                wrong += found
        finally:
            fleet.close()
    return {
        "processes_killed": sum(met.values()), "processes_killed_in": ", ".join(f"{state} {n}" for state, n in met.items()),
        "processes_killed_wrong": len(wrong),
    }  # fmt: skip


def killed(fleet: KilledFleet, variant: str, victim: str, state: State) -> tuple[list[str], str]:
    """Let a variant come, and kill a process when the first agent is in a state; return what did not end whole, and that state."""
    rollout = fleet.deploy(variant, "--phase", "all", "--soak", "2s", "--consent", "--url", f"http://127.0.0.1:{fleet.port}/{{file}}.tflite")
    fleet.until(f"{state.value} of {variant}", lambda: come_to(fleet, variant, state))
    seen = str((fleet.desired(NAMES[0], variant) or {}).get("state"))
    kill_and_start(fleet, victim)
    try:
        fleet.until(f"the end of {variant}", lambda: ended(fleet, variant))
        fleet.until_state(rollout, "done")
        fleet.until("all is verified", lambda: fleet.look_up("verify", "--all")["waiting"] == 0)
    except TimeoutError as e:
        return [f"{victim} killed while {seen}: {e}"], seen
    wrong = [f"{device} serves another file than its head's" for device in NAMES if not serves_its_head(fleet, device)]
    proof = fleet.look_up("verify", "--all")
    wrong += [f"{proof['wrong']} are wrong"] * (proof["exact"] != proof["checked"])
    return wrong, seen


def come_to(fleet: KilledFleet, variant: str, state: State) -> bool:
    """Whether the first agent is in a state, or behind it; says yes for a host where it waits before that."""
    here = fleet.desired(NAMES[0], variant)
    if here is None:
        return False
    if order(here["state"]) >= order(state.value):
        return True
    accept(fleet, NAMES[:1], variant)
    return False


def ended(fleet: KilledFleet, variant: str) -> bool:
    """Whether each agent is at an end of which nothing is left between; hosts say yes where they are asked."""
    accept(fleet, NAMES, variant)
    return all((here := fleet.desired(device, variant)) is not None and here["state"] in ENDS for device in NAMES)


def accept(fleet: KilledFleet, names: tuple[str, ...], variant: str) -> None:
    for device in names:
        here = fleet.desired(device, variant)
        if here is not None and here["state"] == State.STAGED.value and here["consent"]:
            fleet.look(device, "desired", "accept")


def kill_and_start(fleet: KilledFleet, victim: str) -> None:
    starts: dict[str, tuple[Process, Callable[[], None]]] = {
        "agent": (fleet.devices[NAMES[0]], fleet.devices[NAMES[0]].start), "ingester": (fleet.ingester, fleet.ingester.start),
        "director": (fleet.director, fleet.director.start), "files": (fleet.files, fleet.serve_files),
    }  # fmt: skip
    process, start = starts[victim]
    assert process.kill(), f"{victim} did not run"
    start()


def order(state: str) -> int:
    """Return how far on a state is."""
    return [one.value for one in State].index(state)


def serves_its_head(fleet: KilledFleet, device: str) -> bool:
    """Whether a device's application opens the file that the centre makes of the device's newest version."""
    newest = fleet.look_up("log", device)["versions"][0]["version"]
    out = fleet.folder / "out.tflite"
    out.unlink(missing_ok=True)
    fleet.cloud("materialise", f"{device}/{MODEL}@{newest}", "-o", str(out))
    return out.read_bytes() == fleet.served(device)


if __name__ == "__main__":
    alone("deploy", "kills", measure)
