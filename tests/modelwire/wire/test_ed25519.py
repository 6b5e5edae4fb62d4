"""hashlib's OpenSSL and `cryptography` sign alike, and refuse alike."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire.wire import ed25519


@pytest.fixture(scope="module")
def both() -> tuple[ed25519.Curve, ed25519.Curve]:
    try:
        return ed25519._OpenSsl(), ed25519._Cryptography()
    except (ImportError, OSError, AttributeError):
        pytest.skip("this Python's hashlib is linked with no OpenSSL that can be called")


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=3000))
def test_both_give_the_same_key_and_the_same_signature_and_take_each_others(
    both: tuple[ed25519.Curve, ed25519.Curve], secret: bytes, message: bytes
) -> None:
    one, other = both
    public, signature = one.public_of(secret), one.sign(secret, message)
    assert (public, signature) == (other.public_of(secret), other.sign(secret, message))
    assert one.verifies(public, message, signature)
    assert other.verifies(public, message, signature)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 32 + 64 + 20 - 1), st.integers(0, 7))
def test_a_flipped_bit_of_key_message_or_signature_is_refused_by_both(both: tuple[ed25519.Curve, ed25519.Curve], at: int, bit: int) -> None:
    secret, message = bytes(range(32)), bytes(20)
    whole = bytearray(both[1].public_of(secret) + both[1].sign(secret, message) + message)
    whole[at] ^= 1 << bit
    for each in both:
        try:
            assert not each.verifies(bytes(whole[:32]), bytes(whole[96:]), bytes(whole[32:96]))
        except ValueError:
            assert at < 32  # a key that is none


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65), b"\xff" * 64])
def test_what_is_no_signature_is_refused_by_both(both: tuple[ed25519.Curve, ed25519.Curve], signature: bytes) -> None:
    for each in both:
        assert not each.verifies(both[1].public_of(bytes(32)), b"message", signature)


def test_an_s_beyond_the_groups_order_is_refused_by_both(both: tuple[ed25519.Curve, ed25519.Curve]) -> None:
    """Else a signature could be changed into another valid one, and two containers of one update would differ."""
    order = 2**252 + 27742317777372353535851937790883648493
    secret, message = bytes(range(32)), b"message"
    good = both[0].sign(secret, message)
    other = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    for each in both:
        assert not each.verifies(both[1].public_of(secret), message, other)


def test_keys_of_another_length_are_no_keys(both: tuple[ed25519.Curve, ed25519.Curve]) -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        both[0].sign(bytes(31), b"")
    with pytest.raises(ValueError, match="33 bytes"):
        both[0].verifies(bytes(33), b"", bytes(64))


RFC_8032 = [  # section 7.1, tests 1 to 3: secret, public, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_both_compute_what_rfc_8032_prints(
    both: tuple[ed25519.Curve, ed25519.Curve], secret: str, public: str, message: str, signature: str
) -> None:
    for each in both:
        assert each.public_of(bytes.fromhex(secret)).hex() == public
        assert each.sign(bytes.fromhex(secret), bytes.fromhex(message)).hex() == signature
        assert each.verifies(bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature))


# The points of order 1, 2, 4 and 8, each way of writing them that some reader takes, and two that are none.
STRANGE = [
    f"01{'00' * 31}", f"01{'00' * 30}80", f"ec{'ff' * 30}7f", "ec" + "ff" * 31, "00" * 32, f"{'00' * 31}80", f"ed{'ff' * 30}7f",
    "ed" + "ff" * 31, f"ee{'ff' * 30}7f", "ee" + "ff" * 31, "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85", "02" + "00" * 31, "ff" * 32,
]  # fmt: skip


def test_points_of_small_order_and_strange_forms_get_one_verdict(both: tuple[ed25519.Curve, ed25519.Curve]) -> None:
    """Who registers such a key gives it away, so what the verdict is harms nobody else; that there are two would."""

    def taken(curve: ed25519.Curve, key: bytes, message: bytes, signature: bytes) -> bool:
        try:
            return curve.verifies(key, message, signature)
        except ValueError:
            return False

    for key in STRANGE:
        for point in STRANGE:
            for n in range(8):
                said = [taken(each, bytes.fromhex(key), bytes([n]), bytes.fromhex(point) + bytes(32)) for each in both]
                assert said[0] == said[1], (key, point, n)


@pytest.mark.slow("signs in many threads")
def test_many_threads_at_once_each_get_their_own_answer(both: tuple[ed25519.Curve, ed25519.Curve]) -> None:
    public = both[0].public_of(bytes(32))

    def work(n: int) -> bool:
        mine = b"%d" % n
        signature = both[0].sign(bytes(32), mine)
        return both[0].verifies(public, mine, signature) and not both[0].verifies(public, mine + b"x", signature)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(2000)))


def loaded_by(code: str) -> bool:
    """Return whether a program ends with `cryptography` loaded."""
    return subprocess.run([sys.executable, "-c", f"{code}\nsys.exit('cryptography' in sys.modules)"], check=False).returncode == 1


SIGN = "import sys; from modelwire.wire import ed25519; from modelwire.wire.signing import *"


def test_a_board_loads_no_second_openssl_where_hashlib_has_one_and_all_others_ask_cryptography(
    both: tuple[ed25519.Curve, ed25519.Curve],
) -> None:
    assert not loaded_by(f"{SIGN}; ed25519.use_loaded(); PrivateKey(bytes(32)).sign(b'', b'', b'')")
    assert loaded_by(f"{SIGN}; PrivateKey(bytes(32)).sign(b'', b'', b'')")


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(ed25519, "_chosen", None)
    return monkeypatch


def test_a_python_without_such_an_openssl_signs_by_cryptography(afresh: pytest.MonkeyPatch) -> None:
    afresh.setitem(sys.modules, "_hashlib", None)
    assert not ed25519.use_loaded()
    assert isinstance(ed25519.curve(), ed25519._Cryptography)
    assert ed25519.curve().sign(ed25519._SECRET, b"") == ed25519._SIGNED


@pytest.mark.parametrize(
    "name", ["EVP_PKEY_new_raw_public_key", "EVP_PKEY_get_raw_public_key", "EVP_DigestSign", "EVP_DigestVerify", "ERR_clear_error"]
)
def test_an_openssl_that_lacks_a_function_is_not_taken(
    both: tuple[ed25519.Curve, ed25519.Curve], afresh: pytest.MonkeyPatch, name: str
) -> None:
    class Lacking:
        def __init__(self, path: str) -> None:
            self.library = CDLL(path)

        def __getattr__(self, wanted: str) -> object:
            if wanted == name:
                raise AttributeError(wanted)
            return getattr(self.library, wanted)

    CDLL = ctypes.CDLL
    afresh.setattr(ctypes, "CDLL", Lacking)
    assert not ed25519.use_loaded()
    assert isinstance(ed25519.curve(), ed25519._Cryptography)


def test_an_openssl_that_takes_a_changed_signature_is_not_taken(
    both: tuple[ed25519.Curve, ed25519.Curve], afresh: pytest.MonkeyPatch
) -> None:
    afresh.setattr(ed25519._OpenSsl, "verifies", lambda *_: True)
    assert not ed25519.use_loaded()
