"""A clock that says 1970, or a year after 2038, from the start or from the middle of a round on: nothing is lost or numbered by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.service import counting
from edgeagent.service.goal import Goal
from tests.edgeagent.boards import Rig, ScriptedModel, centre, fill, rig
from tests.edgeagent.centre import FakeClock

WRONG = {"1970": 0.0, "2038": 2.0**31 + 5, "2106": 2.0**32 + 5, "5138": 1e11}  # Unix seconds


class SetClock(FakeClock):
    """A clock that somebody sets; the time that passes goes on."""

    def __init__(self, wall: float | None = None) -> None:
        super().__init__()
        self.apart = 0.0
        if wall is not None:
            self.set_to(wall)

    def set_to(self, wall: float) -> None:
        self.apart += wall - self.wall()

    def wall(self) -> float:
        return super().wall() + self.apart


def states(r: Rig) -> set[str]:
    return set(r.states().values())


@pytest.mark.parametrize("year", WRONG)
def test_a_clock_that_is_wrong_from_the_start_numbers_nothing(tmp_path: Path, year: str) -> None:
    clock = SetClock(WRONG[year])
    said = centre(clock)
    said._now = lambda: 1_800_000_000 + int(clock.now)  # type: ignore[method-assign]  # the centre's is right
    with rig(tmp_path / "d", said) as r:
        fill(r.device)
        for n in (1, 2, 3):
            r.run(Goal(rounds=n, timeout=3600))
        assert list(r.states()) == [1, 2, 3] and states(r) == {"verified"}


@pytest.mark.parametrize("year", WRONG)
@pytest.mark.parametrize("back", [False, True], ids=["for good", "and set right again"])
def test_a_clock_that_jumps_in_the_middle_of_a_round_changes_nothing_of_it(tmp_path: Path, year: str, back: bool) -> None:
    clock, steps = SetClock(), [0]

    class Jumping(ScriptedModel):
        def train(self, x: object, y: object, lr: float) -> float:
            steps[0] += 1
            clock.now += 40
            if steps[0] == 2:
                clock.set_to(WRONG[year])
            elif back and steps[0] == 4:
                clock.set_to(1_800_000_000.0 + clock.now)
            return super().train(x, y, lr)  # type: ignore[arg-type]

    said = centre(clock)
    said._now = lambda: 1_800_000_000 + int(clock.now)  # type: ignore[method-assign]
    with rig(tmp_path / "d", said, lambda file, name: Jumping(file), train__epochs="4", train__every="5m") as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=3600))
        assert steps[0] >= 5 and r.states() == {1: "verified"}
        r.serve(1500)
        assert len(r.states()) >= 2 and states(r) == {"verified"}, "the next round comes by the time that has passed"


def test_the_boot_in_which_the_centre_answered_is_known_whatever_clock_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, kernel = FakeClock(), tmp_path / "boot_id"
    monkeypatch.setattr(counting, "BOOT", kernel)
    said, year = centre(clock), [3_800_000_000]  # the centre's clock is a hundred years off, and is set right later
    said._now = lambda: year[0]  # type: ignore[method-assign]
    for name, answers in (("first", True), ("second", False), ("third", True)):
        kernel.write_text(f"{name}\n")
        said.drop_down = lambda record, answers=answers: not answers  # type: ignore[misc]
        with rig(tmp_path / "d", said) as r:
            before = counting.answered_in(r.device.database)
            r.serve(30)
            assert counting.answered_in(r.device.database) == (name if answers else before)
        year[0] = 1_800_000_000
