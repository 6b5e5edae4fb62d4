"""Keys as text: each with its kind, and none taken for another."""

from __future__ import annotations

import hashlib

import pytest

from modelwire.errors import Malformed, WrongKeyKind
from modelwire.wire.keys import KeyKind, fingerprint, read_fleet, read_key, write_fleet, write_key
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


def test_a_fingerprint_is_the_start_of_the_keys_digest_in_groups() -> None:
    key = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert hashlib.sha256(key).hexdigest().startswith("21fe31dfa154a261626b")
    assert fingerprint(key) == "21fe-31df-a154-a261-626b" != fingerprint(bytes([key[0] ^ 1]) + key[1:])
