"""Topics and what belongs on them: every record is taken on its own leaf and on no other; bodies are those of their verbs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelwire.errors import Malformed, NotUnderstood
from modelwire.wire import topics
from modelwire.wire.commands import Adopt, Leaves, Snapshot, task_of
from modelwire.wire.records import Act, Command, Record, Trust, Unknown
from modelwire.wire.routes import CARRIES, RESERVED, check_heard, check_place, check_update
from tests.modelwire.wire.examples import EXAMPLES, WHO, example

LEAVES = [("up", leaf) for leaf in topics.UP] + [("dn", leaf) for leaf in topics.DOWN]


def on(record: Record, way: str, leaf: str) -> topics.Topic:
    return topics.Topic(record.fleet, record.device, record.model, way, leaf)


def test_the_table_has_every_leaf_of_a_topic() -> None:
    assert set(CARRIES) == set(LEAVES)


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda r: r.KIND)
def test_a_record_belongs_on_its_own_leaf_alone(record: Record) -> None:
    good = [place for place, kinds in CARRIES.items() if type(record) in kinds]
    assert bool(good) is not isinstance(record, Act)
    for way, leaf in LEAVES:
        if (way, leaf) in good:
            check_place(on(record, way, leaf), record)
            for names in ({"fleet": "other"}, {"device": "pi-8"}, {"model": "other"}):
                wrong = replace(on(record, way, leaf), **names)
                if not (isinstance(record, Trust) and record.device == "all" and "device" in names):
                    with pytest.raises(Malformed):
                        check_place(wrong, record)
        else:
            with pytest.raises(Malformed):
                check_place(on(record, way, leaf), record)


def test_trust_for_all_is_good_on_a_device_s_own_topic_and_an_unknown_kind_anywhere_of_its_own() -> None:
    trust = example(Trust)
    assert trust.device == "all"
    for name in ("e1/demo/pi-7/all/dn/trust", "e1/demo/all/all/dn/trust"):
        check_place(topics.parse(name), trust)
    unknown = Unknown(*WHO, "order-66", 0)
    check_place(topics.parse("e1/demo/pi-7/digits/dn/cmd"), unknown)
    with pytest.raises(Malformed):
        check_place(topics.parse("e1/demo/pi-8/digits/dn/cmd"), unknown)


def test_the_centre_hears_what_goes_up_in_its_own_fleet_but_for_what_is_reserved() -> None:
    for leaf in topics.UP:
        topic = topics.Topic("demo", "pi-7", "digits", "up", leaf)
        if leaf != RESERVED:
            check_heard(topic, "demo")
        for fleet in ("demo",) * (leaf == RESERVED) + ("other",):
            with pytest.raises(Malformed):
                check_heard(topic, fleet)
    with pytest.raises(Malformed, match="does not go up"):
        check_heard(topics.Topic("demo", "pi-7", "digits", "dn", "part"), "demo")


def test_an_update_belongs_on_the_topic_of_its_own_device_and_model() -> None:
    topic = topics.Topic("demo", "pi-7", "digits", "up", "update")
    check_update(topic, "pi-7", "digits")
    for device, model in (("pi-8", "digits"), ("pi-7", "letters"), ("digits", "pi-7")):
        with pytest.raises(Malformed, match=f"{device}/{model}"):
            check_update(topic, device, model)


@pytest.mark.parametrize(
    "name",
    ["e1/demo/all/digits/up/hello", "e1/demo/all/all/up/hello", "e1/demo/pi-7/all/up/hello", "e1/demo/pi-7/digits/dn/trust",
     "e1/demo/pi-7/digits/up/enrol", "e1/demo/all/all/up/enrol", "e1/demo/pi-7/digits/up/adopt", "e2/demo/pi-7/digits/up/hello",
     "e1/demo/pi-7/digits/up", "e1/demo/pi-7/digits/up/hello/x", "e1/demo/+/digits/up/hello", "e1/Demo/pi-7/digits/up/hello",
     "e1/demo/pi-7/digits/up/receipt", "e1/demo/pi-7/digits/side/hello", "e1/all/pi-7/digits/up/hello"],
)  # fmt: skip
def test_what_is_no_topic_is_refused(name: str) -> None:
    with pytest.raises(Malformed):
        topics.parse(name)


def test_a_body_is_the_one_of_its_verb() -> None:
    for task in (Snapshot(), Adopt(b"x"), Leaves(3, 512), Leaves((1 << 63) - 1, (1 << 63) - 1)):
        assert task_of(replace(example(Command), verb=task.VERB, body=task.body())) == task
    for verb, body in (
        ("snapshot", {"x": 1}), ("adopt", {}), ("adopt", {"update": "x"}), ("adopt", {"update": b"", "x": 1}), ("leaves", {"tensor": 1}),
        ("leaves", {"tensor": -1, "first": 0}), ("leaves", {"tensor": True, "first": 0}), ("leaves", {"tensor": 0, "first": 0.0}),
        ("leaves", {"tensor": 1 << 63, "first": 0}), ("leaves", {"tensor": 0, "first": 1 << 63}),
    ):  # fmt: skip
        with pytest.raises(Malformed):
            task_of(replace(example(Command), verb=verb, body=body))
    with pytest.raises(NotUnderstood, match="reboot"):
        task_of(replace(example(Command), verb="reboot"))
