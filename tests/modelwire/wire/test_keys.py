"""Keys as text: each with its kind, and none taken for another."""

from __future__ import annotations

import pytest

from modelwire.errors import Malformed, WrongKeyKind
from modelwire.wire.keys import KeyKind, read_fleet, read_key, write_fleet, write_key
from tests.keys import FLEET


@pytest.mark.parametrize("kind", KeyKind, ids=lambda kind: kind.prefix)
def test_a_key_reads_back_as_its_kind_alone(kind: KeyKind) -> None:
    key = bytes(range(kind.value[2]))
    text = write_key(kind, key)
    assert read_key(f"  {text}\n", kind, "k") == key
    for other in KeyKind:
        if other is not kind:
            with pytest.raises(WrongKeyKind, match=f"{kind.title}.*{other.prefix}"):
                read_key(text, other, "a.key")
    for bad in (text[:-1], text + "0", text[:-1] + "g", text.upper(), text.replace(":", ": ")):
        with pytest.raises((Malformed, WrongKeyKind)):
            read_key(bad, kind, "a.key")
    with pytest.raises(WrongKeyKind, match="says not which"):
        read_key(key.hex(), kind, "a.key")


def test_a_fleet_reads_back() -> None:
    assert read_fleet(write_fleet(FLEET), "fleet.pub") == FLEET
