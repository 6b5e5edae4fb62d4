"""A key that an ssh-agent keeps: it signs here and never leaves there. draft-miller-ssh-agent, for ssh-ed25519 alone."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress

from modelwire.errors import BadArgument, BadSignature
from modelwire.wire import ed25519
from modelwire.wire.signing import KEY_BYTES, SIGNATURE_BYTES

NAME = "ssh-agent"  # as --key says it
SOCKET = "SSH_AUTH_SOCK"
REPLY_MAX = 256 * 1024  # bytes of an answer, as in OpenSSH
SECONDS = 120.0  # the agent may ask a person first (ssh-add -c)
_TYPE = b"ssh-ed25519"
_LIST, _LISTED, _SIGN, _SIGNED = 11, 12, 13, 14


class AgentKey:
    """Implements Signer. What it signs begins with our domain, which is neither what SSH signs to log in nor an SSH signature of a file."""

    def __init__(self, public: bytes) -> None:
        self.public = public

    def sign(self, domain: bytes, fleet: bytes, message: bytes) -> bytes:
        """Return the signature, checked. Raises BadArgument when the agent is away or does not sign, BadSignature for another key's."""
        signed = domain + fleet + message
        answer = _ask(_SIGN, _string(_blob(self.public)) + _string(signed) + bytes(4), _SIGNED)
        inner = _Reader(answer).string()
        reader = _Reader(inner)
        kind, signature = reader.string(), reader.string()
        if kind != _TYPE or len(signature) != SIGNATURE_BYTES or reader.left:
            raise _odd("its signature is not one of ssh-ed25519")
        if not ed25519.curve().verifies(self.public, signed, signature):
            raise BadSignature(what="what the ssh-agent signed", signer="the key that was asked for")
        return signature


def agent_key(wanted: Sequence[bytes], what: str) -> AgentKey:
    """Return the one of these public keys that the agent at SSH_AUTH_SOCK holds. Raises BadArgument when it holds none of them."""
    held = identities()
    for public in wanted:
        if public in held:
            return AgentKey(public)
    reason = f"the ssh-agent at {SOCKET} holds {len(held)} keys of ssh-ed25519, and none of them is {what}"
    raise BadArgument(reason=reason, fix="edgecloud keys export-ssh command.key | ssh-add -")


def identities() -> list[bytes]:
    """Return the public keys of ssh-ed25519 that the agent holds. Raises BadArgument when there is no agent."""
    reader = _Reader(_ask(_LIST, b"", _LISTED))
    out = []
    for _ in range(reader.number()):
        blob, _comment = _Reader(reader.string()), reader.string()
        if blob.string() == _TYPE:
            key = blob.string()
            if len(key) == KEY_BYTES:
                out.append(key)
    return out


def _ask(kind: int, body: bytes, wanted: int) -> bytes:
    """Return the body of the agent's answer. Its answers are no more to be believed than a file."""
    path = os.environ.get(SOCKET, "")
    if not path:
        raise BadArgument(reason=f"{SOCKET} is not set, so there is no ssh-agent to sign", fix="eval $(ssh-agent), then ssh-add the key")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        end = time.monotonic() + SECONDS
        link.settimeout(SECONDS)
        try:
            link.connect(path)
            link.sendall(struct.pack(">IB", len(body) + 1, kind) + body)
            (size,) = struct.unpack(">I", _read(link, 4, end))
            if not 1 <= size <= REPLY_MAX:
                raise _odd(f"an answer of {size} bytes")
            answer = _read(link, size, end)
        except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
            raise BadArgument(reason=f"the ssh-agent at {path}: {error}", fix="ssh-add -l tells whether it answers") from None
        finally:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
    if answer[0] != wanted:
        raise BadArgument(reason="the ssh-agent does not sign: it is locked, or somebody said no", fix="ssh-add -l, ssh-add -X")
    return answer[1:]


def _read(link: socket.socket, size: int, end: float) -> bytes:
    out = bytearray()
    while len(out) < size:
        left = end - time.monotonic()  # of the whole answer: one that comes byte by byte would hold the registry for days
        if left <= 0:
            raise TimeoutError("it takes too long to answer")
        link.settimeout(left)
        more = link.recv(size - len(out))
        if not more:
            raise OSError(f"it hung up after {len(out)} of {size} bytes")
        out += more
    return bytes(out)


class _Reader:
    """What is left of an answer."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def number(self) -> int:
        if len(self.left) < 4:
            raise _odd("an answer that ends too early")
        (value,) = struct.unpack_from(">I", self.left)
        self.left = self.left[4:]
        return int(value)

    def string(self) -> bytes:
        size = self.number()
        if size > len(self.left):
            raise _odd("an answer that ends too early")
        out, self.left = self.left[:size], self.left[size:]
        return out


def _blob(public: bytes) -> bytes:
    return _string(_TYPE) + _string(public)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _odd(reason: str) -> BadArgument:
    return BadArgument(reason=f"what answers at {SOCKET} is no ssh-agent: {reason}", fix="ssh-add -l tells what it is")
