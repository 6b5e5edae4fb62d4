"""A rebuild keeps what it has proven, however long there is to work and whenever it is stopped."""

from __future__ import annotations

import time

from edgecloud.intake.rebuilding import Rebuilder


def test_a_rebuild_commits_what_it_has_proven_before_it_has_worked_for_long(centre, device, monkeypatch):
    centre.deliver(device, *(device.train() for _ in range(20)))
    build = Rebuilder._build
    monkeypatch.setattr(Rebuilder, "_build", lambda self, *a: (time.sleep(0.05), build(self, *a))[1])
    rebuilder = Rebuilder(centre.store, seconds=0.2)
    judged = rebuilder.run(1)
    assert 1 <= len(judged) <= 5
    assert sum(s == "verified" for s in centre.statuses(device).values()) == len(judged)
    while judged := rebuilder.run(1):
        pass
    assert set(centre.statuses(device).values()) == {"verified"}


def test_a_rebuild_that_is_told_to_stop_keeps_what_it_has_proven(centre, device):
    centre.deliver(device, *(device.train() for _ in range(20)))
    assert len(Rebuilder(centre.store).run(1, stopping=lambda: True)) == 1
