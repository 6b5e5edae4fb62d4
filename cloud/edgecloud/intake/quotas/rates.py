"""How fast one sender may send: a bucket that fills with time, in messages and in bytes."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SendingRate:
    """What a sender may send without end, in a second, and what at once after a while of silence."""

    messages: float
    messages_at_once: float
    bytes: float
    bytes_at_once: float


# A board sends a few updates a minute. The largest update, 64 MiB in parts of 32 KiB, goes at once; then the rate is that of a fast link.
BOARD = SendingRate(messages=128, messages_at_once=2560, bytes=4 * MIB, bytes_at_once=96 * MIB)
# All strangers whose names fall together: five hundred new boards may say hello at once.
STRANGERS = SendingRate(messages=8, messages_at_once=128, bytes=1 * MIB, bytes_at_once=16 * MIB)


class RateBucket:
    """What is left of a rate. For one thread."""

    def __init__(self, rate: SendingRate, now: float) -> None:
        """now: monotonic seconds, as everywhere here."""
        self._rate, self._at = rate, now
        self._messages, self._bytes = rate.messages_at_once, rate.bytes_at_once

    def take(self, size: int, now: float) -> bool:
        """Return whether one message of so many bytes may come, and count it then. What is larger than all the room comes alone."""
        messages, room = self.left(now)
        if messages < 1 or room < min(size, self._rate.bytes_at_once):
            return False
        self._messages -= 1
        self._bytes -= size
        return True

    def left(self, now: float) -> tuple[float, float]:
        """Return how many messages and bytes may come now."""
        rate, passed = self._rate, max(0.0, now - self._at)
        self._at = now
        self._messages = min(rate.messages_at_once, self._messages + passed * rate.messages)
        self._bytes = min(rate.bytes_at_once, self._bytes + passed * rate.bytes)
        return self._messages, self._bytes
