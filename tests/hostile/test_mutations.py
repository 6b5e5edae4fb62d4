"""Every mutation of a container is refused twice: raw by its preamble or its digest, resealed with a valid key by its own named error.

Each attack stays within 64 MiB and far under 10 s, and leaves the parent's state as it was.
"""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from modelwire import _core
from modelwire.errors import DigestMismatch, IndexOutOfRange, Malformed, ModelWireError, NonFinite, TooLarge, WireError
from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.state import ModelState
from modelwire.limits import MIB
from modelwire.tensors import Schema, TensorSpec
from modelwire.update.container import parse, seal
from modelwire.update.header import Header
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind, Section
from tests.keys import FLEET_ID, NO_FILE
from tests.modelwire.models import KEY

from .mutations import Attack, attacks, big_schema, opened, victim

ATTACKS = attacks()
PARENT, DELTA, SNAPSHOT = victim()


def receive(state: ModelState, data: bytes) -> ModelState:
    """The whole way in: envelope, signature, content, result."""
    container = parse(data)
    container.verify(KEY.public, FLEET_ID)
    return rebuild(state, container)


def refused(state: ModelState, data: bytes) -> ModelWireError:
    before = [w.tobytes() for w in state.weights], [q.tobytes() for q in state.integers], state.fingerprint
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ModelWireError) as caught:
        receive(state, data)
    took = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 5 and peak < 64 * MIB
    assert ([w.tobytes() for w in state.weights], [q.tobytes() for q in state.integers], state.fingerprint) == before
    return caught.value


def test_there_are_200_attacks_with_names_of_their_own() -> None:
    assert len({a.name for a in ATTACKS}) == len(ATTACKS) >= 200


def test_the_victims_are_good_before_they_are_changed() -> None:
    assert receive(PARENT, DELTA).root == receive(PARENT, SNAPSHOT).root
    assert opened(DELTA).resealed() == DELTA and opened(SNAPSHOT).resealed() == SNAPSHOT


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_raw_the_preamble_or_the_digest_refuses(attack: Attack) -> None:
    good = SNAPSHOT if attack.snapshot else DELTA
    body = attack.change(opened(good)).body()
    assert body != good[:-96], "the mutation changes nothing"
    error = refused(PARENT, body + good[-96:])
    preamble = (attack.expected,) if body[:32] != good[:32] else ()
    assert type(error) in (DigestMismatch, *preamble)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_resealed_with_a_valid_key_its_own_error_refuses(attack: Attack) -> None:
    good = SNAPSHOT if attack.snapshot else DELTA
    error = refused(PARENT, attack.change(opened(good)).resealed())
    if attack.expected is WireError:
        assert isinstance(error, WireError) and not isinstance(error, DigestMismatch)
    else:
        assert type(error) is attack.expected
    assert error.message and "<" not in error.message, error.message


@pytest.mark.parametrize("n", [0, 1, 8, 31, 32, 160, 245, 246, 300])
def test_a_truncated_container_is_refused(n: int) -> None:
    assert type(refused(PARENT, DELTA[:n])) in (DigestMismatch, Malformed)


def test_a_container_over_the_limit_is_refused() -> None:
    assert type(refused(PARENT, bytes(64 * MIB + 1))) is TooLarge


@pytest.mark.skipif(_core.kernel_name() == "reference", reason="the twin in Python walks two million entries for minutes")
def test_a_bomb_on_a_large_model_takes_no_more_than_the_model() -> None:
    # Two million weights, all of them said to have changed, in a stream that is just long enough to be believed.
    schema = big_schema(2 * 1024 * 1024)
    base = [np.ones(schema.size, np.float32)]
    manifest = manifest_for(schema, base, **NO_FILE, exponents={})
    state = ModelState.of_base(manifest, base)
    few = Section(0, np.arange(8, dtype=np.uint32), np.ones(8, np.int32), 1, manifest.exponents[0])
    header = Header(Kind.DELTA, "pi-7", "digits", 1, 1, manifest.commit, schema.id, bytes(32), (0, 0))
    good = opened(seal(header, (few,), schema, KEY, FLEET_ID).data)
    rows = (replace(good.rows[0], count=schema.size),)
    for stream in (good.stream, bytes(schema.size // 8), b"\xff" * (schema.size // 8), b"\x5a" * (schema.size // 8)):
        error = refused(state, replace(good, rows=rows, stream=stream).resealed())
        assert type(error) is Malformed


def test_unsorted_repeated_and_foreign_indices_are_refused_before_anything_is_written() -> None:
    e = PARENT.manifest.exponents[2]
    for index in ([5, 4], [5, 5], [1480], [0, 2**32 - 1]):
        section = Section(2, np.array(index, np.uint32), np.ones(len(index), np.int32), 1, e)
        good = Section(1, np.array([0], np.uint32), np.ones(1, np.int32), 1, PARENT.manifest.exponents[1])
        before = PARENT.weights[1].tobytes()
        with pytest.raises(IndexOutOfRange, match="dense_kernel"):
            PARENT.apply(Kind.DELTA, (good, section))
        assert PARENT.weights[1].tobytes() == before


def test_an_update_on_a_base_with_nan_is_refused_at_the_base() -> None:
    schema = Schema((TensorSpec("w", (64,)),))
    base = [np.full(64, np.nan, np.float32)]
    with pytest.raises(NonFinite, match="base"):
        manifest_for(schema, base, **NO_FILE, exponents={})
