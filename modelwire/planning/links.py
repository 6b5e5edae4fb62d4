"""What a named kind of link costs in joules, until the board's own was measured."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelwire.errors import BadArgument

F64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """Energy of one kind of link: E = wake-ups * joules_per_wakeup + bytes * joules_per_byte, of whole frames where frames count."""

    name: str
    joules_per_wakeup: float  # 0 where the link never sleeps
    joules_per_byte: float
    always_on: bool  # then nothing waits: an update goes when it is made
    source: str
    bytes_per_s: float | None = None  # the most that it carries in the long run; None: what is measured
    frame: int | None = None  # payload bytes of one frame; None: no frames that count

    def on_air(self, sizes: F64) -> F64:
        """Return the bytes that so many bytes take on the link: the last frame is paid for whole."""
        return sizes if self.frame is None else np.asarray(np.ceil(sizes / self.frame) * self.frame)


_PHONES = "phones of 2012: Huang et al., MobiSys 2012, 5 Mbit/s up"
# LTE: promotion 0.31 J and tail 1060 mW * 11.576 s; (438.39 mW/Mbps * 5 + 1288.04 mW) / 5 Mbit/s a byte. WiFi alike.
_LTE_WAKEUP, _LTE_BYTE = 12.6, 5.6e-6
_WIFI_WAKEUP, _WIFI_BYTE = 0.04, 2.5e-6

PROFILES = {
    profile.name: profile
    for profile in (
        LinkProfile("ethernet", 0.0, 0.0, True, "assumed: the port is powered anyway, and a byte costs next to nothing"),
        LinkProfile("wifi", _WIFI_WAKEUP, _WIFI_BYTE, False, _PHONES),
        LinkProfile("lte", 0.0, _LTE_BYTE, True, f"{_PHONES}; the modem never sleeps, as in a car"),
        LinkProfile("lte-sleeping", _LTE_WAKEUP, _LTE_BYTE, False, _PHONES),
        LinkProfile(
            "nb-iot", _LTE_WAKEUP, _LTE_BYTE, False,
            "assumed as lte-sleeping, to spare the battery: no figure in joules was found, so measure it",
        ),
        # 250 to 267 uJ a byte: air time by Semtech's formula at 145 mW, frames of 222 bytes; 1 % duty lets one go every 36 s.
        LinkProfile("lora-sf7", 0.0, 2.6e-4, False, "computed: Semtech's air time at 145 mW, 1 % duty", 222 / 36, 222),
    )
}  # fmt: skip


def profile_of(name: str) -> LinkProfile:
    """Return the link profile of that name. Raises BadArgument, which lists them, for an unknown one."""
    if name in PROFILES:
        return PROFILES[name]
    close = difflib.get_close_matches(name, PROFILES, 1)
    meant = f"; did you mean {close[0]}?" if close else ""
    raise BadArgument(reason=f"there is no link profile {name!r}{meant}", fix=f"take one of {', '.join(PROFILES)}")
