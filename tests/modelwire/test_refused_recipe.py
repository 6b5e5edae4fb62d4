"""Every negative vector of recipes and of their training is refused with its error, and every rule of the two pages has one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from modelwire.lattice.replay import replay
from modelwire.output_head.recipe import parse_recipe
from modelwire.output_head_settings import Optimizer
from tests.modelwire.golden import state_of
from tests.vectors.recipe_readers import READERS
from tests.vectors.refusals import recipe, trainer
from tests.vectors.refusals.recipe_cases import FEATURES, ROWS, Change, coded, coded_labels, features, labels, of, of_head, of_rows, put
from tests.vectors.refused import FOLDER, PAGES, ROOT, RULE, Refused, vectors

MAKERS: dict[str, ModuleType] = {"recipe": recipe, "trainer": trainer}
VECTORS = [vector for page in MAKERS for vector in vectors(page)]
TRAINED = list(vectors("trainer"))


def verdicts() -> dict[str, str]:
    """Return what the reader says of every vector, by its file."""
    return {f"{vector.page}/{vector.file.name}": vector.verdict(READERS) for vector in VECTORS}


def test_every_vector_is_refused_with_its_error() -> None:
    assert verdicts() == {f"{vector.page}/{vector.file.name}": vector.error for vector in VECTORS}


@pytest.mark.parametrize("kernel", ["generic", "reference"])
def test_every_other_kernel_says_the_same(kernel: str) -> None:
    program = "import json; from tests.modelwire.test_refused_recipe import verdicts; print(json.dumps(verdicts()))"
    environment = {**os.environ, "MODELWIRE_KERNEL": kernel}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {f"{vector.page}/{vector.file.name}": vector.error for vector in VECTORS}


@pytest.mark.parametrize("page", MAKERS)
def test_every_rule_of_the_page_has_a_vector_that_breaks_it_alone(page: str) -> None:
    rules = [number for number, _ in RULE.findall((ROOT / PAGES[page]).read_text())]
    assert rules == [f"{rules[0][0]}{n}" for n in range(1, len(rules) + 1)], "numbers rise without gaps"
    assert {vector.rules[0] for vector in vectors(page) if len(vector.rules) == 1} == set(rules)
    for number, text in RULE.findall((ROOT / PAGES[page]).read_text()):
        said = {vector.error for vector in vectors(page) if vector.rules == (number,)}
        assert said and all(f"`{error}`" in text for error in said), number


@pytest.mark.parametrize("page", MAKERS)
def test_the_files_are_what_their_maker_makes_and_their_good_side_is_taken(page: str) -> None:
    made = list(MAKERS[page].cases())
    assert {case.file: case.data for case in made} == {path.name: path.read_bytes() for path in (FOLDER / page).glob("*.bin")}
    assert [(v.file.name, v.rules, v.error, v.read_as, dict(v.held)) for v in vectors(page)] == [
        (case.file, case.rules, case.error, case.read_as, dict(case.held)) for case in made
    ]
    for good, read_as, held in {(case.good, case.read_as, json.dumps(case.good_held)) for case in made}:
        READERS[read_as](good, json.loads(held))


@pytest.mark.parametrize("vector", TRAINED, ids=lambda vector: vector.file.stem)
def test_a_training_is_refused_alike_wherever_it_is_cut(vector: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelwire.output_head.trainer.WORK_OF_A_CALL", 1)
    assert vector.verdict(READERS) == vector.error


@pytest.mark.parametrize("vector", [v for v in TRAINED if v.rules == ("T6",)], ids=lambda vector: vector.file.stem)
def test_weights_and_slots_that_are_not_finite_are_found_where_all_losses_are(vector: Refused) -> None:
    refused = parse_recipe(vector.file.read_bytes())
    still = replace(refused.head, optimizer=Optimizer.SGD, rate=0.0, decay=0.0)  # its losses are those of the refused one
    replay(state_of(vector.held["folder"], vector.held["container"]), replace(refused, head=still))


LARGEST = float.fromhex("0x1.fffffep+127")
EMPTY: dict[str, Any] = {"layout": 0, "count": 0, "stream": b"", "wanted": [0, b""]}
AT_THE_ENDS: list[Change] = [
    *(of_head(features=n) for n in (1, 65536)), *(of_head(outputs=n) for n in (2, 4096)), *(of_head(steps=n) for n in (1, 2**32 - 1)),
    *(of_head(batch=n) for n in (1, 4096)), *(of_head(every=n) for n in (1, 2**32 - 1)), *(of_head(seed=n) for n in (0, 2**64 - 1)),
    *(of_head(**{name: x}) for name in ("rate", "rate_end", "decay") for x in (0.0, 2.0**-149, LARGEST)),
    *(of_head(factor=x) for x in (0.0, 1.0)), *(of_head(**{name: x}) for name in ("beta1", "beta2") for x in (0.0, 1 - 2.0**-24)),
    *(of_head(epsilon=x) for x in (2.0**-126, LARGEST)), *(of_head(hidden=[n, n]) for n in (1, 4096)),
    *(put(3, [[n, n, 0]] * 3) for n in (0, 4095)),
    *(of_rows(rows=n, features=width, **EMPTY) for n, width in ((1, 1), (64, 65536), (4194304, 1))),
    *(of_rows(scale=x) for x in (2.0**-126, 2.0**100)), of_rows(**EMPTY | {"layout": 2}),
    of_rows(wanted=coded_labels([0, 4095, 0, 0, 4095])),
    *(of_rows(**coded([[n] * FEATURES] * ROWS, layout)) for n in (-128, 127) for layout in (0, 1)),
    *(of_rows(**coded([[n] * FEATURES] * ROWS, 2, [n] * FEATURES)) for n in (-128, 127)),
    *(of_rows(dtype=2, scale=1.0, **coded([[n] * FEATURES] * ROWS, 0)) for n in (-31744, 31743)),
    *(of_rows(kind=1, wanted=[n, bytes(4 * n * ROWS)]) for n in (1, 4096)),
    of_rows(**coded(features(), 1) | {"wanted": coded_labels(labels())}),
    lambda v: [*v[:2], [*v[2][:3], 1025, *v[2][4:]], *v[3:5], [1, bytes(32 * 1024)]],
]  # fmt: skip


@pytest.mark.parametrize("change", AT_THE_ENDS)
def test_what_is_at_the_ends_of_a_range_is_read_and_written_again(change: Change) -> None:
    data = of("R1", "at an end", change).data
    again = parse_recipe(data)
    once_more = parse_recipe(again.encode())
    assert (once_more.head, once_more.layers, once_more.checkpoints) == (again.head, again.layers, again.checkpoints)
    assert once_more.rows.features.tobytes() == again.rows.features.tobytes()
