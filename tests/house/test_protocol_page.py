"""The page of the protocol says what the code does: byte tables, kinds and fields, roles, keys, topics, limits, and its examples."""

from __future__ import annotations

import re
import struct
from dataclasses import fields

import pytest

from modelwire import errors, limits
from modelwire.update import container, header
from modelwire.wire import commands, parts, records, routes, signing, topics
from modelwire.wire import fields as record_fields
from modelwire.wire.keys import KeyKind, read_fleet, read_key
from modelwire.wire.signing import Role
from modelwire.wire.trust import Trusted
from tests.house.pages import DOCS, rows, section
from tests.keys import COMMAND, DIRECTOR, FLEET, FLEET_ID, RECEIPT, ROOT
from tests.vectors import page_examples_protocol as examples
from tests.vectors.barn import DEVICE, HEAD

PAGE = (DOCS / "protocol.md").read_text()
FORMATS = {"Envelope": records._HEAD, "Parts": parts._HEAD}


@pytest.mark.parametrize("title", FORMATS)
def test_the_byte_tables_are_the_structures_that_are_packed(title: str) -> None:
    form, at = FORMATS[title], 0
    sizes = [struct.calcsize(f"<{code}") for code in re.findall(r"\d*[a-zA-Z]", form.format.lstrip("<"))]
    table = [row for row in rows(section(PAGE, title)) if row[0].isdigit() and int(row[0]) < form.size]
    assert [int(row[1]) for row in table] == sizes
    for row in table:
        assert int(row[0]) == at, row
        at += int(row[1])
    assert at == form.size
    assert next(row[0] for row in rows(section(PAGE, title)) if row not in table) == str(form.size)


def test_the_magic_numbers_are_the_documented_ones() -> None:
    for magic in (records.MAGIC, parts.MAGIC):
        assert rows(section(PAGE, "Envelope" if magic is records.MAGIC else "Parts"))[0][3].startswith(f"`{magic.hex(' ').upper()}`")
    firsts = [row[0].strip("`") for row in rows(section(PAGE, "The ways bytes go"))]
    assert firsts == [magic[:4].hex(" ").upper() for magic in (header.MAGIC, records.MAGIC, parts.MAGIC)]


def test_the_roles_are_the_documented_ones() -> None:
    table = rows(section(PAGE, "Fleet and roles"))
    assert [(row[0], row[1], f"{row[3].strip('`')}\0".encode()) for row in table] == [
        (role.name.lower(), str(role.value), role.domain) for role in Role
    ]
    domains = [row[0].strip("`") for row in rows(section(PAGE, "Signatures"))]
    assert domains[:2] == [domain[:-1].decode() for domain in (signing.UPDATE, signing.LINK)]
    says = {row[0]: re.findall(r"`(\w+)`", row[1]) for row in rows(PAGE[PAGE.index("Which role says what, once more") :])}
    assert says == {role.name.lower(): [kind for kind, cls in records.KINDS.items() if role in cls.ROLES] for role in Role}


def test_the_kinds_of_keys_are_the_documented_ones() -> None:
    documented = {row[0].strip("`"): int(row[1]) for row in rows(section(PAGE, "Keys"))}
    assert documented == {kind.prefix: 2 * kind.value[2] for kind in KeyKind}


def documented_fields() -> dict[str, dict[str, str]]:
    """Return the type of each field of each kind as the page says it."""
    out: dict[str, dict[str, str]] = {}
    text = section(PAGE, "Every record")
    for kind, rest in re.findall(r"^\*\*`(\w+)`\*\* \([^)]*\)(.*?)(?=^\*\*|\Z)", text, re.M | re.S):
        found = out.setdefault(kind, {})
        for names, told, *_ in rows(rest):
            found |= dict.fromkeys(re.findall(r"`(\w+)`", names), told)
    for name in ("number", "variant", "phase"):
        assert out["report"][name] == "as in `desired`"
        out["report"][name] = out["desired"][name]
    return out


def test_the_kinds_have_the_documented_fields() -> None:
    words = {
        "str": "text", "int": "integer", "bytes": "bytes", "bool": "truth", "Level": "text", "tuple[int, ...]": "array",
        "Mapping[str, cbor.Value]": "map", "float | None": "float or null",
    }  # fmt: skip
    common = {f.name for f in fields(records.Record)}
    documented = documented_fields()
    assert list(documented) == list(records.KINDS)
    for kind, cls in records.KINDS.items():
        own = {f.name: words[str(f.type)] for f in fields(cls) if f.name not in common}
        told = {name: re.sub(r"(,? \d.*|, 1 or more)$", "", said) for name, said in documented[kind].items()}
        assert told == own, kind
        at_least_one = {name for name, said in documented[kind].items() if said == "integer, 1 or more"} - {"size"}  # P51: TooLarge first
        assert at_least_one == ({"number"} if cls in records._AT_LEAST_ONE else set()), kind


def test_the_byte_strings_have_the_documented_lengths() -> None:
    for kind, told in documented_fields().items():
        for name, said in told.items():
            if not said.startswith("bytes"):
                continue
            numbers = [int(n) for n in re.findall(r"\d+", said)]
            lengths = tuple(range(numbers[0], numbers[1] + 1)) if " to " in said else tuple(numbers)
            known = record_fields.LENGTHS.get(name, ())
            assert lengths == (known[1:] if (kind, name) == ("enrol", "claim") else known), (kind, name)


def test_the_roles_of_a_kind_stand_beside_it() -> None:
    for kind, said in re.findall(r"^\*\*`(\w+)`\*\* \(([^)]*)\)", section(PAGE, "Every record"), re.M):
        assert tuple(role for role in Role if re.search(rf"\b{role.name.lower()}\b", said)) == records.KINDS[kind].ROLES, kind


def test_the_topics_carry_what_is_documented() -> None:
    documented = {row[0].strip("`"): row[1] for row in rows(section(PAGE, "Topics"))}
    assert list(documented) == [f"up/{leaf}" for leaf in topics.UP] + [f"dn/{leaf}" for leaf in topics.DOWN]
    for place, said in documented.items():
        way, _, leaf = place.partition("/")
        named = [name for name in re.findall(r"`(\w+)`", said) if name in records.KINDS]
        assert named == [cls.KIND for cls in routes.CARRIES[way, leaf]], place
        assert ("a part" in said) is (leaf == "part") and ("reserved" in said) is (leaf == routes.RESERVED)
        assert ("the model is `all`" in said) is (leaf in topics.OF_NO_MODEL)
    filters = (topics.all_up("0"), topics.all_down("0", "9"), topics.trust_of_all("0"))
    assert all(f"`{name.replace('0', '{fleet}').replace('9', '{device}')}`" in section(PAGE, "Topics") for name in filters)


def test_the_limits_are_the_documented_ones() -> None:
    documented = {row[0].strip("`"): int(row[1].replace(",", "")) for row in rows(section(PAGE, "Limits"))}
    assert documented == {name: getattr(limits.DEFAULT, name) for name in documented}
    assert {"record", "part", "parts", "container", "model_file"} <= set(documented)
    text = " ".join(section(PAGE, "Limits").split())
    for words, number in {
        "names {} characters": limits.NAME_MAX, "texts {}": record_fields.TEXT_MAX, "`claim` {} bytes": record_fields.LENGTHS["claim"][-1],
        "`trainers` {}": record_fields.TRAINERS_MAX, "response {}": commands.LEAVES_MAX,
        "keys of a role in `trust` {}": record_fields.LENGTHS["receipt"][-1] // 32,
    }.items():  # fmt: skip
        assert words.format(f"{number:,}") in text, words
    assert f"more than {parts._PATH_MAX} digests" in PAGE and f"{limits.DEFAULT.record - 88:,} of CBOR" in text


def test_the_errors_of_the_rules_are_there_and_in_the_table() -> None:
    named = set(re.findall(r"MUST refuse[^*]*?\(`(\w+)`\)", PAGE))
    assert named <= {name for row in rows(section(PAGE, "Errors")) for name in re.findall(r"`(\w+)`", row[0])}
    assert named <= {cls.__name__ for cls in errors.all_errors()}


def test_the_verbs_are_the_documented_ones() -> None:
    verbs = [row[0].strip("`") for row in rows(PAGE[PAGE.index("| verb | body |") :])]
    assert verbs == [task.VERB for task in (commands.Snapshot, commands.Adopt, commands.Leaves, commands.Leaf, commands.Take)]


def block(name: str) -> str:
    """Return an example of the page."""
    found = re.search(rf"^<!-- example: {name} -->\n(.*?)^<!-- end -->$", PAGE, re.M | re.S)
    assert found, name
    return found.group(1)


def blobs(name: str) -> list[bytes]:
    """Return the byte strings of an example: each one the lines of hexadecimal digits that follow each other."""
    return [bytes.fromhex("".join(lines.split())) for lines in re.findall(r"(?:^ {4}[0-9a-f]+\n)+", block(name), re.M)]


def test_the_examples_are_what_their_maker_writes() -> None:
    assert examples.filled(PAGE) == PAGE
    assert re.findall(r"<!-- example: ([\w-]+) -->", PAGE) == list(examples.EXAMPLES)


def test_the_example_s_keys_are_read_as_they_stand() -> None:
    lines = block("key-strings").split()
    assert read_fleet(lines[-1], "the page") == FLEET
    privates = {KeyKind.DEVICE_PRIVATE: DEVICE, KeyKind.ROOT_PRIVATE: ROOT, KeyKind.RECEIPT_PRIVATE: RECEIPT,
                KeyKind.COMMAND_PRIVATE: COMMAND, KeyKind.DIRECTOR_PRIVATE: DIRECTOR}  # fmt: skip
    for line, (kind, key) in zip(lines, privates.items(), strict=False):
        assert signing.PrivateKey(read_key(line, kind, "the page")).public == key.public


@pytest.mark.parametrize(
    "name", ["record-hello", "record-more", "record-unknown-kind", "trust", "hello-welcome", "log-link", "command-adopt", "parts"]
)
def test_every_record_of_an_example_is_one(name: str) -> None:
    trusted, seen = Trusted(FLEET).take(records.parse(blobs("trust")[0])), 0
    for data in blobs(name):
        if not data.startswith(records.MAGIC):
            continue
        seen += 1
        try:
            signed = records.parse(data)
        except errors.NotUnderstood:
            assert name == "record-more"
            continue
        if signed.role is Role.DEVICE:
            signed.verify(DEVICE.public, FLEET_ID, "the device")
        elif signed.role is Role.ACT:
            signed.verify(COMMAND.public, FLEET_ID, "the operator", Role.ACT)
        else:
            trusted.verify(signed, 0)
    assert seen == {"record-hello": 1, "hello-welcome": 5}.get(name, 2)


def test_the_adopt_of_the_example_leads_where_it_says() -> None:
    data, update, _ = blobs("command-adopt")
    task = commands.task_of(records.expect(records.parse(data), records.Command))
    assert isinstance(task, commands.Adopt) and task.update == update
    after = HEAD.copy()
    after.apply_container(container.parse_unsigned(update))
    assert after.root == container.parse_unsigned(update).header.root != HEAD.root


def test_the_part_of_the_example_is_proven_by_its_transfer() -> None:
    transfer = records.expect(records.parse(blobs("parts")[0]), records.Transfer)
    wanted = records.expect(records.parse(blobs("parts")[1]), records.Wanted)
    (missing,) = parts.missing(wanted.have, parts.count(transfer))
    part = parts.parse(blobs("parts")[2] + bytes(n * n % 251 for n in range(1024, 2048)))
    parts.check(transfer, part)
    assert part.index == missing == 1
