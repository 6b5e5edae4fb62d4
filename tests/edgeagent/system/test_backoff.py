"""Pauses between tries."""

from __future__ import annotations

import random

from edgeagent.system.backoff import Backoff


def test_pauses_double_with_jitter_and_never_pass_the_longest() -> None:
    b = Backoff(10, 300, random.Random(3))
    pauses = [b.next() for _ in range(100)]
    for nominal, pause in zip((10, 20, 40, 80, 160), pauses, strict=False):
        assert 0.75 * nominal <= pause <= 1.25 * nominal
    assert max(pauses) <= 300 and len(set(pauses)) > 20
    b.reset()
    assert b.next() <= 12.5


def test_a_fleet_that_lost_its_broker_together_comes_back_spread_out() -> None:
    rng = random.Random(5)
    fleet = [Backoff(1.0, 120.0, rng) for _ in range(1000)]
    back = sorted(b.anew() for b in fleet)
    assert back[0] >= 0.5 and back[-1] <= 5.0
    assert max(sum(t <= one < t + 1.0 for one in back) for t in back) < 300, "as many as mosquitto lets in within a second, over TLS"
    assert all(1.5 <= b.next() <= 2.5 for b in fleet), "and from there on it doubles"
    assert Backoff(30.0, 60.0, rng).anew() <= 60.0
