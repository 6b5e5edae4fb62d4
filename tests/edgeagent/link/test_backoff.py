"""Pauses between tries."""

from __future__ import annotations

import random

from edgeagent.link.backoff import Backoff


def test_pauses_double_with_jitter_and_never_pass_the_longest() -> None:
    b = Backoff(10, 300, random.Random(3))
    pauses = [b.next() for _ in range(100)]
    for nominal, pause in zip((10, 20, 40, 80, 160), pauses, strict=False):
        assert 0.75 * nominal <= pause <= 1.25 * nominal
    assert max(pauses) <= 300 and len(set(pauses)) > 20
    b.reset()
    assert b.next() <= 12.5
