"""Every bit of what is signed counts."""

from __future__ import annotations

import pytest

from tests.system import bit_flips

ALL = list(bit_flips.signed())


@pytest.mark.parametrize(("name", "what", "read"), ALL, ids=[name.replace(" ", "-") for name, _, _ in ALL])
def test_no_flip_of_one_bit_is_taken(name: str, what: bytes, read: bit_flips.Read) -> None:
    assert bit_flips.taken(what, read) == 0, name
