"""Pauses that double and are spread by chance, so that a fleet that lost its broker together does not come back together."""

from __future__ import annotations

import random

# Of the shortest pause: from when to when boards come back that lost one broker in one moment. Over TLS mosquitto lets in some hundred
# a second, so 1,000 that come within half of one wait for each other until they give up.
TOGETHER = 0.5, 5.0


class Backoff:
    """The pauses of one thing that is tried again and again. Seconds."""

    def __init__(self, first: float, most: float, rng: random.Random) -> None:
        self.first, self.most = first, most
        self.tries = 0
        self._rng = rng

    def next(self) -> float:
        """Return the next pause: up to a quarter off its nominal length, twice the last one's, at most `most`."""
        nominal = min(self.most, self.first * 2.0 ** min(self.tries, 40))
        self.tries += 1
        return min(self.most, nominal * self._rng.uniform(0.75, 1.25))

    def anew(self) -> float:
        """Return the first pause after what was well for a while, which a whole fleet may have lost together: half of it to five times."""
        self.tries = 1
        return min(self.most, self.first * self._rng.uniform(*TOGETHER))

    def reset(self) -> None:
        self.tries = 0
