"""Listens to a transport, and waits until something is true."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edgecloud.intake.transport import Delivery


@dataclass
class Ear:
    """Collects what a transport delivers."""

    got: list[Delivery] = field(default_factory=list)

    def __call__(self, delivery: Delivery) -> None:
        self.got.append(delivery)

    def data(self) -> list[bytes]:
        return [d.data for d in self.got]


def until(true: Callable[[], bool], seconds: float = 150.0) -> None:
    """Wait until it is true. seconds: a safety limit for a machine that hangs."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
