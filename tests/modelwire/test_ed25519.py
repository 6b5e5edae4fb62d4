"""hashlib's OpenSSL and `cryptography` sign alike, and refuse alike."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire import ed25519


@pytest.fixture(scope="module")
def both() -> tuple[ed25519.Curve, ed25519.Curve]:
    try:
        return ed25519._OpenSsl(), ed25519._Cryptography()
    except (ImportError, OSError, AttributeError):
        pytest.skip("this Python's hashlib is linked with no OpenSSL that can be called")


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=3000))
def test_both_give_the_same_key_and_the_same_signature_and_take_each_others(both, secret: bytes, message: bytes) -> None:
    one, other = both
    public, signature = one.public_of(secret), one.sign(secret, message)
    assert (public, signature) == (other.public_of(secret), other.sign(secret, message))
    assert one.verifies(public, message, signature)
    assert other.verifies(public, message, signature)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 32 + 64 + 20 - 1), st.integers(0, 7))
def test_a_flipped_bit_of_key_message_or_signature_is_refused_by_both(both, at: int, bit: int) -> None:
    secret, message = bytes(range(32)), bytes(20)
    whole = bytearray(both[1].public_of(secret) + both[1].sign(secret, message) + message)
    whole[at] ^= 1 << bit
    for each in both:
        try:
            assert not each.verifies(bytes(whole[:32]), bytes(whole[96:]), bytes(whole[32:96]))
        except ValueError:
            assert at < 32  # a key that is none


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65), b"\xff" * 64])
def test_what_is_no_signature_is_refused_by_both(both, signature: bytes) -> None:
    for each in both:
        assert not each.verifies(both[1].public_of(bytes(32)), b"message", signature)


def test_an_s_beyond_the_groups_order_is_refused_by_both(both) -> None:
    """Else a signature could be changed into another valid one, and two containers of one update would differ."""
    order = 2**252 + 27742317777372353535851937790883648493
    secret, message = bytes(range(32)), b"message"
    good = both[0].sign(secret, message)
    other = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    for each in both:
        assert not each.verifies(both[1].public_of(secret), message, other)


def test_keys_of_another_length_are_no_keys(both) -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        both[0].sign(bytes(31), b"")
    with pytest.raises(ValueError, match="33 bytes"):
        both[0].verifies(bytes(33), b"", bytes(64))


def test_signing_loads_no_second_openssl_where_hashlib_has_one(both) -> None:
    code = "import sys; from modelwire.signing import *; PrivateKey(bytes(32)).sign(b'', b''); sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_python_without_such_an_openssl_signs_by_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_hashlib", None)
    ed25519.curve.cache_clear()
    try:
        chosen = ed25519.curve()
        assert isinstance(chosen, ed25519._Cryptography)
        assert chosen.sign(ed25519._SECRET, b"") == ed25519._SIGNED
    finally:
        monkeypatch.undo()
        ed25519.curve.cache_clear()
