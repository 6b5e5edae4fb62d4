"""Every committed attack is refused by the error in its file's name, within 64 MiB and 5 s, and writes nothing.

The files are read as they are: a release that refuses one with another error, or takes it, fails here.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from modelwire import errors
from modelwire.errors import ModelWireError
from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.state import ModelState
from modelwire.limits import MIB
from modelwire.update.container import parse
from modelwire.update.manifest import parse_manifest
from tests.keys import FLEET_ID
from tests.modelwire.models import KEY

from .cost import refused
from .make_attacks import FOLDER, SAID_BETTER, TELLING, slug

FILES = sorted(FOLDER.glob("*.bin"))
UPDATES = Path(__file__).parents[1] / "vectors" / "wire-1" / "updates"
SECONDS = 5


@functools.cache
def parent() -> ModelState:
    """Return the base of the golden vectors."""
    manifest = parse_manifest((UPDATES / "manifest.bin").read_bytes())
    flat = np.fromfile(UPDATES / "base.bin", np.float32)
    ends = np.cumsum([spec.size for spec in manifest.schema.tensors])[:-1]
    return ModelState.of_base(manifest, [a.copy() for a in np.split(flat, ends)])


def receive(data: bytes) -> ModelState:
    """The whole way in, as the centre goes it."""
    container = parse(data)
    container.verify(KEY.public, FLEET_ID)
    return rebuild(parent(), container)


def refusal(data: bytes) -> ModelWireError:
    """Return the error by which a container is refused."""
    with pytest.raises(ModelWireError) as caught:
        receive(data)
    return caught.value


def bits(state: ModelState) -> tuple[bytes, bytes, tuple[int, int]]:
    return b"".join(w.tobytes() for w in state.weights), b"".join(q.tobytes() for q in state.integers), state.fingerprint


def test_each_telling_attack_has_its_file() -> None:
    names = {f.name.split(".")[0] for f in FILES}
    assert len(FILES) == len(names) >= 30
    assert {slug(f"{SAID_BETTER.get(name, name)}.x").split(".")[0] for name in TELLING} <= names


def test_what_the_attacks_are_made_of_is_taken() -> None:
    # Otherwise all of them might be refused for one and the same reason.
    good = (UPDATES / "1-delta.bin").read_bytes()
    assert receive(good).root == parse(good).header.root


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_an_attack_is_refused_by_the_error_in_its_name(file: Path) -> None:
    data, before = file.read_bytes(), bits(parent())
    expected = getattr(errors, file.name.split(".")[1])
    error, took, peak = refused(lambda: receive(data))
    assert type(error) is expected, error.message
    assert took < SECONDS and peak < 64 * MIB
    assert bits(parent()) == before
