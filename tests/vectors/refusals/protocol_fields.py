"""The negative vectors of what a record is made of: names, envelope, fields, `more`, who may say what, unknown kinds. P1 to P36."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelwire import limits
from modelwire.wire import cbor, keys, records, signing
from modelwire.wire.signing import Role
from tests.keys import FLEET_ID, RECEIPT
from tests.vectors import barn
from tests.vectors.barn import AT, signed, unknown, values

from .protocol_cases import CENTRE, DEVICE, FRESH, Case, of_record, on

_ORDER = 2**252 + 27742317777372353535851937790883648493  # of the group of Ed25519
_NAMES = {
    "empty": "", "of 65 characters": "a" * 65, "with a capital": "Pi-7", "with a dash first": "-pi7", "with a slash": "pi/7",
    "with a space": "pi 7", "with a wildcard": "+", "with a line end behind it": "pi-7\n",
    "of another script": "π7", "with a dot first": ".pi",
}  # fmt: skip


def cases() -> Iterator[Case]:
    """Yield them all."""
    for part in (
        _names,
        _keys,
        _signatures,
        _senders,
        _envelope,
        _content,
        _types,
        _numbers,
        _texts,
        _bytes,
        _lists,
        _more,
        _roles,
        _unknown,
    ):
        yield from part()


def _names() -> Iterator[Case]:
    for how, name in _NAMES.items():
        for field in ("fleet", "device", "model"):
            yield of_record("P1", f"a {field} name {how}", signed(values("hello", **{field: name})), "hello")
    yield of_record("P1", "a device name with a capital in a command", signed(values("command", device="Pi-7")), "command")
    yield of_record("P1", "a model name of 65 characters in an unknown kind", signed(unknown(model="a" * 65), Role.DEVICE), "unknown")
    for how, name in _NAMES.items():
        if "slash" not in how:
            for place, field in enumerate(("fleet", "device", "model"), 1):
                words = ["e1", barn.FLEET_NAME, barn.DEVICE_NAME, barn.MODEL, "up", "hello"]
                good, words[place] = "/".join(words), name
                yield _of_text("P1", f"a topic with a {field} name {how}", "topic", "/".join(words), good)
    for kind in records.KINDS:
        yield of_record("P73", f"{kind} of the fleet all", signed(values(kind, fleet="all")), kind)
    yield of_record("P73", "an unknown kind of the fleet all", signed(unknown(fleet="all"), Role.DEVICE), "unknown")
    for rest in ("pi-7/digits/up/hello", "pi-7/digits/dn/cmd", "all/all/dn/trust"):
        yield _of_text("P73", f"the topic e1/all/{rest}", "topic", f"e1/all/{rest}", f"e1/{barn.FLEET_NAME}/{rest}")
    for kind in (k for k in records.KINDS if k != "trust"):
        yield of_record("P2", f"{kind} of the device all", signed(values(kind, device="all")), kind)
    yield of_record("P2", "trust of one device", signed(values("trust", device="pi-7")), "trust")
    for kind in (k for k in records.KINDS if k not in ("trust", "enrol", "act")):
        yield of_record("P3", f"{kind} of the model all", signed(values(kind, model="all")), kind)
    for kind in ("trust", "enrol", "act"):
        yield of_record("P3", f"{kind} of one model", signed(values(kind, model="digits")), kind)


def _of_text(rule: str, name: str, read_as: str, text: str, good: str, error: str = "Malformed", **held: Any) -> Case:
    return Case(name, rule, error, read_as, text.encode(), held, good.encode(), held)


def _keys() -> Iterator[Case]:
    lines = {kind: keys.write_key(kind, bytes(range(kind.value[2]))) for kind in keys.KeyKind}
    swaps = [
        (keys.KeyKind.DEVICE, keys.KeyKind.DEVICE_PRIVATE), (keys.KeyKind.DEVICE_PRIVATE, keys.KeyKind.DEVICE),
        (keys.KeyKind.RECEIPT, keys.KeyKind.COMMAND), (keys.KeyKind.COMMAND, keys.KeyKind.DIRECTOR),
        (keys.KeyKind.DIRECTOR, keys.KeyKind.RECEIPT), (keys.KeyKind.ROOT_PRIVATE, keys.KeyKind.FLEET),
        (keys.KeyKind.FLEET, keys.KeyKind.ROOT_PRIVATE), (keys.KeyKind.RECEIPT_PRIVATE, keys.KeyKind.COMMAND_PRIVATE),
        (keys.KeyKind.COMMAND_PRIVATE, keys.KeyKind.ROOT_PRIVATE), (keys.KeyKind.DIRECTOR_PRIVATE, keys.KeyKind.DEVICE_PRIVATE),
    ]  # fmt: skip
    for wanted, got in swaps:
        yield _of_text(
            "P4", f"{got.prefix} where {wanted.prefix} belongs", "key", lines[got], lines[wanted], "WrongKeyKind", kind=wanted.prefix
        )
    held, good = {"kind": "edge-device-pub"}, lines[keys.KeyKind.DEVICE]
    digits = good.partition(":")[2]
    for how, text in {
        "a key without a kind": digits, "a key without a colon": f"edge-device-pub{digits}", "a key with a kind of tomorrow":
        f"edge-tomorrow-pub:{digits}", "a key with its kind in capitals": f"EDGE-DEVICE-PUB:{digits}", "a file without a key": "",
        "a colon alone": f":{digits}", "a key behind a no-break space": f"\xa0{good}",
    }.items():  # fmt: skip
        yield _of_text("P4", how, "key", text, good, "WrongKeyKind", **held)
    yield _of_text("P4", "a device key in fleet.pub", "fleet.pub", good, barn.fleet_pub(), "WrongKeyKind")
    for how, rest in {
        "with a digit too few": digits[:-1], "with two digits too few": digits[:-2], "with two digits too many": digits + "00",
        "without digits": "", "in capitals": digits.upper(), "with a letter that is no digit": "g" + digits[1:],
        "with spaces between": f"{digits[:32]} {digits[32:]}", "with a space first": f" {digits}", "of two lines": f"{digits}\n{digits}",
        "with a 0x": f"0x{digits[2:]}", "with a no-break space behind": f"{digits}\xa0", "with a separator behind": f"{digits}\x1f",
    }.items():  # fmt: skip
        yield _of_text("P5", f"a key {how}", "key", f"edge-device-pub:{rest}", good, **held)
    yield _of_text("P5", "fleet.pub without the fleet id", "fleet.pub", barn.fleet_pub()[:-32], barn.fleet_pub())
    yield _of_text(
        "P5", "a private key of 96 digits", "key", f"edge-root-key:{'00' * 48}", f"edge-root-key:{'00' * 32}", kind="edge-root-key"
    )


def _signatures() -> Iterator[Case]:
    for kind in ("welcome", "wait", "receipt", "command", "desired", "transfer", "wanted", "response"):
        role = Role.RECEIPT if kind in ("transfer", "wanted", "response") else records.KINDS[kind].ROLES[0]
        good = signed(values(kind), role)

        def down(name: str, data: bytes, *, held: Any = DEVICE, kind: str = kind, good: bytes = good) -> Case:
            return Case(f"{kind} {name}", "P6", "BadSignature", "device", data, held, good, DEVICE)

        yield down("signed by a stranger", signed(values(kind), role, barn.STRANGER))
        yield down("signed by the device itself", signed(values(kind), role, barn.DEVICE))
        others = [r for r in (Role.RECEIPT, Role.COMMAND, Role.DIRECTOR, Role.ROOT) if r is not role]
        for other in others if kind in ("welcome", "command", "desired") else ():
            yield down(f"signed by the {other.name.lower()} key", signed(values(kind), role, barn.KEYS[other]))
            yield down(f"in the domain of {other.name.lower()}", signed(values(kind), role, domain=other.domain))
        if kind == "welcome":
            yield down("in the domain of device", signed(values(kind), role, domain=Role.DEVICE.domain))
            yield down("in the domain of updates", signed(values(kind), role, domain=signing.UPDATE))
            yield down("in the domain of links", signed(values(kind), role, domain=signing.LINK))
            yield down("in no domain", signed(values(kind), role, domain=b""))
            yield down("in a domain without its zero byte", signed(values(kind), role, domain=role.domain[:-1]))
            yield down("signed for another fleet", signed(values(kind), role, bound=barn.OTHER_FLEET))
            yield down("signed for no fleet", signed(values(kind), role, bound=b""))
            yield down("to a device without a trust record", good, held=FRESH)
            half = int.from_bytes(good[-32:], "little") + _ORDER
            yield down("with the order added to its signature", good[:-32] + half.to_bytes(32, "little"))
        for how, at in (("first", -64), ("last", -1)):
            yield down(f"with the {how} byte of its signature changed", _flipped(good, at))
        yield down("with a byte of its content changed", good.replace(barn.MODEL.encode(), b"digitz"))
    act = signed(values("act"))
    for how, data in {
        "signed by the receipt key": signed(values("act"), key=RECEIPT), "in the domain of command":
        signed(values("act"), domain=Role.COMMAND.domain), "signed for another fleet": signed(values("act"), bound=barn.OTHER_FLEET),
    }.items():  # fmt: skip
        yield Case(f"act {how}", "P6", "BadSignature", "registry", data, DEVICE, act, DEVICE)


def _flipped(data: bytes, at: int) -> bytes:
    out = bytearray(data)
    out[at] ^= 1
    return bytes(out)


def _senders() -> Iterator[Case]:
    for kind, leaf in (("transfer", "part"), ("wanted", "part"), ("response", "cmd")):
        for key, whose in ((barn.DEVICE, "of the device"), (RECEIPT, "of the receipt key")):
            data, good = signed(values(kind), Role.DEVICE, key), signed(values(kind), Role.RECEIPT)
            held = {**DEVICE, **on(f"dn/{leaf}")}
            yield Case(f"{kind} in the role device by the key {whose}", "P7", "WrongRole", "device", data, held, good, held)
    data = signed(unknown(), Role.DEVICE)
    yield Case("an unknown kind in the role device", "P7", "WrongRole", "device", data, DEVICE, signed(unknown(), Role.RECEIPT), DEVICE)
    for kind in ("response", "transfer", "wanted", "report", "tomorrow"):
        content = unknown() if kind == "tomorrow" else values(kind)
        good = signed(content, Role.DEVICE)
        yield of_record("P8", f"{kind} by a key that is not registered", signed(content, Role.DEVICE, barn.STRANGER), kind,
                        error="UnknownDevice", good=good)  # fmt: skip
        revoked = {**CENTRE, "keys": [barn.STRANGER.public.hex()]}  # the device's own key counts no more
        yield Case(f"{kind} by a key that was revoked", "P8", "UnknownDevice", "centre", good, revoked, good, CENTRE)
    yield of_record("P8", "response by the receipt key", signed(values("response"), Role.DEVICE, RECEIPT), "response",
                    error="UnknownDevice")  # fmt: skip
    act, unknown_act = signed(values("act")), signed(unknown(), Role.ACT)
    good = signed(values("command"))
    yield Case("an act to a device", "P32", "WrongRole", "device", act, DEVICE, good, DEVICE)
    yield Case("an act for all models to a device", "P32", "WrongRole", "device", signed(values("act", model="all")), DEVICE, good, DEVICE)
    yield Case(
        "an unknown kind in the role act", "P32", "WrongRole", "device", unknown_act, DEVICE, signed(unknown(), Role.COMMAND), DEVICE
    )
    for kind, leaf in (("transfer", "part"), ("wanted", "part"), ("response", "rsp")):
        held = {**CENTRE, **on(f"up/{leaf}")}
        for key, whose in ((RECEIPT, "by its own key"), (barn.DEVICE, "by the key of the device")):
            data = signed(values(kind), Role.RECEIPT, key)
            yield Case(
                f"{kind} in the role receipt {whose}", "P33", "WrongRole", "centre", data, held, signed(values(kind), Role.DEVICE), held
            )
    for role in (role for role in Role if role is not Role.DEVICE):
        held = {**CENTRE, **on("up/rsp")}
        data = signed(unknown(), role)
        name = f"an unknown kind in the role {role.name.lower()}"
        yield Case(name, "P33", "WrongRole", "centre", data, held, signed(unknown(), Role.DEVICE), held)
    for kind in ("hello", "welcome", "receipt", "command", "desired", "enrol", "act", "response", "presence", "report"):
        data = signed(values(kind), fleet=barn.OTHER_FLEET)
        yield of_record("P34", f"{kind} of a fleet of the same name", data, kind, error="WrongFleet")
    other = signed(values("trust"), fleet=barn.OTHER_FLEET)
    yield of_record("P34", "trust of a fleet of the same name", other, "trust", error="WrongFleet")
    strange = signed(unknown(), Role.RECEIPT, fleet=barn.OTHER_FLEET)
    yield Case("an unknown kind of a fleet of the same name", "P34", "WrongFleet", "device", strange, DEVICE,
               signed(unknown(), Role.RECEIPT), DEVICE)  # fmt: skip
    welcome = signed(values("welcome"), fleet=barn.OTHER_FLEET)
    yield Case("welcome of another fleet to a device without a trust record", "P34", "WrongFleet", "device", welcome, FRESH,
               signed(values("welcome")), DEVICE)  # fmt: skip
    one_bit = _flipped(FLEET_ID, 15)
    yield of_record("P34", "hello of a fleet id that differs in a bit", signed(values("hello"), fleet=one_bit), "hello", error="WrongFleet")


def _envelope() -> Iterator[Case]:
    fits = limits.DEFAULT.record - len(signed(values("hello", more={"pad": bytes(40_000)}))) + 40_000
    for kind, role in (("hello", Role.DEVICE), ("welcome", Role.RECEIPT)):
        room = fits + len(signed(values("hello"))) - len(signed(values(kind)))
        data, good = (signed(values(kind, more={"pad": bytes(room + n)}), role) for n in (1, 0))
        assert len(good) == limits.DEFAULT.record
        yield of_record("P9", f"{kind} of a byte too many", data, kind, error="TooLarge", good=good)
    hello = signed(values("hello"))
    yield of_record("P10", "no bytes", b"", "hello")
    for size in (1, 4, 24, 87):
        yield of_record("P10", f"{size} bytes", hello[:size], "hello")
    for how, magic in {
        "the magic of an update": b"\x89MWU", "the magic of a part": b"\x89MWP", "a magic without its high bit": b"\x09MWR",
        "a magic of zeros": bytes(4),
    }.items():  # fmt: skip
        yield of_record("P11", how, signed(values("hello"), magic=magic), "hello")
    for version in (0, 2, 255):
        yield of_record("P11", f"version {version}", signed(values("hello"), version=version), "hello")
    size = len(hello) - 88
    for how, length in (
        ("a byte less than it has", size - 1),
        ("a byte more than it has", size + 1),
        ("nothing", 0),
        ("all there is", 65535),
    ):
        yield of_record("P12", f"a length that says {how}", signed(values("hello"), length=length), "hello")
    yield of_record("P12", "a byte behind the signature", hello + b"\0", "hello")
    yield of_record("P12", "a signature that lacks a byte", hello[:-1], "hello")
    for number in (0, 7, 255):
        yield of_record("P13", f"role {number}", signed(values("hello"), number=number), "hello")


def _content() -> Iterator[Case]:
    plain = values("hello")
    no_kind = {key: value for key, value in plain.items() if key != "kind"}
    for how, content in {
        "an array": [plain], "a text": "hello", "an integer": 0, "null": None, "a byte string": cbor.encode(plain),
        "a map without kind": no_kind,
        "a kind that is an integer": {**no_kind, "kind": 1}, "a kind that is bytes": {**no_kind, "kind": b"hello"},
        "a kind that is null": {**no_kind, "kind": None}, "a kind that is an array": {**no_kind, "kind": ["hello"]},
        "an empty map": {},
    }.items():  # fmt: skip
        yield of_record("P14", f"content that is {how}", signed(cbor.encode(content), Role.DEVICE), "hello")  # type: ignore[arg-type]
    for kind in records.KINDS:
        for field in values(kind) if kind in ("hello", "trust") else list(values(kind))[-1:]:
            if field != "kind":
                lacking = {key: value for key, value in values(kind).items() if key != field}
                yield of_record("P15", f"{kind} without {field}", signed(lacking), kind)
        yield of_record("P16", f"{kind} with a field of its own", signed(values(kind, zone="hall")), kind)
    yield of_record("P16", "command with an id", signed(values("command", id=barn.DIGEST)), "command")
    yield of_record("P16", "wait with the number of a command", signed(values("wait", number=7)), "wait")
    yield of_record("P16", "hello with More", signed(values("hello", More={"site": "hall"})), "hello")
    yield of_record("P16", "hello with a critical key beside more", signed(values("hello", **{"!site": "hall"})), "hello")


def _types() -> Iterator[Case]:
    wrong: dict[str, dict[str, dict[str, cbor.Value]]] = {
        "hello": {
            "epoch": {"a float": 0.0, "true": True, "a text": "0", "null": None}, "at": {"a float": float(AT)}, "fleet": {"bytes": b"barn"},
            "agent": {"bytes": b"0.1.0", "null": None}, "key": {"a text": "0" * 32, "null": None},
            "resume": {"0": 0, "null": None, "a text": "no"},
            "trainers": {"an integer": 1, "a map": {}, "bytes": b"\1", "null": None},
        },
        "command": {"body": {"an array": [], "null": None, "bytes": b"\xa0"}, "number": {"true": True}},
        "report": {"before": {"an integer": 1, "a text": "0.875", "false": False}, "after": {"an integer": 0}},
        "receipt": {"level": {"an integer": 1, "null": None}},
        "transfer": {"what": {"an integer": 0}},
        "trust": {"receipt": {"an array": [RECEIPT.public]}, "until": {"null": None}},
        "act": {"verb": {"bytes": b"admit"}},
    }  # fmt: skip
    for kind, fields in wrong.items():
        for field, changes in fields.items():
            for how, value in changes.items():
                yield of_record("P17", f"{kind} whose {field} is {how}", signed(values(kind, **{field: value})), kind)


def _numbers() -> Iterator[Case]:
    fields = {
        "hello": ("at", "epoch", "version", "trust"), "welcome": ("time", "wait", "resume_version"), "wait": ("seconds",),
        "command": ("number", "expiry", "epoch"), "response": ("number",), "receipt": ("place",), "presence": ("boot",),
        "transfer": ("size",),
        "desired": ("bytes",), "report": ("phase",), "trust": ("since", "overlap"), "act": ("number",),
    }  # fmt: skip
    for kind, names in fields.items():
        for name in names:
            for how, number in (("-1", -1), ("2^63", 1 << 63)):
                yield of_record("P18", f"{kind} whose {name} is {how}", signed(values(kind, **{name: number})), kind)
    yield of_record("P18", "hello whose at is 2^64 - 1", signed(values("hello", at=(1 << 64) - 1)), "hello")
    yield of_record("P18", "hello whose at is -2^64", signed(values("hello", at=-(1 << 64))), "hello")
    for how, number in (("-1", -1), ("2^63", 1 << 63)):
        yield of_record("P18", f"an unknown kind whose at is {how}", signed(unknown(at=number), Role.DEVICE), "unknown")
    for kind in ("command", "desired", "report", "trust", "act"):
        yield of_record("P19", f"{kind} 0", signed(values(kind, number=0)), kind)


def _texts() -> Iterator[Case]:
    for kind, field in (("hello", "runtime"), ("response", "text"), ("receipt", "reason"), ("report", "state"), ("enrol", "serial")):
        good = signed(values(kind, **{field: "é" * 1000}))
        yield of_record("P20", f"{kind} whose {field} has 1,001 characters", signed(values(kind, **{field: "é" * 1001})), kind, good=good)
    for how, character in {
        "a line end": "\n", "a zero": "\0", "a delete": "\x7f", "an escape": "\x1b", "a next line": "\x85", "a no-break space": "\xa0",
        "a line separator": "\u2028", "a zero width space": "\u200b", "a change of direction": "\u202e", "a private character": "\ue000",
        "a character that is none": "\uffff", "a byte order mark": "\ufeff",
    }.items():  # fmt: skip
        yield of_record("P21", f"a text with {how}", signed(values("hello", agent=f"0.1{character}0")), "hello")
    for kind, field in (("welcome", "status"), ("wait", "reason"), ("command", "verb"), ("report", "slot"), ("act", "verb")):
        yield of_record("P21", f"{kind} whose {field} has a line end", signed(values(kind, **{field: "ok\n"})), kind)


def _bytes() -> Iterator[Case]:
    wrong: dict[str, dict[str, tuple[int, ...]]] = {
        "hello": {"key": (0, 31, 33), "state": (0, 15, 17), "base": (31,), "commit": (0, 33), "answer": (1, 31, 33), "claim": (257,)},
        "welcome": {"state": (15,), "head": (0, 31), "challenge": (16, 33), "log": (32, 39, 41), "resume": (31,)},
        "command": {"state": (32,), "parent": (16, 33)},
        "receipt": {"commit": (0,), "good": (1,)},
        "transfer": {"id": (31,), "tree": (0, 33), "parent": (16,)},
        "wanted": {"id": (16,)},
        "desired": {"variant": (0, 33)},
        "report": {"variant": (31,)},
        "enrol": {"key": (33,), "claim": (0, 257)},
        "trust": {"root": (0, 64), "receipt": (0, 33, 160), "command": (0, 31), "director": (48,)},
        "act": {"key": (0, 33)},
    }  # fmt: skip
    for kind, fields in wrong.items():
        for field, sizes in fields.items():
            for size in sizes:
                yield of_record("P22", f"{kind} whose {field} has {size} bytes", signed(values(kind, **{field: bytes(size)})), kind)


def _lists() -> Iterator[Case]:
    for word in ("", "Stored", "lost", "stored "):
        yield of_record("P23", f"a level that is {word!r}", signed(values("receipt", level=word)), "receipt")
    for word in ("", "Base", "model", "updates"):
        yield of_record("P24", f"a what that is {word!r}", signed(values("transfer", what=word)), "transfer")
    for word in ("", "Admit", "admitted", "revoke "):
        yield of_record("P71", f"an act that says {word!r}", signed(values("act", verb=word)), "act")
    for kind in ("hello", "welcome"):
        sixteen: list[cbor.Value] = list(range(1, 17))
        good = signed(values(kind, trainers=sixteen))
        yield of_record("P25", f"{kind} with 17 trainers", signed(values(kind, trainers=[*sixteen, 17])), kind, good=good)
        for how, entry in (("0", 0), ("-1", -1), ("2^31", 1 << 31), ("true", True), ("1.0", 1.0), ("a text", "1"), ("null", None)):
            yield of_record("P26", f"{kind} with a trainer that is {how}", signed(values(kind, trainers=[entry])), kind)
        for how, entries in (("the same", [1, 1]), ("falling", [2, 1]), ("falling at the end", [1, 5, 4])):
            yield of_record("P27", f"{kind} with trainers that are {how}", signed(values(kind, trainers=entries)), kind)  # type: ignore[arg-type]


def _more() -> Iterator[Case]:
    good = signed(values("hello", more={"site": "hall", "at!": {"!in": 1}}))
    for how, more in (("empty", {}), ("an array", []), ("null", None), ("a text", "site"), ("true", True)):
        yield of_record("P28", f"more that is {how}", signed(values("hello", more=more)), "hello", good=good)
    for kind in records.KINDS:
        data, fine = (signed(values(kind, more={"site": "hall", key: 1})) for key in ("!site", "site!"))
        yield of_record("P29", f"{kind} with a critical key", data, kind, error="NotUnderstood", good=fine)
    data = signed(values("hello", more={"!": None}))
    yield of_record("P29", "hello with a critical key of one character", data, "hello", error="NotUnderstood", good=good)
    data, fine = (signed(unknown(more={key: 1}), Role.DEVICE) for key in ("!site", "site"))
    yield of_record("P29", "an unknown kind with a critical key", data, "unknown", error="NotUnderstood", good=fine)
    for how, have in (("a byte too few", b""), ("a byte too many", b"\5\0"), ("a part that there is not", b"\x0d"), ("all bits", b"\xff")):
        for role, read_as, plain in ((Role.DEVICE, "centre", CENTRE), (Role.RECEIPT, "device", DEVICE)):
            held = {**plain, "transfer": "held/transfer.bin"}
            data, fine = (signed(values("wanted", have=bits), role) for bits in (have, b"\7"))
            yield Case(f"wanted of {role.name.lower()} with {how}", "P30", "Malformed", read_as, data, held, fine, held)


def _roles() -> Iterator[Case]:
    for kind, cls in records.KINDS.items():
        for role in Role:
            if role not in cls.ROLES:
                read_as, held = (
                    ("centre", CENTRE) if role is Role.DEVICE else ("registry", DEVICE) if role is Role.ACT else ("device", DEVICE)
                )
                good = signed(values("act")) if role is Role.ACT else signed(unknown(), role)
                data = signed(values(kind), role)
                yield Case(f"{kind} in the role {role.name.lower()}", "P31", "WrongRole", read_as, data, held, good, held)


def _unknown() -> Iterator[Case]:
    for field in ("fleet", "device", "model", "at"):
        lacking = {key: value for key, value in unknown().items() if key != field}
        yield of_record("P35", f"an unknown kind without {field}", signed(lacking, Role.DEVICE), "unknown")
        for how, value in (("null", None), ("bytes", b"barn"), ("a float", 1.5), ("true", True)):
            yield of_record("P35", f"an unknown kind whose {field} is {how}", signed(unknown(**{field: value}), Role.DEVICE), "unknown")
    yield of_record("P35", "an unknown kind whose at is a text", signed(unknown(at="now"), Role.DEVICE), "unknown")
    yield of_record("P35", "an unknown kind whose model is an integer", signed(unknown(model=7), Role.DEVICE), "unknown")
    for how, data in (
        ("whose at is a text", signed(unknown(at="now"), Role.RECEIPT)),
        ("whose device is bytes", signed(unknown(device=b"pi-7"), Role.COMMAND)),
    ):
        yield Case(
            f"an unknown kind that goes down {how}", "P35", "Malformed", "device", data, DEVICE, signed(unknown(), Role.RECEIPT), DEVICE
        )
    good = signed(unknown(kind="a" * 64), Role.DEVICE)
    yield of_record("P36", "a kind of 65 characters", signed(unknown(kind="a" * 65), Role.DEVICE), "unknown", good=good)
    for how, character in (("a line end", "\n"), ("a zero", "\0"), ("a line separator", "\u2028"), ("a private character", "\ue000")):
        yield of_record("P36", f"a kind with {how}", signed(unknown(kind=f"hello{character}"), Role.DEVICE), "unknown")
