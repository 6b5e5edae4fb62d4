"""What befalls a fleet: kill -9 of broker, ingester and agents, each kind as often as the others, at moments that a seed chooses."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

from tests.broker import Mosquitto
from tests.system.fleet import Fleet

BROKER, INGESTER, AGENTS = KINDS = "broker", "ingester", "agents"
AGAIN = 0.25  # of those who are killed are killed again within a second of their start, whatever they do there
DOWN = {BROKER: 0.5, INGESTER: 0.5, AGENTS: 0.3}  # seconds, at the most, between a kill and the next start


class Havoc:
    """Kills and starts again, and counts. The fleet's processes run when it is made."""

    def __init__(self, fleet: Fleet, hub: Mosquitto, rng: random.Random) -> None:
        self.fleet, self.hub = fleet, hub
        self.kills: Counter[str] = Counter()
        self._rng = rng
        self._turn: list[str] = []  # all kinds in random order, again and again: chance alone may spare one of them
        self._agents: list[str] = []  # the same of the agents

    def strike(self) -> None:
        """Kill one and start it again, perhaps twice."""
        self._turn = self._turn or self._rng.sample(KINDS, len(KINDS))
        kind = self._turn.pop()
        if kind == AGENTS:
            self.strike_agent()
        else:
            self._strike(kind, kind)

    def strike_agent(self) -> None:
        """Kill an agent, if one runs, and start it again, perhaps twice."""
        if victim := self._agent():
            self._strike(AGENTS, victim)

    def _strike(self, kind: str, victim: str) -> None:
        self._kill(kind, victim)
        if self._rng.random() < AGAIN:
            time.sleep(self._rng.uniform(0.0, 1.0))
            self._kill(kind, victim)

    def _agent(self) -> str:
        running = {name for name, process in self.fleet.devices.items() if process.running}
        self._agents = [name for name in self._agents if name in running] or self._rng.sample(sorted(running), len(running))
        return self._agents.pop() if self._agents else ""

    def _kill(self, kind: str, victim: str) -> None:
        down = self._rng.uniform(0.0, DOWN[kind])
        if kind == BROKER:
            self.hub.kill()
            self.kills[kind] += 1
            time.sleep(down)
            self.hub.start()
            return
        process = self.fleet.ingester if kind == INGESTER else self.fleet.devices[victim]
        if process.kill():
            self.kills[kind] += 1
            time.sleep(down)
            process.start()

    def pause_ingester(self, seconds: float, meanwhile: Callable[[], None]) -> None:
        """Stop the ingester where it is for so long. meanwhile: is called again and again."""
        self.fleet.ingester.pause()
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                meanwhile()
        finally:
            self.fleet.ingester.resume()
