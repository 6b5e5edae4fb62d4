"""What a hello says of a board's troubles comes back as it was said, or counts for nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelwire.text import is_plain
from modelwire.wire import cbor
from modelwire.wire.more import TROUBLE_TEXT_MAX, TROUBLES_MAX, troubles_in, troubles_said

IDS = st.from_regex(r"[a-z]{1,10}(-[a-z]{1,10})?", fullmatch=True)
WORDS = st.text(max_size=300).filter(is_plain)
SINGLE = st.one_of(st.none(), st.integers(-9, 9), st.text(max_size=9))
VALUES = st.recursive(SINGLE, lambda inner: st.lists(inner, max_size=9), max_leaves=20)


@given(st.dictionaries(IDS, WORDS, max_size=12))
def test_what_is_said_is_heard_within_the_bounds(troubles: dict[str, str]) -> None:
    heard = troubles_in(troubles_said(troubles))
    assert heard == {name: troubles[name][:TROUBLE_TEXT_MAX] for name in sorted(troubles)[:TROUBLES_MAX]}


@given(VALUES)
def test_any_other_value_is_none_or_plain_and_bounded(value: cbor.Value) -> None:
    heard = troubles_in({"troubles": value})
    assert len(heard) <= TROUBLES_MAX and all(is_plain(text) and len(text) <= TROUBLE_TEXT_MAX for text in heard.values())
    assert troubles_in({}) == {} and troubles_said({}) == {}
