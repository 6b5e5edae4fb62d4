"""How fast updates reach the centre: from the handing over of one to the first receipt for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .figures import UPLINK_BYTES, UPLINK_SECONDS, Figures

SOURCE = "measured: receipts"
_MOST = 64  # updates that are watched at once; the window is smaller


@dataclass
class UplinkPace:
    """The updates on their way, each with its size and when it left first on this connection."""

    figures: Figures  # of the board and its link
    _left: dict[int, tuple[int, float]] = field(default_factory=dict)

    def sent(self, version: int, size: int, now: float) -> None:
        """Note that an update was handed over. now: monotonic seconds. One that goes again is still the first one."""
        self._left.setdefault(version, (size, now))
        while len(self._left) > _MOST:  # the first were refused, or given up
            del self._left[next(iter(self._left))]

    def receipted(self, versions: list[int], now: float, wall: float) -> None:
        """Fold in what the first receipt for these versions says. wall: Unix seconds."""
        for version in versions:
            size, began = self._left.pop(version, (0, now))
            if now > began:
                self.figures.note_all({UPLINK_BYTES: size, UPLINK_SECONDS: now - began}, SOURCE, wall)

    def forget(self) -> None:
        """A connection was lost: what was on its way says nothing of the link's pace."""
        self._left.clear()
