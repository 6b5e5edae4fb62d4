"""The evidence on a device holds all that the log says of it, nothing of others, and no line can be altered, taken out or put in."""

from __future__ import annotations

import json
import random

import pytest

from edgecloud.proving import telling
from edgecloud.proving.verifier.encoding import NotProven, to_line
from edgecloud.proving.verifier.evidence import check
from modelwire.errors import UnknownVersion

from .fleets import Fleet


def text_of(fleet: Fleet, device: str) -> str:
    return "".join(line + "\n" for line in telling.evidence_lines(fleet.store, device))


def test_it_says_who_let_the_device_in_what_it_published_and_what_came_of_it(fleet: Fleet) -> None:
    text = text_of(fleet, "replaced")
    facts = check(text.encode(), fleet.key, "replaced")
    assert facts["versions"] == 4 and "Keys let in: 2; revoked: 1." in facts["says"]
    lines = [json.loads(line) for line in text.splitlines()]
    kinds = [line["says"]["kind"] for line in lines if "entry" in line]
    assert kinds.count("act") == 3 and kinds.count("head") == kinds.count("verdict") == 4 and kinds.count("epoch") == 1
    figures = [line["says"]["figures"] for line in lines if "header" in line]
    assert [(one["loss_before"], one["loss_after"]) for one in figures] == [(1.0, 0.5)] * 4


def test_nothing_of_other_devices_is_in_it(fleet: Fleet) -> None:
    text = text_of(fleet, "exact")
    for other in fleet.devices.values():
        if other.name != "exact":
            assert f'"{other.name}"' not in text and other.name.encode().hex() not in text
            assert other.key.public.hex() not in text and other.head.hex() not in text


def test_no_line_can_be_altered_taken_out_or_put_in(fleet: Fleet) -> None:
    lines = text_of(fleet, "replaced").splitlines()
    foreign = text_of(fleet, "exact").splitlines()
    rng = random.Random(5)
    made: list[list[str]] = []
    for n, line in enumerate(lines):
        made += [lines[:n] + lines[n + 1 :], [*lines[:n], line, *lines[n:]], [*lines[:n], line + " ", *lines[n + 1 :]]]
        made += [[*lines[:n], foreign[n % len(foreign)], *lines[n:]]]
        for _ in range(12):
            at = rng.randrange(len(line))
            other = chr(ord(line[at]) ^ 1 << rng.randrange(7))
            made.append([*lines[:n], line[:at] + other + line[at + 1 :], *lines[n + 1 :]])
        values = json.loads(line)
        for name, value in values.items():
            for wrong in (None, True, 1.0, "", [value]):
                if to_line({**values, name: wrong}) != line:
                    made.append([*lines[:n], to_line({**values, name: wrong}), *lines[n + 1 :]])
    taken = []
    for one in made:
        try:
            check("".join(line + "\n" for line in one).encode(), fleet.key)
            taken.append(one)
        except NotProven:
            continue
    assert taken == [] and len(made) > 300
    for cut in ("", lines[0], "\n".join(lines)):
        with pytest.raises(NotProven):
            check(cut.encode(), fleet.key)


def test_an_unknown_device_has_none(fleet: Fleet) -> None:
    with pytest.raises(UnknownVersion):
        text_of(fleet, "nobody")
