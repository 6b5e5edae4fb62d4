"""What a policy says, read strictly; and steps after each of which all that is not gone is recoverable."""

from __future__ import annotations

import random

import pytest

from edgecloud.keeping.retention import Job, Keep, Needed, jobs, kept, parse_keep
from edgecloud.registry import SquashRow, Status, VersionRow
from modelwire.errors import BadArgument


def row(
    id: int, kind: str = "delta", *, parent: int | None = None, status: Status = Status.VERIFIED, day: int = 0, epoch: int = 1
) -> VersionRow:
    commit, base, at = id.to_bytes(32, "big"), b"b" * 32, 86400 * day
    return VersionRow(1, epoch, id, kind, commit, bytes(32), parent, base, commit, bytes(16), commit, 10, at, b"", id, status, "")


@pytest.mark.parametrize("text", ["all", "daily", "last 50", "tagged", "daily + last 3", "daily+last 3+tagged", " tagged  +  daily "])
def test_a_policy_reads_back_as_it_is_said(text: str) -> None:
    assert parse_keep(str(parse_keep(text))) == parse_keep(text)


@pytest.mark.parametrize(
    "text",
    ["", "+", "all + last 1", "last", "last 0", "last -1", "last 1.5", "daily + daily", "daily + x", "none", "LAST 1", "last 2000000"]
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(BadArgument):
        parse_keep(text)


def test_days_and_the_newest_of_each_epoch_stay_and_what_is_not_verified() -> None:
    versions = [row(n, day=n // 3, epoch=1 + n // 7, parent=n - 1 or None) for n in range(1, 13)]
    versions.append(row(13, status=Status.STORED, parent=12, day=4, epoch=2))
    assert kept(versions, Keep(daily=True), Needed()) == {2, 5, 6, 8, 11, 12, 13}
    assert kept(versions, Keep(last=2), Needed(heads=[3], commits=[(4).to_bytes(32, "big")])) == {3, 4, 5, 6, 11, 12, 13}
    assert kept(versions, Keep(tagged=True), Needed(tagged=[9])) == {6, 9, 12, 13}
    assert len(kept(versions, Keep(everything=True), Needed())) == 13


@pytest.mark.parametrize("seed", range(60))
def test_after_every_step_what_is_not_gone_is_come_to_and_at_the_end_no_more_is_left(seed: int) -> None:
    random_ = random.Random(seed)
    versions: list[VersionRow] = []
    for id in range(1, random_.randint(2, 60)):
        parent = None if id == 1 or random_.random() < 0.04 else id - 1
        versions.append(row(id, random_.choice(["delta"] * 6 + ["snapshot", "recipe"]), parent=parent))
    by_id, gone, squashes = {v.id: v for v in versions}, set[int](), dict[int, SquashRow]()
    own = set(by_id)  # whose own container is there

    def comes_back(id: int) -> bool:
        while True:
            if id in squashes:
                start = squashes[id].from_id
                if start is None:
                    return True
            elif id not in own:
                return False
            else:
                start = None if by_id[id].kind == "snapshot" else by_id[id].parent_id
                if start is None:
                    return True
            id = start

    for _ in range(3):  # what is kept gets less, as histories go on
        stay = {v.id for v in versions if v.id not in gone and random_.random() < 0.3} | {len(versions)}
        for job in jobs(versions, stay, gone, dict(squashes), random_.randint(2, 9)):
            carry_out(job, gone, own, squashes)
            assert not job.gone or not {v.id for v in job.gone} & stay
            assert all(comes_back(id) for id in by_id if id not in gone), job
        assert set(by_id) - gone == stay


def carry_out(job: Job, gone: set[int], own: set[int], squashes: dict[int, SquashRow]) -> None:
    for one in job.gone:
        gone.add(one.id)
        own.discard(one.id)
        squashes.pop(one.id, None)
    if job.end is not None:
        own.discard(job.end.id)
        squashes[job.end.id] = SquashRow(job.end.id, job.start.id if job.start is not None else None, "delta", bytes(32), 1)
