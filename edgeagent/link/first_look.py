"""Looks once, for seconds at most, whether a broker is where the settings say: for who sets a board up, often before there is a network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgeagent.settings.tree import LinkSettings
from edgecommon.broker import Broker
from edgecommon.probing import Found
from modelwire.errors import ModelWireError

from . import looking
from .credentials import parse_broker

SECONDS = 3.0  # for all of it: a name server that is not there would be waited for much longer


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What one look at a broker found."""

    reached: bool
    text: str


def look(
    settings: LinkSettings, folder: Path, fleet: str, device: str, model: str, *, seconds: float = SECONDS,
    monotonic: Callable[[], float] = time.monotonic,
) -> FirstLook:  # fmt: skip
    """Return what is found at the broker, as `edgeagent doctor` looks. Raises ConfigError for no broker's URL.

    folder: of the settings, where relative paths of certificates begin.
    """
    broker = parse_broker(settings.broker)
    found: list[FirstLook] = []
    until = monotonic() + seconds

    def at_work() -> None:
        try:
            steps = looking.look(replace(settings, connect_timeout=seconds), folder, fleet, device, model)
            found.append(_told(broker, steps))
        except ModelWireError as e:
            found.append(FirstLook(False, f"{broker.url}: {e.message}"))

    thread = threading.Thread(target=at_work, name="a look at the broker", daemon=True)  # what still waits then ends with the process
    thread.start()
    thread.join(max(0.0, until - monotonic()))
    return found[0] if found else FirstLook(False, f"{broker.url} has not answered within {seconds:g} s")


def _told(broker: Broker, steps: list[Found]) -> FirstLook:
    for one in steps:
        if one.ok is False:
            return FirstLook(False, f"{broker.url}: {one.text}" + (f"; {one.fix}" if one.fix else ""))
    return FirstLook(True, f"{broker.url} answers")
