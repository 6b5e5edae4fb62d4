"""A name of a version and its text are one."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from edgecloud.versions import naming
from modelwire.errors import Malformed

word = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


@given(device=word, model=st.none() | word, version=st.none() | st.just("latest") | st.just("base") | st.integers(0, 10**18 - 1))
def test_a_name_comes_back_from_its_text(device: str, model: str | None, version: str | int | None) -> None:
    name = naming.Name(device, model, version)
    assert naming.parse(str(name)) == name


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_an_error_by_name(text: str) -> None:
    with contextlib.suppress(Malformed):
        assert str(naming.parse(text)).split("@")[0] == text.split("@")[0]
