"""What a command `adopt` carries is a delta of this device and model, and nothing else."""

from __future__ import annotations

import pytest

from modelwire.errors import Malformed, ModelWireError, TooLarge
from modelwire.update.adopting import LIMIT, read_adopted
from tests.vectors import barn


def test_a_delta_of_this_model_is_read() -> None:
    read = read_adopted(barn.adopt(), "pi-7", "digits")
    assert read.header.parent == barn.UPDATE.commit and read.signature == bytes(64)


@pytest.mark.parametrize("update", [barn.adopt_snapshot(), barn.adopt_recipe(), barn.adopt(device="pi-8"), barn.adopt(model="letters")])
def test_all_else_is_refused(update: bytes) -> None:
    with pytest.raises(Malformed):
        read_adopted(update, "pi-7", "digits")


def test_damage_and_length_are_named_as_in_any_container() -> None:
    whole = barn.adopt()
    for n in range(len(whole)):
        with pytest.raises(ModelWireError):
            read_adopted(whole[:n], "pi-7", "digits")
        with pytest.raises(ModelWireError):
            read_adopted(whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :], "pi-7", "digits")
    with pytest.raises(TooLarge):
        read_adopted(bytes(LIMIT.container), "pi-7", "digits")
