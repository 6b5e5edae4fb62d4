"""The pages of recipe and trainer say what is read: numbers of the enums, ranges, limits, constants, and the worked example."""

from __future__ import annotations

import json
import re
import struct
from enum import IntEnum

import pytest

from modelwire import limits, output_head_settings
from modelwire.lattice.rebuild import rebuild
from modelwire.output_head import recipe, rows
from modelwire.output_head_settings import Activation, Loss, Optimizer, OutputHeadSettings, Schedule
from modelwire.tensors import Dtype
from modelwire.update.container import parse
from tests.house.pages import DOCS, ROOT, section
from tests.house.pages import rows as table
from tests.vectors import page_examples_recipe
from tests.vectors.refusals.recipe_cases import HEAD_FIELDS, ROW_FIELDS

RECIPE, TRAINER = ((DOCS / "format" / f"{page}.md").read_text() for page in ("recipe", "trainer"))
KERNELS = ROOT / "tests" / "vectors" / "wire-1" / "kernels"
ENUMS: dict[str, type[IntEnum]] = {"activation": Activation, "loss": Loss, "optimizer": Optimizer, "schedule": Schedule}
WORDS = {"mean of squares (mse)": "MSE"}  # where the page says more than the name


def test_the_worked_example_is_what_its_maker_writes() -> None:
    assert page_examples_recipe.filled(RECIPE) == RECIPE
    bare = re.sub(r"(<!-- example: recipe -->\n).*<!-- end -->\n", r"\1", RECIPE, flags=re.S)
    assert page_examples_recipe.filled(bare) == RECIPE


def test_the_worked_example_is_an_update_that_comes_to_what_the_page_says() -> None:
    text = section(RECIPE, "Example")
    manifest, update = (
        bytes.fromhex("".join(re.findall(r"^((?:[0-9a-f]{2} ?)+)(?:  .*)?$", block, re.M)))
        for block in re.findall(r"```\n(.*?)```", text, re.S)
    )
    state = page_examples_recipe.base()
    assert manifest == state.manifest.encode() and f"`{state.manifest.commit.hex()}`" in text
    container = parse(update)
    after = rebuild(state, container)
    assert after.root == container.header.root
    for name, values in zip(("bias", "kernel"), after.weights, strict=True):
        assert f"{name:8}{', '.join(f'{x:.9g}' for x in values.tolist())}\n" in text


@pytest.mark.parametrize("field", ENUMS)
def test_the_numbers_of_a_head_are_those_of_the_enums(field: str) -> None:
    said = dict(table(section(RECIPE, "A head")))[field]
    found = {WORDS.get(name, name.upper()): int(number) for number, name in re.findall(r"(\d) ([^,]+)", said)}
    assert found == {member.name: member.value for member in ENUMS[field]}


def test_the_fields_of_a_head_stand_in_their_order_and_with_their_ranges() -> None:
    text = section(RECIPE, "A head")
    listed = re.search(r"^ {4}\[1, (.*?)\]\n\n", text, re.M | re.S)
    assert listed
    names = [name.strip().replace(" ", "_").strip("[.").replace("_...]", "") for name in listed[1].split(",")]
    assert names == HEAD_FIELDS[1:] == list(OutputHeadSettings.__dataclass_fields__)
    said = {name: numbers for fields, numbers in table(text) for name in fields.split(", ")}
    terms = {"the largest float32": output_head_settings._FLOAT32_MAX, "2^32 - 1": 2**32 - 1, "2^64 - 1": 2**64 - 1,
             "1 - 2^-24": 1 - 2.0**-24, "2^-126": 2.0**-126}  # fmt: skip
    for name, (low, high) in output_head_settings._RANGES.items():
        first, last = re.match(r"(.*?) to ([^(]+?)(?: \(|$)", said[name.replace("_", " ")]).groups()  # type: ignore[union-attr]
        assert (terms.get(first) or float(first), terms.get(last) or float(last)) == (low, high), name
    assert said["each hidden layer"] == said["outputs"] and said["outputs"].startswith(f"1 to {output_head_settings.WIDTH_MAX} (softmax: ")


def test_the_fields_of_the_rows_stand_in_their_order_and_with_their_numbers() -> None:
    text = section(RECIPE, "Rows")
    fields = table(text)
    assert [name for row in fields for name in row[0].split(", ")] == ROW_FIELDS
    said = {row[0]: row[2] for row in fields}
    assert {int(n) for n in re.findall(r"(\d): (?:int8|float16)", said["dtype"])} == {Dtype.INT8, Dtype.FLOAT16}
    assert [int(n) for n in re.findall(r"(\d): ", said["layout"])] == [layout.value for layout in rows.Layout]
    assert f"at most {rows.ENTRIES_MAX:,}" in said["rows, features"]
    assert said["scale"] == "a float32 value of 2^-126 to 2^100" and (rows._SCALE_MIN, rows._SCALE_MAX) == (2.0**-126, 2.0**100)


def test_the_limits_are_the_documented_ones() -> None:
    assert f"1 to {recipe.CHECKPOINTS_MAX:,}" in RECIPE and f"more than {32 * recipe.CHECKPOINTS_MAX:,} bytes" in RECIPE
    assert f"the limit `tensors` of {limits.DEFAULT.tensors:,}" in RECIPE and f"The limit is {limits.DEFAULT.training:,}" in RECIPE
    of = OutputHeadSettings(9, 7, 11, (5,), optimizer=Optimizer.ADAM, batch=4)
    formula = re.search(r"^ {4}(steps \* \(.*)$", RECIPE, re.M)
    assert formula
    names = {"steps": 11, "batch": 4, "rows": 3, "weights": of.size, "neurons": 12, "slots": of.slots, "min": min}
    assert eval(formula[1], {"__builtins__": {}}, names) == of.work(3)


def test_the_constants_of_the_trainer_are_the_same_in_bits_and_as_numbers() -> None:
    found = re.findall(r"^\| \w+ \| `([0-9a-f]{8})` \| `(-?0x[0-9a-fp.+-]+)`", TRAINER, re.M)
    assert len(found) == 24
    for bits, number in found:
        assert struct.pack(">f", float.fromhex(number)).hex() == bits
        assert struct.unpack(">f", bytes.fromhex(bits))[0] == float.fromhex(number)


def test_the_page_of_the_kernels_vectors_says_their_arrays_and_fields_in_order() -> None:
    page = (KERNELS / "README.md").read_text()
    said = {row[0].strip("`"): row[1:] for row in table(section(page, "Calls: lattice.json, verbatim.json"))}
    seen = set()
    for name in ("lattice", "verbatim"):
        for case in json.loads((KERNELS / f"{name}.json").read_text()):
            arrays, facts, _, changed, _ = said[case["kernel"]]
            before = [(n, shown.partition(" ")[0]) for n, shown in case["before"].items()]
            assert [n for n, _ in before] == re.findall(r"`(\w+)`", arrays), case["kernel"]
            assert list(case["facts"]) == re.findall(r"`(\w+)`", facts) and list(case["after"]) == re.findall(r"`(\w+)`", changed)
            seen.add(case["kernel"])
    assert seen == set(said)
    for name in ("coder", "refused", "checksum", "head"):
        text = section(page, f"{name}.json")
        for case in json.loads((KERNELS / f"{name}.json").read_text()):
            assert list(case) == [row[0].strip("`") for row in table(text)], name
            assert all(f"`{array}`" in text for side in ("before", "after") for array in case.get(side, ()))
