"""Write the examples of docs/protocol.md: between `<!-- example: NAME -->` and `<!-- end -->`.

python -m tests.vectors.page_examples_protocol
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from modelwire import merkle
from modelwire.wire import cbor, keys, log, records, signing
from modelwire.wire.records import NOT_UNDERSTOOD, Act, Hello, Receipt, Record, Response, Transfer, Wanted, Welcome
from modelwire.wire.signing import Role
from tests.keys import COMMAND, DIRECTOR, FLEET_ID, RECEIPT, ROOT
from tests.vectors import barn
from tests.vectors.barn import AT, DEVICE, RECORDS, WEEK, WHO, signed, trust, unknown

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
CHALLENGE = bytes(range(0xC0, 0xE0))
_LINE = 48  # bytes


def hexes(data: bytes) -> list[str]:
    """Return bytes as lines of hexadecimal digits."""
    return [data[at : at + _LINE].hex() for at in range(0, len(data), _LINE)]


def shown(title: str, data: bytes) -> list[str]:
    """Return bytes under their title, and an empty line."""
    return [f"{title}, {len(data)} bytes:", *hexes(data), ""]


def told(record: Record, role: Role | None = None) -> bytes:
    """Return a record in its envelope, signed by the key of its role."""
    role = record.ROLES[0] if role is None else role
    return records.encode(record, barn.KEYS[role], FLEET_ID, role=role)


def hello(**changed: object) -> Hello:
    """Return the hello of the examples, with other fields."""
    return replace(RECORDS["hello"], **changed)  # type: ignore[return-value,arg-type]


def _key_strings() -> list[str]:
    private = {
        keys.KeyKind.DEVICE_PRIVATE: DEVICE, keys.KeyKind.ROOT_PRIVATE: ROOT, keys.KeyKind.RECEIPT_PRIVATE: RECEIPT,
        keys.KeyKind.COMMAND_PRIVATE: COMMAND, keys.KeyKind.DIRECTOR_PRIVATE: DIRECTOR,
    }  # fmt: skip
    seeds = [bytes(range(32)), *(bytes([n]) * 32 for n in (0xF1, 0xF2, 0xF3, 0xF4))]
    public = {
        keys.KeyKind.DEVICE: DEVICE, keys.KeyKind.RECEIPT: RECEIPT, keys.KeyKind.COMMAND: COMMAND, keys.KeyKind.DIRECTOR: DIRECTOR,
    }  # fmt: skip
    for seed, key in zip(seeds, private.values(), strict=True):
        assert signing.PrivateKey(seed).public == key.public
    return [
        *(keys.write_key(kind, seed) for kind, seed in zip(private, seeds, strict=True)),
        *(keys.write_key(kind, key.public) for kind, key in public.items()),
        barn.fleet_pub(),
    ]


def _signatures() -> list[str]:
    message = barn.UPDATE.commit
    out = [f"fleet id  {FLEET_ID.hex()}", f"message   {message.hex()}"]
    for domain in (signing.UPDATE, Role.DEVICE.domain):
        signature = DEVICE.sign(domain, FLEET_ID, message)
        out += ["", f"domain    {domain[:-1].decode()}", f"signature {signature[:32].hex()}", f"          {signature[32:].hex()}"]
    return out


def _hello() -> list[str]:
    data = told(hello())
    at, content = 24, cbor.decode(data[24:-64])
    assert isinstance(content, dict)
    out = [*hexes(data), ""]
    out += ["at   0  magic 894d5752, version 01, role 01", f"at   6  length {data[6:8].hex()}: {len(data) - 88}"]
    out += [f"at   8  fleet id {data[8:24].hex()}", f"at {at:3}  {data[at : at + 1].hex()}: map of {len(content)}"]
    at += 1
    for key, value in content.items():
        size = len(cbor.encode(key)) + len(cbor.encode(value))
        said = value.hex() if isinstance(value, bytes) else "false" if value is False else value
        out.append(f"at {at:3}  {key} {said}".rstrip())
        at += size
    assert at == len(data) - 64
    return [*out, f"at {at:3}  signature"]


def _more() -> list[str]:
    fine, critical = (signed({**barn.values("hello"), "more": {key: "hall"}}) for key in ("site", "!site"))
    return shown('more {"site": "hall"}', fine) + shown('more {"!site": "hall"}, refused', critical)


def _unknown_kind() -> list[str]:
    answer = Response(*WHO, 7, False, NOT_UNDERSTOOD, {})
    return shown("down, role receipt, kind tomorrow", signed(unknown(), Role.RECEIPT)) + shown("up, role device, response", told(answer))


def _trust() -> list[str]:
    second = trust(2, since=AT + WEEK, overlap=WEEK, receipt=barn.NEXT_RECEIPT)
    return shown("trust 1", told(trust())) + shown("trust 2", told(second))


def _greeting() -> list[str]:
    base = barn.MANIFEST.commit
    challenged = Welcome(*WHO, barn.STATE, "challenge", 0, 0, base, 0, 0, AT, CHALLENGE, 0, b"", b"", 0, (1,))
    welcome = Welcome(*WHO, barn.STATE, "ok", 1, 0, base, 0, 0, AT + 1, b"", 0, b"", b"", 0, (1,))
    return [
        *shown("up/hello, hello with trust 0", told(hello(trust=0))),
        *shown("dn/trust, trust 1", told(trust())),
        *shown("dn/cmd, welcome that says challenge", told(challenged)),
        *shown("up/hello, hello with the answer", told(hello(at=AT + 1, trust=1, answer=CHALLENGE))),
        *shown("dn/cmd, welcome that says ok", told(welcome)),
    ]


def _log() -> list[str]:
    act, receipt = RECORDS["act"], replace(RECORDS["receipt"], place=2)  # type: ignore[call-arg]
    assert isinstance(act, Act) and isinstance(receipt, Receipt)
    entries = [told(act), told(receipt)]
    first = log.next_link(None, entries[0])
    second = log.next_link(first, entries[1])
    return [
        *shown("entry 1, an act", entries[0]),
        *shown("link 1", first.encode()),
        *shown("entry 2, a receipt", entries[1]),
        *shown("link 2", second.encode()),
        *shown("signature of link 2", second.sign(RECEIPT, FLEET_ID)),
    ]


def _adopt() -> list[str]:
    command = replace(RECORDS["command"], parent=barn.UPDATE.commit, verb="adopt", body={"update": barn.adopt()})  # type: ignore[call-arg]
    answer = Response(*WHO, 7, True, "@2 adopted", {})
    return [
        *shown("dn/cmd, command", told(command)),
        *shown("the update in it", barn.adopt()),
        *shown("up/rsp, response", told(answer)),
    ]


def _audit_path() -> list[str]:
    levels = barn.OUT.levels
    out = [f"leaf {n}  {leaf.hex()}" for n, leaf in enumerate(levels[0])]
    out += [f"tree    {levels[-1][0].hex()}", f"id      {barn.OUT.transfer.id.hex()}"]
    for n in range(3):
        for place, digest in enumerate(merkle.audit_path(levels, n)):
            out.append(f"{'path ' + str(n) if not place else '      '}  {digest.hex()}")
    return out


def _parts() -> list[str]:
    transfer, wanted = RECORDS["transfer"], RECORDS["wanted"]
    assert isinstance(transfer, Transfer) and isinstance(wanted, Wanted)
    part = barn.OUT.cut(1)
    assert part[108:] == barn.FILE[1024:2048]
    return [
        *shown("up/part, transfer", told(transfer, Role.DEVICE)),
        *shown("dn/part, wanted with have 05", told(wanted, Role.RECEIPT)),
        f"up/part, part 1, {len(part)} bytes: its head and its path, then bytes 1,024 to 2,047 of the file:",
        *hexes(part[:108]),
        f"SHA-256 of the whole message {barn.sha(part).hex()}",
    ]


def _agreement() -> list[str]:
    said = barn.agreement()
    return [
        *shown("up/hello, that asks about numbers", told(said["hello"])),
        *shown("dn/receipt, that answers it about @7", told(said["receipt"])),
        *shown("dn/cmd, welcome that answers it", told(said["welcome"])),
    ]


def _certificate() -> list[str]:
    said = barn.renewal_records()
    return [*shown("up/hello, with a certificate's digest", told(said["hello"])), *shown("dn/cmd, welcome", told(said["welcome"]))]


EXAMPLES: dict[str, Callable[[], list[str]]] = {
    "key-strings": _key_strings, "signatures": _signatures, "record-hello": _hello, "record-more": _more,
    "record-unknown-kind": _unknown_kind, "trust": _trust, "hello-welcome": _greeting, "certificate": _certificate,
    "log-link": _log, "command-adopt": _adopt,
    "audit-path": _audit_path, "parts": _parts, "agreement": _agreement,
}  # fmt: skip


def filled(text: str) -> str:
    """Return the page with its examples as they are today."""
    for name, example in EXAMPLES.items():
        lines = "\n".join(f"    {line}".rstrip() for line in example()).rstrip()
        start = f"<!-- example: {name} -->\n"
        assert text.count(start) == 1, name
        block = re.compile(re.escape(start) + r"(?:(?:(?: {4}.*)?\n)*<!-- end -->\n)?")
        text = block.sub(lambda _, start=start, lines=lines: f"{start}\n{lines}\n\n<!-- end -->\n", text)  # type: ignore[misc]
    return text


def main() -> None:
    """Write the examples into the page."""
    PAGE.write_text(filled(PAGE.read_text()))


if __name__ == "__main__":
    main()
