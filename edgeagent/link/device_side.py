"""What the talks about all models of a device have in common."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from edgeagent.samples.spool import Spool
from edgeagent.settings.tree import LinkSettings
from edgeagent.spending.month import Month
from edgeagent.state.trust import TrustStore
from modelwire.errors import ModelWireError
from modelwire.planning import profile_of
from modelwire.wire.records import Welcome

from .certificate import OwnCertificate
from .enrolling import Enrolling
from .transport import Transport

_log = logging.getLogger("edgeagent.session")
AWAKE = 5.0  # seconds for which a modem is taken to be up after an upload: the tail of LTE is 11.6


@dataclass
class Radio:
    """Whether the link was just woken: what waits of one model goes along where another's upload has paid for that."""

    model: str = ""
    at: float = -math.inf  # monotonic seconds

    def woken(self, model: str, profile: str, now: float) -> None:
        """Note an upload that was for no other's sake. now: monotonic seconds."""
        if profile_of(profile).joules_per_wakeup:
            self.model, self.at = model, now

    def up_for_another(self, model: str, now: float) -> bool:
        """Return whether another model has just paid for a wake-up. now: monotonic seconds."""
        return self.model not in ("", model) and now - self.at <= AWAKE


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
    month: Month | None = None  # whose bytes are counted; None: nothing is held back
    radio: Radio = field(default_factory=Radio)

    def take_certificate(self, w: Welcome) -> None:
        """Take the certificate for the broker that a welcome brings; one that can't be taken leaves it a welcome all the same."""
        try:
            if self.certificate and (said := self.certificate.take(w.more, self.wall())):
                _log.info("%s", said)
        except ModelWireError as e:
            _log.warning("%s; it is not taken", e.message)
