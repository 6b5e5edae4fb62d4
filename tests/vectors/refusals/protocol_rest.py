"""The negative vectors of trust, greetings, links, commands, transfers, parts and topics. P37 to P70, P72, P74 to P80."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from modelwire import limits, merkle
from modelwire.update import container
from modelwire.wire import cbor, log, signing
from modelwire.wire.signing import Role
from tests.keys import COMMAND, FLEET_ID, RECEIPT
from tests.vectors import barn
from tests.vectors.barn import AT, FILE, OUT, WEEK, signed, trust, unknown, values

from .protocol_cases import CENTRE, CUT_LONG, CUT_SHORT, DEVICE, FRESH, TAKEN, Case, encoded, of_record, on

_PART = struct.Struct("<4sHH32sI")


def cases() -> Iterator[Case]:
    """Yield them all."""
    for part in (_trust, _time, _greetings, _links, _commands, _transfers, _part_forms, _part_proofs, _topics, _places, _updates, _takes):
        yield from part()
    yield from _leaf()


def _trust() -> Iterator[Case]:
    def second(
        rule: str, name: str, data: bytes, error: str = "Malformed", held: Mapping[str, Any] = DEVICE, good: bytes | None = None
    ) -> Case:
        return Case(name, rule, error, "device", data, held, good or encoded(trust(2)), held)

    for whose, key in (("a stranger", barn.STRANGER), ("the receipt key", RECEIPT), ("the command key", COMMAND)):
        yield second("P37", f"trust signed by {whose}", encoded(trust(2), key=key), "BadSignature")
    first = encoded(trust())
    yield second("P37", "first trust signed by a stranger", encoded(trust(), key=barn.STRANGER), "BadSignature", FRESH, first)
    yield second(
        "P37", "trust signed by the root that it names", encoded(trust(2, root=barn.NEXT_ROOT), key=barn.NEXT_ROOT), "BadSignature"
    )
    yield second("P37", "trust in the domain of command", signed(values("trust", number=2), domain=Role.COMMAND.domain), "BadSignature")
    yield second("P37", "trust signed for another fleet", signed(values("trust", number=2), bound=barn.OTHER_FLEET), "BadSignature")
    after = {**DEVICE, "trust": ["held/trust-1.bin", "held/trust-2-of-another-root.bin"]}
    good = encoded(trust(3, root=barn.NEXT_ROOT), key=barn.NEXT_ROOT)
    yield second("P37", "trust signed by the root before", encoded(trust(3)), "BadSignature", after, good)
    later = {**DEVICE, "trust": ["held/trust-1.bin", "held/trust-2.bin"]}
    for number in (1, 2):
        yield second("P38", f"trust {number} after 2", encoded(trust(number)), held=later, good=encoded(trust(3)))
    yield second("P38", "the same trust once more", encoded(trust()))
    for how, until in (("ends as it begins", AT), ("ends before it begins", AT - 1), ("ends in the first second", 1)):
        data, good = encoded(trust(2, since=AT, until=until)), encoded(trust(2, since=AT, until=AT + 1))
        yield second("P39", f"trust that {how}", data, good=good)
        yield second("P39", f"first trust that {how}", encoded(trust(1, since=AT, until=until)), held=FRESH, good=first)


def _time() -> Iterator[Case]:
    overlap = {**DEVICE, "trust": ["held/trust-1.bin", "held/trust-2.bin"]}
    last = AT + 1000 + WEEK
    ended, ended_before = (
        {**DEVICE, "trust": names} for names in (["held/trust-1-until.bin"], ["held/trust-1-until.bin", "held/trust-2-after-until.bin"])
    )
    for kind in ("welcome", "receipt", "wait"):
        data = signed(values(kind))
        for how, time in (("a second after the overlap", last + 1), ("a year after the overlap", last + 366 * 86_400)):
            yield Case(f"{kind} by the receipt key before, {how}", "P40", "BadSignature", "device", data, {**overlap, "time": time}, data,
                       {**overlap, "time": last})  # fmt: skip
    for kind in ("welcome", "command", "desired"):
        data = signed(values(kind))
        yield Case(f"{kind} by a key of a trust that has ended", "P41", "BadSignature", "device", data, {**ended, "time": AT + 2001}, data,
                   {**ended, "time": AT + 2000})  # fmt: skip
    data = signed(values("welcome"))
    yield Case("welcome by a key of the trust before that has ended within the overlap", "P41", "BadSignature", "device", data,
               {**ended_before, "time": AT + 2001}, data, {**ended_before, "time": AT + 2000})  # fmt: skip
    skipped = {**DEVICE, "trust": ["held/trust-1.bin", "held/trust-3.bin"]}
    for kind in ("welcome", "receipt", "wait"):
        data = signed(values(kind))
        name = f"{kind} by a key of trust 1 under trust 3 when trust 2 never came"
        yield Case(name, "P79", "BadSignature", "device", data, skipped, data, overlap)


def _greetings() -> Iterator[Case]:
    for how, field, number in (("epoch of 2^32", "epoch", 1 << 32), ("version of 2^62", "version", 1 << 62)):
        data, good = (signed(values("welcome", **{field: n})) for n in (number, number - 1))
        yield of_record("P42", f"welcome with an {how}" if field == "epoch" else f"welcome with a {how}", data, "welcome", good=good)
    data = signed(values("welcome", version=(1 << 63) - 1))
    yield of_record("P42", "welcome with the highest version", data, "welcome")
    data = signed(values("welcome", status="quarantine", epoch=1 << 40))
    yield of_record("P42", "welcome that is not ok with an epoch of 2^40", data, "welcome")
    for kind in ("hello", "enrol"):
        content = values(kind)
        for how, data in {
            "signed by a stranger": signed(content, key=barn.STRANGER), "in the domain of receipt":
            signed(content, domain=Role.RECEIPT.domain), "signed for another fleet": signed(content, bound=barn.OTHER_FLEET),
            "that names a key of another": signed({**content, "key": barn.STRANGER.public}),
            "that names no point of the curve": signed({**content, "key": b"\xff" * 31 + b"\x7f"}),
        }.items():  # fmt: skip
            yield of_record("P43", f"{kind} {how}", data, kind, error="BadSignature")
        data = signed(content)
        yield of_record("P43", f"{kind} with a changed signature", data[:-1] + bytes([data[-1] ^ 1]), kind, error="BadSignature")


def _links() -> Iterator[Case]:
    first = log.next_link(None, signed(values("act")))
    second = log.next_link(first, signed(values("receipt")))
    good = second.encode()
    for size in (0, 32, 39, 41, 104):
        yield Case(f"a link of {size} bytes", "P44", "Malformed", "link", (good + bytes(64))[:size], {}, good, {})
    for how, number in (("0", 0), ("2^63", 1 << 63), ("2^64 - 1", (1 << 64) - 1)):
        data = struct.pack("<Q", number) + good[8:]
        yield Case(f"a link with the number {how}", "P45", "Malformed", "link", data, {}, good, {})
        welcome = signed(values("welcome", log=good))
        yield of_record("P45", f"welcome with a link with the number {how}", signed(values("welcome", log=data)), "welcome", good=welcome)

    def held(signature: bytes) -> dict[str, str]:
        return {"receipt": RECEIPT.public.hex(), "fleet_id": FLEET_ID.hex(), "signature": signature.hex()}

    right = held(second.sign(RECEIPT, FLEET_ID))
    for how, signature in {
        "the command key": second.sign(COMMAND, FLEET_ID), "the device": second.sign(barn.DEVICE, FLEET_ID),
        "the receipt key for another fleet": second.sign(RECEIPT, barn.OTHER_FLEET),
        "the receipt key in the domain of records": RECEIPT.sign(Role.RECEIPT.domain, FLEET_ID, good),
        "the receipt key over the hash alone": RECEIPT.sign(signing.LINK, FLEET_ID, good[8:]),
        "the receipt key over the link before": first.sign(RECEIPT, FLEET_ID), "nobody": bytes(64),
    }.items():  # fmt: skip
        yield Case(f"a link signed by {how}", "P46", "BadSignature", "link", good, held(signature), good, right)
    yield Case("a link with another number", "P46", "BadSignature", "link", struct.pack("<Q", 3) + good[8:], right, good, right)


def _commands() -> Iterator[Case]:
    adopt = barn.adopt()
    rights: dict[str, dict[str, cbor.Value]] = {"snapshot": {}, "adopt": {"update": adopt}, "leaves": {"tensor": 0, "first": 0}}
    wrong: dict[str, dict[str, dict[str, cbor.Value]]] = {
        "snapshot": {"a key": {"note": "now"}, "the body of adopt": {"update": adopt}},
        "adopt": {
            "no key": {}, "a key more": {"update": adopt, "id": b""}, "a text": {"update": "x"}, "null": {"update": None},
            "another key": {"Update": adopt},
        },
        "leaves": {
            "no key": {}, "no first": {"tensor": 0}, "no tensor": {"first": 0}, "a key more": {"tensor": 0, "first": 0, "count": 1},
            "a tensor of -1": {"tensor": -1, "first": 0}, "a first of -1": {"tensor": 0, "first": -1},
            "a tensor of true": {"tensor": True, "first": 0}, "a first of 0.0": {"tensor": 0, "first": 0.0},
            "a tensor that is a text": {"tensor": "dense_kernel", "first": 0},
            "a tensor of 2^63": {"tensor": 1 << 63, "first": 0}, "a first of 2^63": {"tensor": 0, "first": 1 << 63},
        },
    }  # fmt: skip
    for verb, bodies in wrong.items():
        parent = barn.UPDATE.commit if verb == "adopt" else b""
        good = signed(values("command", verb=verb, body=rights[verb], parent=parent))
        for how, body in bodies.items():
            data = signed(values("command", verb=verb, body=body, parent=parent))
            yield of_record("P47", f"{verb} with {how}", data, "command", good=good)

    def asked(update: bytes, **fields: cbor.Value) -> bytes:
        return signed(values("command", **{"verb": "adopt", "parent": barn.UPDATE.commit, "body": {"update": update}, **fields}))

    for how, fields in (("device", {"device": "pi-8"}), ("model", {"model": "letters"})):
        yield of_record("P48", f"adopt of another {how}", asked(barn.adopt(**fields)), "command", good=asked(adopt))
    for how, update in (("a snapshot", barn.adopt_snapshot()), ("a recipe", barn.adopt_recipe())):
        yield of_record("P49", f"adopt of {how}", asked(update), "command", good=asked(adopt))
    others: dict[str, bytes] = {
        "an update of another epoch": asked(barn.adopt(epoch=2)), "an update on another parent":
        asked(barn.adopt(parent=barn.MANIFEST.commit)), "a command of another epoch": asked(adopt, epoch=2), "a command on another parent":
        asked(adopt, parent=barn.MANIFEST.commit), "a command on any parent": asked(adopt, parent=b""),
    }  # fmt: skip
    for how, data in others.items():
        yield of_record("P72", f"adopt with {how}", data, "command", good=asked(adopt))


def _transfers() -> Iterator[Case]:
    most = {"update": limits.DEFAULT.container, "base": limits.DEFAULT.model_file, "bundle": limits.DEFAULT.model_file}
    for role in (Role.DEVICE, Role.RECEIPT):
        read_as, held = ("centre", CENTRE) if role is Role.DEVICE else ("device", DEVICE)
        way = "up" if role is Role.DEVICE else "down"

        def case(rule: str, name: str, bad: dict[str, Any], good: dict[str, Any], error: str = "Malformed") -> Case:
            data, right = (encoded(barn.transfer(**fields), role) for fields in (bad, good))  # noqa: B023
            return Case(f"{name}, {way}", rule, error, read_as, data, held, right, held)  # noqa: B023

        for what, size in most.items():
            fields = {"what": what, "part_size": 65_536, "size": size}
            yield case("P50", f"{what} of a byte too many", {**fields, "size": size + 1}, fields, "TooLarge")
        yield case("P51", "a transfer of nothing", {"size": 0}, {"size": 1})
        for size in (0, 1, 512, 1023, 1025, 3072, 65_535, 131_072, 1 << 40):
            yield case("P52", f"parts of {size:,} bytes", {"part_size": size}, {"part_size": 65_536})
        for part in (1024, 2048, 4096):
            fields = {"what": "base", "part_size": part, "size": part * limits.DEFAULT.parts}
            bad = {**fields, "size": part * limits.DEFAULT.parts + 1}
            yield case("P53", f"16,385 parts of {part:,} bytes", bad, fields, "TooLarge")


def _part(index: int, path: list[bytes], data: bytes, *, magic: bytes = b"\x89MWP", version: int = 1, digests: int | None = None) -> bytes:
    head = _PART.pack(magic, version, len(path) if digests is None else digests, OUT.transfer.id, index)
    return b"".join([head, *path, data])


def _of_part(
    rule: str, name: str, data: bytes, error: str = "Malformed", transfer: str = "held/transfer.bin", good: bytes | None = None
) -> Case:
    return Case(name, rule, error, "part", data, {"transfer": transfer}, good or OUT.cut(1), {"transfer": "held/transfer.bin"})


def _part_forms() -> Iterator[Case]:
    paths = [merkle.audit_path(OUT.levels, n) for n in range(3)]
    pieces = [FILE[n * 1024 : (n + 1) * 1024] for n in range(3)]
    most = limits.DEFAULT.part
    head = _PART.size + 64
    yield _of_part("P54", "a part of a byte too many", _part(1, paths[1], pieces[1] + bytes(most + 1 - head - 1024)), "TooLarge")
    right = OUT.cut(1)
    for size in (0, 4, 43, 44):
        yield _of_part("P55", f"{size} bytes of a part", right[:size])
    yield _of_part("P55", "a part whose path is cut", right[: _PART.size + 63])
    yield _of_part("P55", "a part without a byte of the file", right[: _PART.size + 64])
    yield _of_part("P55", "a part whose path takes all there is", _part(1, paths[1], pieces[1][:12], digests=3))
    for how, magic in (("a record", b"\x89MWR"), ("an update", b"\x89MWU"), ("zeros", bytes(4))):
        yield _of_part("P56", f"a part with the magic of {how}", _part(1, paths[1], pieces[1], magic=magic))
    for version in (0, 2, 256):
        yield _of_part("P56", f"a part of version {version}", _part(1, paths[1], pieces[1], version=version))
    for how, index in (("3 of 3", 3), ("4 of 3", 4), ("2^32 - 1 of 3", (1 << 32) - 1)):
        yield _of_part("P57", f"part {how}", _part(index, paths[2], pieces[2]))
    yield _of_part("P58", "a path of 15 digests", _part(1, [*paths[1], *[bytes(32)] * 13], pieces[1]))
    yield _of_part("P58", "a path of 31 digests", _part(1, [*paths[1], *[bytes(32)] * 29], pieces[1]))
    for how, cut, transfer in (
        ("shorter than part_size", CUT_SHORT, "held/transfer-of-other-lengths.bin"),
        ("longer than the rest of the size", CUT_LONG, "held/transfer-of-a-longer-file.bin"),
    ):
        index = 0 if cut is CUT_SHORT else 2
        levels = merkle.tree_levels([merkle.leaf(piece) for piece in cut])
        yield _of_part("P59", f"a part that is {how}", _part(index, merkle.audit_path(levels, index), cut[index]), transfer=transfer)


def _part_proofs() -> Iterator[Case]:
    paths = [merkle.audit_path(OUT.levels, n) for n in range(3)]
    pieces = [FILE[n * 1024 : (n + 1) * 1024] for n in range(3)]
    changed = bytes([pieces[1][0] ^ 1]) + pieces[1][1:]
    for how, data in {
        "a changed byte": _part(1, paths[1], changed), "a digest too few": _part(1, paths[1][:1], pieces[1]),
        "no path": _part(1, [], pieces[1]), "a digest too many": _part(1, [*paths[1], bytes(32)], pieces[1]),
        "its path from the root to the leaf": _part(1, paths[1][::-1], pieces[1]),
        "the path of its neighbour": _part(1, paths[0], pieces[1]),
        "the number of its neighbour": _part(0, paths[1], pieces[1]), "a changed digest": _part(1, [paths[1][0], bytes(32)], pieces[1]),
    }.items():  # fmt: skip
        yield _of_part("P60", f"a part with {how}", data, "DigestMismatch")
    last, good = _part(2, [*paths[2], bytes(32)], pieces[2]), OUT.cut(2)
    yield _of_part("P60", "the last part with a digest for a sibling that it has not", last, "DigestMismatch", good=good)
    yield Case("a file of another id", "P61", "DigestMismatch", "joined", FILE, {"transfer": "held/transfer-of-another-file.bin"}, FILE,
               {"transfer": "held/transfer.bin"})  # fmt: skip


def _topics() -> Iterator[Case]:
    def topic(rule: str, text: str, good: str = f"{barn.TOPIC}/up/hello") -> Case:
        return Case(
            f"the topic {text.replace('+', 'plus') or 'of no word'}", rule, "Malformed", "topic", text.encode(), {}, good.encode(), {}
        )

    for text in ("", "e1", f"{barn.TOPIC}/up", f"{barn.TOPIC}/up/hello/x", f"e2{barn.TOPIC[2:]}/up/hello", f"E1{barn.TOPIC[2:]}/up/hello",
                 f"{barn.TOPIC}/hello", f"/{barn.TOPIC}/up/hello", f"{barn.TOPIC[3:]}/up/hello"):  # fmt: skip
        yield topic("P62", text)
    for leaf in ("up/adopt", "up/receipt", "up/cmd", "up/trust", "up/desired", "dn/hello", "dn/update", "dn/rsp", "dn/enrol", "dn/card",
                 "side/hello", "UP/hello", "up/Hello", "up/", "up/parts"):  # fmt: skip
        yield topic("P63", f"{barn.OF_ALL if leaf in ('dn/enrol', 'up/trust') else barn.TOPIC}/{leaf}")
    for leaf in (
        "up/hello",
        "up/update",
        "up/part",
        "up/card",
        "up/state",
        "up/rsp",
        "up/report",
        "dn/receipt",
        "dn/cmd",
        "dn/desired",
        "dn/part",
    ):
        yield topic("P64", f"{barn.OF_ALL}/{leaf}", f"{barn.TOPIC}/{leaf}")
        yield topic("P65", f"e1/barn/all/{barn.MODEL}/{leaf}", f"{barn.TOPIC}/{leaf}")
    for leaf in ("up/enrol", "dn/trust"):
        yield topic("P64", f"{barn.TOPIC}/{leaf}", f"{barn.OF_ALL}/{leaf}")
    yield topic("P65", "e1/barn/all/all/up/enrol", f"{barn.OF_ALL}/up/enrol")


def _places() -> Iterator[Case]:
    hello = signed(values("hello"))
    here = {**CENTRE, **on("up/hello")}
    strange = signed(unknown(), Role.DEVICE)
    stable = {**CENTRE, **on("up/hello", fleet="stable")}
    yield Case("hello of another fleet", "P66", "Malformed", "centre", signed(values("hello", fleet="stable")), stable, hello, here)
    yield Case("an unknown kind that goes down", "P66", "Malformed", "centre", strange, {**CENTRE, **on("dn/cmd")}, strange, here)
    response = signed(values("response"), Role.DEVICE)
    yield Case("a response that goes down", "P66", "Malformed", "centre", response, {**CENTRE, **on("dn/cmd")}, response,
               {**CENTRE, **on("up/rsp")})  # fmt: skip
    yield Case("an unknown kind on up card", "P67", "Malformed", "centre", strange, {**CENTRE, **on("up/card")}, strange, here)
    for kind, leaf in barn.LEAF.items():
        data = signed(values(kind))
        up = leaf.startswith("up/")
        read_as, plain = ("centre", CENTRE) if up else ("device", FRESH if kind == "trust" else DEVICE)
        own = {"model": "all"} if kind in ("enrol", "trust") else {}
        right = {**plain, **on(leaf, **own)}
        for field in ("fleet", "device", "model"):
            fixed = field == "model" and own, up and field == "fleet", kind == "trust" and field == "device"
            if any(fixed):
                continue
            elsewhere = {**plain, **on(leaf, **{**own, field: {"fleet": "stable", "device": "pi-8", "model": "letters"}[field]})}
            yield Case(f"{kind} on the topic of another {field}", "P68", "Malformed", read_as, data, elsewhere, data, right)
    data = signed(values("hello", fleet="stable"))
    yield Case("hello that names another fleet", "P68", "Malformed", "centre", data, here, hello, here)
    there, back = ({**CENTRE, **on("up/rsp", device=device)} for device in ("pi-8", "pi-7"))
    yield Case("an unknown kind on another device's topic", "P68", "Malformed", "centre", strange, there, strange, back)
    leaves = {"up": ("hello", "state", "rsp", "part", "report"), "dn": ("receipt", "cmd", "desired", "part")}
    goods = {**barn.LEAF, "transfer": "up/part", "wanted": "up/part", "response": "up/rsp"}
    for kind, good_leaf in goods.items():
        if kind in ("enrol", "trust"):
            continue  # their model is on no other leaf of their way
        way, _, own_leaf = good_leaf.partition("/")
        data = signed(values(kind))
        read_as, plain = ("centre", CENTRE) if way == "up" else ("device", DEVICE)
        for leaf in leaves[way]:
            if leaf != own_leaf:
                wrong, right = ({**plain, **on(f"{way}/{one}")} for one in (leaf, own_leaf))
                yield Case(f"{kind} on {way} {leaf}", "P69", "Malformed", read_as, data, wrong, data, right)


def _updates() -> Iterator[Case]:
    held = {**CENTRE, **on("up/update")}
    good = barn.UPDATE.data
    others: dict[str, dict[str, Any]] = {"device": {"device": "pi-8"}, "model": {"model": "letters"}}
    for how, fields in others.items():
        data = container.seal(barn.header(barn.HEAD, **fields), barn.FIRST, barn.MANIFEST.schema, barn.DEVICE, FLEET_ID).data
        yield Case(f"an update of another {how}", "P70", "Malformed", "centre", data, held, good, held)


def _leaf() -> Iterator[Case]:
    right: dict[str, cbor.Value] = {"tensor": 0, "leaf": 1, "start": 32_768, "digest": barn.sha(b"a leaf")}
    good = signed(values("command", verb="leaf", body=right))
    for how, body in {
        "no key": {}, "no digest": {k: v for k, v in right.items() if k != "digest"}, "a key more": {**right, "count": 1},
        "the body of leaves": {"tensor": 0, "first": 0}, "a leaf of -1": {**right, "leaf": -1}, "a start of true": {**right, "start": True},
        "a start of 2^63": {**right, "start": 1 << 63}, "a tensor that is a text": {**right, "tensor": "dense_kernel"},
        "a digest that is a text": {**right, "digest": "x" * 32},
    }.items():  # fmt: skip
        yield of_record("P47", f"leaf with {how}", signed(values("command", verb="leaf", body=body)), "command", good=good)
    for length in (0, 20, 31, 33, 64):
        data = signed(values("command", verb="leaf", body={**right, "digest": bytes(length)}))
        yield of_record("P80", f"leaf with a digest of {length} bytes", data, "command", good=good)


def _takes() -> Iterator[Case]:
    update = barn.adopt()
    good, size = signed(barn.take(update)), len(update)
    id = barn.sha(update)
    for how, body in {
        "no key": {}, "no id": {"size": size}, "no size": {"id": id}, "a key more": {"id": id, "size": size, "what": "update"},
        "the body of adopt": {"update": update}, "an id that is a text": {"id": id.hex(), "size": size}, "a size of -1":
        {"id": id, "size": -1}, "a size of true": {"id": id, "size": True}, "a size of 2^63": {"id": id, "size": 1 << 63},
    }.items():  # fmt: skip
        yield of_record("P47", f"take with {how}", signed(barn.take(update, body=body)), "command", good=good)
    for length in (0, 20, 31, 33, 64):
        data = signed(barn.take(update, body={"id": (id + id)[:length], "size": size}))
        yield of_record("P74", f"take with an id of {length} bytes", data, "command", good=good)
    yield of_record("P74", "take of nothing", signed(barn.take(update, body={"id": id, "size": 0})), "command", good=good)
    most = limits.DEFAULT.container - 64
    right = signed(barn.take(update, body={"id": id, "size": most}))
    for how, more in (("a byte too many", most + 1), ("the limit of a signed one", most + 64), ("2^62 bytes", 1 << 62)):
        data = signed(barn.take(update, body={"id": id, "size": more}))
        yield of_record("P75", f"take of {how}", data, "command", error="TooLarge", good=right)

    def whole(rule: str, name: str, file: str, **changed: Any) -> Case:
        data = signed(barn.take(TAKEN[file], **changed))
        held, right = {**DEVICE, "update": f"held/{file}"}, {**DEVICE, "update": "held/take-update.bin"}
        return Case(name, rule, "Malformed", "device", data, held, good, right)

    for how in ("of-another-device", "of-another-model", "of-another-epoch", "on-another-parent"):
        yield whole("P76", f"take of an update {how}", f"take-update-{how}.bin")
    yield whole("P76", "take in a command of another epoch", "take-update.bin", epoch=2)
    yield whole("P76", "take in a command on any parent", "take-update.bin", parent=b"")
    yield whole("P77", "take of a recipe", "take-recipe.bin")
    held = {**DEVICE, "take": "held/take.bin"}
    file = {"id": id, "what": "update", "size": size, "part_size": 1024}
    others: dict[str, dict[str, Any]] = {
        "of a byte more": {"size": size + 1}, "of a byte less": {"size": size - 1}, "of the most bytes":
        {"size": most, "part_size": 65_536}, "of a base": {"what": "base"}, "of a bundle": {"what": "bundle"},
    }  # fmt: skip
    for how, other in others.items():
        data, told = (encoded(barn.transfer(**fields), Role.RECEIPT) for fields in ({**file, **other}, file))
        yield Case(f"the transfer of a take {how}", "P78", "Malformed", "device", data, held, told, held)
