"""What the talks about all models of a device have in common."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from edgeagent.samples.spool import Spool
from edgeagent.settings.tree import LinkSettings
from edgeagent.state.trust import TrustStore

from .certificate import OwnCertificate
from .enrolling import Enrolling
from .transport import Transport


@dataclass(frozen=True, slots=True)
class DeviceSide:
    """Of one device: its folder, its link, and whom it believes."""

    transport: Transport
    link: LinkSettings
    spool: Spool
    trust: TrustStore
    enrolling: Enrolling  # whether a claim lets this device in
    agent: str  # its release
    rng: random.Random
    wall: Callable[[], float]  # Unix seconds, said in records and logs alone
    certificate: OwnCertificate | None = None  # for the broker, where this device has one
