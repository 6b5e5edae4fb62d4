"""Of two clients with one name the one that came later steps back, whichever way a broker tells that the session went to the other."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from edgecommon.broker import Tenure


@dataclass
class Client:
    """One of two that a broker knows by one name. It connects again after its pause, until it steps back."""

    starts: float
    pause: float
    tells: bool  # the broker says that the session was taken over
    tenure: Tenure = field(default_factory=Tenure)
    back: bool = False
    due: float = 0.0

    def __post_init__(self) -> None:
        self.due = self.starts


def fight(*clients: Client, until: float = 4000.0) -> list[Client]:
    """Let them put each other off, and return who has stepped back."""
    holder: Client | None = None
    while True:
        trying = [c for c in clients if c is not holder and not c.back and c.due <= until]
        if not trying:
            return [c for c in clients if c.back]
        newcomer = min(trying, key=lambda c: c.due)
        now = newcomer.due
        if holder is not None:
            holder.back = holder.tenure.went_down(now, taken=holder.tells)
            holder.due = now + holder.pause
        newcomer.tenure.came_up(now)
        holder = newcomer


def test_who_held_the_session_goes_on_and_the_newcomer_steps_back() -> None:
    for tells in (True, False):
        old, new = Client(0.0, 1.0, tells), Client(600.0, 1.0, tells)
        assert fight(old, new) == [new], "whether the broker says it or hangs up"
        assert old.tenure.takeovers >= 2, "the other one names it all the same"


def test_exactly_one_of_two_that_start_together_steps_back() -> None:
    chance = random.Random(7)
    for tells in (True, False):
        for _ in range(200):
            pair = [Client(chance.uniform(0, 5), chance.uniform(0.5, 4), tells) for _ in range(2)]
            assert len(fight(*pair)) == 1


def test_who_was_away_for_long_comes_back_as_a_newcomer() -> None:
    old, new = Client(0.0, 1.0, True), Client(300.0, 1.0, True)
    old.tenure.came_up(0.0)
    assert not old.tenure.went_down(200.0, taken=False, dropped=False)  # its network is gone
    old.due = 900.0
    assert fight(old, new) == [old]


def test_a_thief_of_the_name_never_makes_its_holder_step_back() -> None:
    for tells in (True, False):
        tenure = Tenure()
        tenure.came_up(0.0)
        now, back = 100.0, tenure.went_down(100.0, taken=tells)
        for _ in range(500):
            now += 1.0
            tenure.came_up(now)
            now += 0.1
            back = back or tenure.went_down(now, taken=tells)
        assert not back and tenure.takeovers > 400


def test_a_broker_in_trouble_makes_nobody_step_back() -> None:
    tenure = Tenure()
    for n in range(100):
        tenure.came_up(10.0 * n)
        assert not tenure.went_down(10.0 * n + 1.0, taken=False)
        if n % 2:
            tenure.not_reached()  # it is not there at once
    assert tenure.takeovers == 0


def test_a_broker_that_crashes_again_and_again_and_forgets_its_sessions_is_no_other_client() -> None:
    for kept, most in ((True, 3), (False, 24)):
        tenure, survived = Tenure(ended=4), 0
        while survived < 100:
            tenure.came_up(5.0 * survived, kept=kept)
            if tenure.went_down(5.0 * survived + 4.0, taken=False):
                break
            survived += 1
        assert survived == most, "a client of another kind may make it forget, too: so it counts an eighth, and not nothing"


def test_a_link_that_is_given_up_here_is_no_word_of_the_broker() -> None:
    tenure = Tenure(ended=2)
    for n in range(20):
        tenure.came_up(10.0 * n)
        assert not tenure.went_down(10.0 * n + 1.0, taken=False, dropped=False)
        assert not tenure.went_down(10.0 * n + 1.0, taken=True), "it was gone before"
    assert tenure.takeovers == 0


def test_what_is_said_names_what_was_seen() -> None:
    told, bare = Tenure(), Tenure(soon=30.0)
    told.came_up(0.0)
    told.went_down(1.0, taken=True)
    for n in range(4):
        bare.came_up(n)
        bare.went_down(n + 0.5, taken=False)
    assert told.said() == "another client took its session 1 time"
    assert bare.said() == "the broker ended 4 connections in a row within 30 s, as when another client takes the name"
