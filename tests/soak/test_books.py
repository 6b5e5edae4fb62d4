"""The books of both sides: whatever differs is found and named, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.soak.books import Books, Entry, compare


def entries(count: int) -> list[Entry]:
    return [Entry(n, n.to_bytes(32, "big"), bytes([n]) * 32, bytes([n, 1]) * 16, "verified") for n in range(1, count + 1)]


def closed(mine: list[Entry], held: list[Entry]) -> Books:
    books = Books()
    compare("pi-7", mine, held, books)
    return books


def test_equal_lists_balance() -> None:
    books = closed(entries(9), entries(9))
    assert books.balanced and (books.made, books.stored, books.verified, books.wrong) == (9, 9, 9, [])


@given(st.integers(1, 30), st.data())
def test_each_difference_is_named_under_its_kind(count: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, count - 1))
    mine, held = entries(count), entries(count)
    one = held[at]
    assert [len(found) for found in _kinds(mine, held[:at] + held[at + 1 :])] == [1, 0, 0]
    assert [len(found) for found in _kinds(mine, [*held[: at + 1], *held[at:]])] == [0, 2, 0], "both rows are named"
    assert [len(found) for found in _kinds(mine[:at] + mine[at + 1 :], held)] == [0, 1, 0]
    for field in ("commit", "root", "sha256"):
        other = replace(one, **{field: bytes(32)})
        assert [len(found) for found in _kinds(mine, [*held[:at], other, *held[at + 1 :]])] == [0, 0, 1]
    for side in (mine, held):
        unproven = [*side[:at], replace(one, status="stored"), *side[at + 1 :]]
        sides = (unproven, held) if side is mine else (mine, unproven)
        assert [len(found) for found in _kinds(*sides)] == [1, 0, 0]


def test_a_list_that_is_out_of_order_does_not_balance() -> None:
    assert not closed(entries(5), entries(5)[::-1]).balanced


def test_what_differs_says_who_and_which_version() -> None:
    mine = entries(3)
    assert closed(mine, mine[:2]).wrong == [f"lost: pi-7@3 (verified, commit {mine[2].commit.hex()[:12]}) is not there at the centre"]


def _kinds(mine: list[Entry], held: list[Entry]) -> tuple[list[str], list[str], list[str]]:
    books = closed(mine, held)
    assert not books.balanced
    return books.lost, books.doubled, books.diverged
