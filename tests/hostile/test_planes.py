"""Every committed attack on planes is refused by the error in its file's name, in bounded memory and time, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwire import errors
from modelwire.errors import ModelWireError
from modelwire.lattice.rebuild import prove_root, rebuild
from modelwire.lattice.state import ModelState
from modelwire.limits import KIB
from modelwire.update.container import parse
from tests.keys import FLEET_ID
from tests.modelwire.golden import base, data
from tests.modelwire.models import KEY

from .cost import refused
from .planes import EXACT, FOLDER, MIXED, files

FILES = sorted(FOLDER.glob("exact/*.bin")) + sorted(FOLDER.glob("mixed/*.bin"))
SECONDS = 2


def bits(state: ModelState) -> tuple[list[bytes], list[bytes], tuple[int, int]]:
    return [w.tobytes() for w in state.weights], [q.tobytes() for q in state.integers], state.fingerprint


def test_each_attack_has_its_file() -> None:
    assert {str(f.relative_to(FOLDER)) for f in FILES} >= set(files()) and len(files()) == len(EXACT) + len(MIXED)


def test_what_the_attacks_are_made_of_is_taken() -> None:
    # Otherwise all of them might be refused for one and the same reason.
    for folder, name in (("exact", "1-exact"), ("mixed", "1-delta")):
        good = parse(data(folder, name))
        assert rebuild(base(folder), good).root == good.header.root


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_an_attack_is_refused_by_the_error_in_its_name(file: Path) -> None:
    content, state = file.read_bytes(), base(file.parent.name).copy()
    before, expected = bits(state), getattr(errors, file.name.split(".")[1])
    rooted = "the-root" in file.name  # told by the root alone: in place it is applied, and the proof fails

    def take() -> None:
        container = parse(content)
        container.verify(KEY.public, FLEET_ID)
        state.apply_container(container)
        prove_root(state, container)

    error, took, peak = refused(take)
    assert type(error) is expected, error.message
    assert took < SECONDS and peak < 512 * KIB
    assert rooted or bits(state) == before


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_as_sections_it_is_refused_too(file: Path) -> None:
    if "the-root" in file.name:
        return
    state = base(file.parent.name).copy()
    before = bits(state)
    with pytest.raises(ModelWireError):
        container = parse(file.read_bytes())
        sections = container.sections(state.manifest.schema)
        state.apply(container.header.kind, sections, expect=container.header.fingerprint)
    assert bits(state) == before
