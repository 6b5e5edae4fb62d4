"""Negative vectors of commits, signatures and header proofs: C78 to C85 and C107 to C109 of docs/format/container.md."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import replace

from modelwire.wire import signing
from modelwire.wire.signing import PrivateKey, Role
from tests.hostile.mutations import Open, flip, opened
from tests.keys import FLEET_ID
from tests.modelwire import golden
from tests.modelwire.models import KEY

from . import curve
from .container_cases import Case, on
from .container_layout import EXACT, UPDATES, case, good

_PROOFS = golden.WIRE_1 / "proofs"


def with_commit(o: Open, commit: bytes) -> bytes:
    """Return a container with another commit, which its device has signed."""
    return o.body() + commit + KEY.sign(signing.UPDATE, FLEET_ID, commit)


def in_commits() -> Iterator[Case]:
    o, whole = good("updates", "10-later-keys"), golden.data("updates", "10-later-keys")
    held = on("updates", "1-delta")
    sha = lambda *parts: hashlib.sha256(b"".join(parts)).digest()  # noqa: E731
    body = o.body()
    at = 32 + 128 + len(o.device + o.model)
    front, content = body[:at], body[at + len(o.extension) :]
    digests = sha(o.extension) + sha(content)
    wrong = {
        "another bit": flip(o.commit, 31), "of the body": sha(body), "without the number in front": sha(front, digests),
        "without the extension": sha(b"\4", front, sha(), sha(content)),
        "of the extension itself": sha(b"\4", front, o.extension, sha(content)),
        "of the stream without its table": sha(b"\4", front, sha(o.extension), sha(o.stream)), "zeros": bytes(32), "the root": o.root,
    }  # fmt: skip
    for name, commit in wrong.items():
        yield case("C78", name, with_commit(o, commit), "DigestMismatch", held)
    for name, place in {
        "in the header": 40,
        "in the extension": at + 3,
        "in the table": len(body) - len(o.stream) - 1,
        "in the stream": len(body) - 1,
    }.items():
        yield case("C78", f"another bit {name}", flip(whole, place), "DigestMismatch", held)
    empty = good("updates", "9-undo-squash")
    assert not empty.extension
    body = empty.body()
    at = 32 + 128 + len(empty.device + empty.model)
    commit = sha(b"\4", body[:at], bytes(32), sha(body[at:]))
    yield case("C78", "zeros for an empty extension", with_commit(empty, commit), "DigestMismatch", on("updates", "8-squash-1-2"))
    exact = golden.data("exact", "1-exact")
    yield case("C78", "another bit in the planes", flip(exact, len(exact) - 97), "DigestMismatch", EXACT)


def in_signatures() -> Iterator[Case]:
    o, whole = good("updates", "1-delta"), golden.data("updates", "1-delta")
    other_fleet = bytes(range(1, 17))
    yield case("C79", "of another key", o.resealed(key=PrivateKey(bytes(32))), "BadSignature")
    yield case("C79", "of another fleet", o.resealed(fleet=other_fleet), "BadSignature")
    yield case("C79", "read in another fleet", whole, "BadSignature", {**UPDATES, "fleet_id": other_fleet.hex()})
    yield case("C79", "read with another key", whole, "BadSignature", {**UPDATES, "key": PrivateKey(bytes(32)).public.hex()})
    domains = {
        "of a record": Role.DEVICE.domain,
        "of a link": signing.LINK,
        "without the zero byte": signing.UPDATE[:-1],
        "without domain": b"",
    }
    for name, domain in domains.items():
        yield case("C79", name, o.resealed(domain=domain), "BadSignature")
    yield case("C79", "without the fleet id", o.resealed(fleet=b""), "BadSignature")
    yield case("C79", "over the body", o.body() + o.commit + KEY.sign(signing.UPDATE, FLEET_ID, o.body()), "BadSignature")
    for name, place in {"R": -64, "S": -32, "the last byte": -1}.items():
        yield case("C79", f"another bit in {name}", flip(whole, len(whole) + place), "BadSignature")
    yield case("C79", "zeros", whole[:-64] + bytes(64), "BadSignature")
    yield case(
        "C79",
        "of the version before",
        good("updates", "2-delta").body() + good("updates", "2-delta").commit + whole[-64:],
        "BadSignature",
        on("updates", "1-delta"),
    )


def proof_of(o: Open, signature: bytes | None = None) -> bytes:
    """Return the header proof of an update, whatever is wrong with its front."""
    body = o.body()
    at = 32 + len(o.device + o.model + o.base) + 128
    digests = hashlib.sha256(o.extension).digest() + hashlib.sha256(body[at + len(o.extension) :]).digest()
    commit = hashlib.sha256(b"\4" + body[:at] + digests).digest()
    return b"\x89MWH" + struct.pack("<I", 1) + body[:at] + digests + (signature or KEY.sign(signing.UPDATE, FLEET_ID, commit))


def in_header_proofs() -> Iterator[Case]:
    start = bytes.fromhex(json.loads((_PROOFS / "expected.json").read_text())["base"])
    first, second = (_PROOFS / "1.bin").read_bytes(), (_PROOFS / "2.bin").read_bytes()
    held = {"start": start.hex()}

    def proof(rule: str, name: str, data: bytes, error: str = "Malformed", **more: str) -> Case:
        return Case(rule, name, error, "header-proof", data, {**held, **more})

    o = good("updates", "1-delta")
    o = replace(o, parent=start)
    yield proof("C80", "2217 bytes", first + bytes(2217 - len(first)), "TooLarge")
    for name, magic in {"of a container": b"\x89MWU", "of a record": b"\x89MWR", "without its high bit": b"\x09MWH"}.items():
        yield proof("C81", name, magic + first[4:])
    for version in (0, 2, 0x101, 0x01000000):
        yield proof("C82", f"{version:#x}", first[:4] + struct.pack("<I", version) + first[8:], "UnsupportedWire")
    for name, data in {
        "a byte behind": first + b"\0",
        "a byte short": first[:-1],
        "without the signature": first[:-64],
        "no bytes": b"",
        "167 bytes": first[:167],
    }.items():
        yield proof("C83", name, data)
    yield proof("C84", "another bit", flip(first, len(first) - 1), "BadSignature")
    yield proof("C84", "another root", flip(first, 8 + 32 + 80), "BadSignature")
    yield proof("C84", "another digest of the extension", flip(first, len(first) - 128), "BadSignature")
    yield proof("C84", "another digest of the content", flip(first, len(first) - 65), "BadSignature")
    yield proof("C84", "in another fleet", first, "BadSignature", fleet_id=bytes(16).hex())
    yield proof("C84", "of another key", first, "BadSignature", key=PrivateKey(bytes(32)).public.hex())
    yield proof("C85", "the second one first", second, "UnknownParent")
    yield proof("C85", "the first one twice", first, "UnknownParent", start=hashlib.sha256(first).hexdigest())
    # What stands in a preamble and a header is checked here, too.
    yield proof("C39", "in a header proof", proof_of(replace(o, magic=b"\x89MWR\r\n\x1a\n")))
    yield proof("C40", "in a header proof", proof_of(replace(o, crc=0)), "DigestMismatch")
    yield proof("C41", "in a header proof", proof_of(replace(o, wire=2)), "UnsupportedWire")
    yield proof("C43", "in a header proof", proof_of(replace(o, header_len=2049)), "TooLarge")
    yield proof("C44", "in a header proof", proof_of(replace(o, extension_len=16385)), "TooLarge")
    yield proof("C45", "in a header proof", proof_of(replace(o, sections=4097)), "TooLarge")
    yield proof("C46", "in a header proof", proof_of(replace(o, header_len=129)))
    yield proof("C47", "in a header proof", proof_of(replace(o, sections=4096)))
    yield proof("C48", "in a header proof", proof_of(replace(o, digest=2)), "UnsupportedWire")
    yield proof("C49", "in a header proof", proof_of(replace(o, kind=4)), "UnsupportedWire")
    yield proof("C50", "in a header proof", proof_of(replace(o, model_len=5)))
    yield proof("C51", "in a header proof", proof_of(replace(o, device=b"Pi-7")))
    yield proof("C52", "in a header proof", proof_of(replace(o, device=b"all")))
    yield proof("C53", "in a header proof", proof_of(replace(o, epoch=0)))
    yield proof("C54", "in a header proof", proof_of(replace(o, version=0)))


MESSAGE = b"modelwire"


def in_curve() -> Iterator[Case]:
    def signed(rule: str, name: str, key: bytes, signature: bytes, message: bytes = MESSAGE) -> Case:
        return Case(rule, name, "BadSignature", "ed25519", key + signature + message)

    secret, public = bytes(range(32)), KEY.public
    good_one = KEY.sign(b"", b"", MESSAGE)
    r, s = good_one[:32], int.from_bytes(good_one[32:], "little")
    for times in (1, 2, 8):
        yield signed("C107", f"S and {times} times L", public, r + (s + times * curve.L).to_bytes(32, "little"))
    identity = curve.encode(curve.IDENTITY)
    yield signed("C107", "S of L", identity, identity + curve.L.to_bytes(32, "little"))
    yield signed("C107", "with its highest bit", public, r + (s | 1 << 255).to_bytes(32, "little"))
    whole = golden.data("updates", "1-delta")
    again = (int.from_bytes(whole[-32:], "little") + curve.L).to_bytes(32, "little")
    yield case("C107", "of a container", whole[:-32] + again, "BadSignature")
    for name, key in {"2": b"\2" + bytes(31), "2 and a sign": b"\2" + bytes(30) + b"\x80", "7": b"\7" + bytes(31)}.items():
        assert curve.decode(key) is None
        yield signed("C108", name, key, identity + bytes(32))
    beyond = (curve.P + 2).to_bytes(32, "little")  # 2 mod p
    yield signed("C108", "2 and p", beyond, identity + bytes(32))
    for order, point in curve.SMALL.items():
        yield signed("C109", f"R and a point of order {order}", public, curve.sign(secret, MESSAGE, beside=point))
    # Under the identity as key, S = 0 gives the identity as R: in its canonical form alone.
    one_more = (curve.P + 1).to_bytes(32, "little")
    forms = {"y and p": one_more, "a sign where x is 0": flip_sign(identity), "both": flip_sign(one_more)}
    for name, point in forms.items():
        yield signed("C109", name, identity, point + bytes(32))
    yield signed("C109", "another bit of R", public, bytes([r[0] ^ 1]) + good_one[1:])
    yield signed("C109", "another bit of S", public, r + bytes([good_one[32] ^ 1]) + good_one[33:])
    yield signed("C109", "another message", public, good_one, MESSAGE + b"\0")
    yield signed("C109", "a key of the other sign", flip_sign(public), good_one)
    yield signed("C109", "zeros", public, bytes(64))
    pre = bytearray(whole)
    pre[-64:] = curve.sign(secret, signing.UPDATE + FLEET_ID + opened(whole).commit, beside=curve.SMALL[8])
    yield case("C109", "R and a point of order 8 of a container", bytes(pre), "BadSignature")


def flip_sign(point: bytes) -> bytes:
    return point[:31] + bytes([point[31] ^ 0x80])


def cases() -> Iterator[Case]:
    for part in (in_commits, in_signatures, in_header_proofs, in_curve):
        yield from part()
