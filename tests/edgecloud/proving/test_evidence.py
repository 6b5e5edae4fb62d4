"""The evidence on a device holds all that the log says of it, nothing of others, and no line can be altered, taken out or put in."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from edgecloud.proving import telling
from edgecloud.proving.verifier.encoding import NotProven, to_line
from edgecloud.proving.verifier.evidence import check
from modelwire.errors import UnknownVersion
from tests.edgecloud.centre import Centre, damage, make_registry
from tests.edgecloud.device import Base, ScriptedDevice

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


def test_figures_can_t_be_left_out_or_put_under_another_header(fleet: Fleet) -> None:
    lines = text_of(fleet, "replaced").splitlines()
    (one, *_, other) = [json.loads(line) for line in lines if line.startswith('{"extension"')]
    less = {**one, "extension": "", "says": {**one["says"], "figures": {}}}
    swapped = {**one, "header": other["header"]}
    lost = {"lost": "00" * 32, "says": "replaced/digits@1: the centre no longer holds its header"}
    for made in (less, swapped, lost):
        text = "".join((to_line(made) if json.loads(line) == one else line) + "\n" for line in lines)
        with pytest.raises(NotProven):
            check(text.encode(), fleet.key)


def test_what_the_centre_has_lost_is_said(tmp_path: Path) -> None:
    centre = Centre(make_registry(tmp_path / "fleet.db", base := Base.of()))
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train(), device.train())
    centre.rebuild()
    damage(centre.store, "UPDATE blob SET bytes = zeroblob(length(bytes)) WHERE sha256 = ?", hashlib.sha256(device.made[2].data).digest())
    fleet = Fleet(centre.store, centre)
    facts = check(text_of(fleet, "pi-7").encode(), fleet.key)
    assert facts["versions"] == 2 and "of 1 the header is here" in facts["says"][0] and "of 1 it is lost" in facts["says"][0]


def test_an_unknown_device_has_none(fleet: Fleet) -> None:
    with pytest.raises(UnknownVersion):
        text_of(fleet, "nobody")
