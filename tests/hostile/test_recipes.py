"""Every committed attack on recipes is refused by the error in its file's name, in bounded memory and time, and writes nothing."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from modelwire import errors
from modelwire.errors import ModelWireError
from modelwire.lattice.rebuild import apply, prove_root, rebuild
from modelwire.limits import MIB
from modelwire.update.container import parse
from tests.keys import FLEET_ID
from tests.modelwire.golden import base, data
from tests.modelwire.models import KEY

from .cost import refused
from .mutations import opened
from .recipes import ATTACKS, BASE, FOLDER, files, rows
from .test_planes import bits

FILES = sorted(FOLDER.glob(f"{BASE}/*.bin"))
SECONDS = 2


def test_each_attack_has_its_file() -> None:
    assert {str(f.relative_to(FOLDER)) for f in FILES} >= set(files()) and len(files()) == len(ATTACKS)


def test_what_the_attacks_are_made_of_is_taken() -> None:
    good = data(BASE, "1-sgd-int8")
    assert opened(good).resealed() == good
    assert rebuild(base(BASE), parse(good)).root == parse(good).header.root


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_an_attack_is_refused_by_the_error_in_its_name(file: Path) -> None:
    content, state = file.read_bytes(), base(BASE).copy()
    before, expected = bits(state), getattr(errors, file.name.split(".")[1])
    rooted = "the-root" in file.name  # told by the root alone: in place it is applied, and the proof fails

    def take() -> None:
        container = parse(content)
        container.verify(KEY.public, FLEET_ID)
        apply(state, container)
        prove_root(state, container)

    error, took, peak = refused(take)
    assert type(error) is expected, error.message
    assert "<" not in error.message
    assert took < SECONDS and peak < 4 * MIB
    assert rooted or bits(state) == before


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_copy_is_refused_too_and_the_parent_stays(file: Path) -> None:
    state = base(BASE)
    before = bits(state)
    with pytest.raises(ModelWireError):
        rebuild(state, parse(file.read_bytes()))
    assert bits(state) == before


def test_rows_as_large_as_the_limit_in_a_short_stream_take_bounded_memory() -> None:
    """The most that a few hundred bytes can ask for: 4 Mi entries, all zero."""
    good = opened(data(BASE, "1-sgd-int8"))
    bomb = rows(rows=65_536, features=64, count=0, medians=0, layout=0, stream=b"")(good).resealed()
    tracemalloc.start()
    try:
        with pytest.raises(ModelWireError):
            apply(base(BASE).copy(), parse(bomb))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 160 * MIB
