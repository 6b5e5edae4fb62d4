"""What a command `adopt` carries is a delta of the device, model, epoch and head that it names, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelwire.errors import Malformed, ModelWireError, TooLarge
from modelwire.update.adopting import LIMIT, read_adopted
from modelwire.wire.records import Command
from tests.vectors import barn

ASKED = replace(barn.RECORDS["command"], parent=barn.UPDATE.commit)  # type: ignore[call-arg]
assert isinstance(ASKED, Command)


def test_a_delta_of_this_model_is_read() -> None:
    read = read_adopted(barn.adopt(), ASKED)
    assert read.header.parent == barn.UPDATE.commit and read.signature == bytes(64)


@pytest.mark.parametrize(
    "update",
    [
        barn.adopt_snapshot(), barn.adopt_recipe(), barn.adopt(device="pi-8"), barn.adopt(model="letters"), barn.adopt(epoch=2),
        barn.adopt(parent=barn.MANIFEST.commit),
    ],
)  # fmt: skip
def test_all_else_is_refused(update: bytes) -> None:
    with pytest.raises(Malformed):
        read_adopted(update, ASKED)


@pytest.mark.parametrize("parent", [b"", barn.MANIFEST.commit])
def test_its_parent_is_the_one_that_the_command_names(parent: bytes) -> None:
    with pytest.raises(Malformed, match="parent"):
        read_adopted(barn.adopt(), replace(ASKED, parent=parent))


def test_damage_and_length_are_named_as_in_any_container() -> None:
    whole = barn.adopt()
    for n in range(len(whole)):
        with pytest.raises(ModelWireError):
            read_adopted(whole[:n], ASKED)
        with pytest.raises(ModelWireError):
            read_adopted(whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :], ASKED)
    with pytest.raises(TooLarge):
        read_adopted(bytes(LIMIT.container), ASKED)
