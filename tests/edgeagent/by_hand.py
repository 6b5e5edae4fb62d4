"""Rounds done by hand, without an agent, and a container that counts as too large from a small size on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgeagent.commands.train import finish
from edgeagent.rounds import round as rounds
from edgeagent.rounds.round import RoundReport
from edgeagent.state.folder import DeviceFolder
from modelwire.errors import TooLarge
from modelwire.update import container

from .boards import Rig, standing


def one(r: Rig) -> RoundReport:
    return finish(rounds.run(standing(r.device, now=r.centre.clock.wall)))


def smaller(monkeypatch: pytest.MonkeyPatch, most: int, *, of: int | None = None) -> None:
    """Let `seal` refuse what takes more than `most` bytes, as it does above 64 MiB; only kind `of` when given."""
    plain = container.seal

    def seal(header: container.Header, *args: object, **more: object) -> container.Sealed:
        body = plain(header, *args, **more)  # type: ignore[arg-type]
        if len(body.data) > most and of in (None, int(header.kind)):
            raise TooLarge(what="the container", size=len(body.data), limit=most)
        return body

    monkeypatch.setattr(container, "seal", seal)


def train(r: Rig, count: int) -> None:
    """Do rounds without a link."""
    for _ in range(count):
        report = finish(rounds.run(standing(r.device, now=r.centre.clock.wall)))
        assert report.accepted, report.reason


def train_on(device: DeviceFolder, now: Callable[[], float], model: str = "tiny") -> None:
    """Do one round on an opened folder, whoever talks for it."""
    report = finish(rounds.run(standing(device, model=model, now=now)))
    assert report.accepted, report.reason
