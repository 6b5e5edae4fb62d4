"""Ed25519, by the package `cryptography`; on a board by the OpenSSL that Python's own hashlib has loaded already.

`cryptography` brings an OpenSSL of its own, 6.5 MiB once it is mapped: too much for a small board. hashlib is linked with one that knows
Ed25519 since 1.1.1, and an agent asks for it when it starts (`use_loaded`), through the very library that hashlib is. Where there is none
(a Python with everything linked in, a FIPS build without the curve), `cryptography` signs there too. The centre, which judges what others
have signed, always asks `cryptography`. RFC 8032 signatures are deterministic: both give the same bytes.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, Protocol

_CURVE = 1087  # NID_ED25519, in OpenSSL's obj_mac.h
_KEY, _SIGNATURE = 32, 64
_ORDER = 2**252 + 27742317777372353535851937790883648493  # of the group
# RFC 8032, section 7.1, test 1: secret, public, and the signature of no bytes at all.
_SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
_SIGNED = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)


class Curve(Protocol):
    """What signs and checks. Keys are 32 bytes, signatures 64."""

    def public_of(self, secret: bytes) -> bytes: ...
    def sign(self, secret: bytes, message: bytes) -> bytes: ...
    def verifies(self, public: bytes, message: bytes, signature: bytes) -> bool: ...


_chosen: Curve | None = None


def curve() -> Curve:
    """Return what computes in this process: `cryptography`, unless `use_loaded` has chosen otherwise."""
    global _chosen
    if _chosen is None:
        _chosen = _Cryptography()
    return _chosen


def use_loaded() -> bool:
    """Let hashlib's OpenSSL compute in this process if it proves that it knows the curve. Return whether it does."""
    global _chosen
    if not isinstance(_chosen, _OpenSsl):
        _chosen = _proven() or _chosen
    return isinstance(_chosen, _OpenSsl)


def _proven() -> _OpenSsl | None:
    """Return hashlib's OpenSSL when it signs what it should, and takes that alone."""
    # The same signature with the group's order added to its second half: some releases took it (RFC 8032, section 5.1.7).
    again = _SIGNED[:32] + (int.from_bytes(_SIGNED[32:], "little") + _ORDER).to_bytes(32, "little")
    try:
        library = _OpenSsl()
        good = library.public_of(_SECRET) == _PUBLIC and library.sign(_SECRET, b"") == _SIGNED and library.verifies(_PUBLIC, b"", _SIGNED)
        bad = library.verifies(_PUBLIC, b"1", _SIGNED) or library.verifies(_PUBLIC, b"", again)
    except (ImportError, OSError, AttributeError, ValueError, MemoryError):  # a symbol that is not there is an AttributeError
        return None
    return library if good and not bad else None


class _OpenSsl:
    """The functions of libcrypto that hashlib's module is linked with; a symbol that is not there is an AttributeError."""

    def __init__(self) -> None:
        import _hashlib

        library = ctypes.CDLL(_hashlib.__file__)  # symbols are looked for in what it is linked with, too
        pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p

        def take(name: str, result: Any, *arguments: Any) -> Any:
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            return function

        self._private = take("EVP_PKEY_new_raw_private_key", pointer, ctypes.c_int, pointer, text, size)
        self._public = take("EVP_PKEY_new_raw_public_key", pointer, ctypes.c_int, pointer, text, size)
        self._raw_public = take("EVP_PKEY_get_raw_public_key", ctypes.c_int, pointer, text, ctypes.POINTER(size))
        self._free = take("EVP_PKEY_free", None, pointer)
        self._context = take("EVP_MD_CTX_new", pointer)
        self._free_context = take("EVP_MD_CTX_free", None, pointer)
        self._begin_sign = take("EVP_DigestSignInit", ctypes.c_int, pointer, pointer, pointer, pointer, pointer)
        self._sign = take("EVP_DigestSign", ctypes.c_int, pointer, text, ctypes.POINTER(size), text, size)
        self._begin_verify = take("EVP_DigestVerifyInit", ctypes.c_int, pointer, pointer, pointer, pointer, pointer)
        self._verify = take("EVP_DigestVerify", ctypes.c_int, pointer, text, size, text, size)
        self._clear = take("ERR_clear_error", None)

    def public_of(self, secret: bytes) -> bytes:
        out, length = ctypes.create_string_buffer(_KEY), ctypes.c_size_t(_KEY)
        with _Key(self, self._private, secret) as key:
            if self._raw_public(key, out, ctypes.byref(length)) != 1 or length.value != _KEY:
                raise ValueError("no public key")
        return out.raw

    def sign(self, secret: bytes, message: bytes) -> bytes:
        out, length = ctypes.create_string_buffer(_SIGNATURE), ctypes.c_size_t(_SIGNATURE)
        with _Key(self, self._private, secret) as key, _Context(self) as context:
            ready = self._begin_sign(context, None, None, None, key) == 1
            if not ready or self._sign(context, out, ctypes.byref(length), message, len(message)) != 1 or length.value != _SIGNATURE:
                raise ValueError("no signature")
        return out.raw

    def verifies(self, public: bytes, message: bytes, signature: bytes) -> bool:
        if len(signature) != _SIGNATURE:
            return False
        with _Key(self, self._public, public) as key, _Context(self) as context:
            ready = self._begin_verify(context, None, None, None, key) == 1
            return bool(ready and self._verify(context, signature, _SIGNATURE, message, len(message)) == 1)


class _Key:
    """A key of OpenSSL's for the length of a block. Raises ValueError for what is none."""

    def __init__(self, library: _OpenSsl, make: Any, key: bytes) -> None:
        if len(key) != _KEY:
            raise ValueError(f"a key of {len(key)} bytes")
        self._library, self._made = library, make(_CURVE, None, key, _KEY)
        if not self._made:
            library._clear()
            raise ValueError("no key of this curve")

    def __enter__(self) -> int:
        made: int = self._made
        return made

    def __exit__(self, *_: object) -> None:
        self._library._free(self._made)
        self._library._clear()  # what is left in this thread's list of errors would be taken for one of TLS


class _Context:
    """A digest context of OpenSSL's for the length of a block."""

    def __init__(self, library: _OpenSsl) -> None:
        self._library, self._made = library, library._context()
        if not self._made:
            raise MemoryError("EVP_MD_CTX_new")

    def __enter__(self) -> int:
        made: int = self._made
        return made

    def __exit__(self, *_: object) -> None:
        self._library._free_context(self._made)


class _Cryptography:
    """The package `cryptography`, imported when it is first asked for: an agent may never need it."""

    def __init__(self) -> None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ed25519

        self._invalid, self._keys = InvalidSignature, ed25519
        # A private key's public half takes as long as a signature, so the last ones are kept made up.
        self._private = lru_cache(maxsize=4)(self._keys.Ed25519PrivateKey.from_private_bytes)
        self._public = lru_cache(maxsize=1024)(self._keys.Ed25519PublicKey.from_public_bytes)

    def public_of(self, secret: bytes) -> bytes:
        return self._keys.Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()

    def sign(self, secret: bytes, message: bytes) -> bytes:
        return self._private(secret).sign(message)

    def verifies(self, public: bytes, message: bytes, signature: bytes) -> bool:
        try:
            self._public(public).verify(signature, message)
        except (self._invalid, ValueError):
            return False
        return True
