"""A manifest has one form, and its units suit its tensors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire.errors import Malformed, ModelError, ModelWireError, NonFinite, NotUnderstood, WrongBase
from modelwire.identity import root_parts
from modelwire.lattice.state import ModelState
from modelwire.limits import EXPONENT_MAX, Limits
from modelwire.update.manifest import coarsest_safe, manifest_for, parse_manifest
from modelwire.wire import cbor
from tests.keys import NO_FILE
from tests.modelwire.models import model

WIDE = Limits(cbor_items=1 << 16)


def test_a_manifest_with_a_unit_too_fine_for_its_base_is_refused_with_the_base() -> None:
    manifest, base = model(0)
    units = (0, -23, *manifest.exponents[2:])
    fine = replace(manifest, exponents=units, root=root_parts(manifest.schema, base, units, {}).root)
    with pytest.raises(Malformed, match="dense_bias"):
        ModelState.of_base(parse_manifest(fine.encode()), base)


@pytest.mark.parametrize("number", [True, 1.0])
def test_a_manifest_whose_numbers_only_equal_the_right_ones_is_refused(number: float) -> None:
    # Each was read as 1 and had another commit than the bytes that were read.
    good, _ = model(0)
    top = cbor.decode(good.encode(), "manifest", WIDE)
    assert isinstance(top, dict) and isinstance(top["tensors"], list)
    forged: list[dict[str, cbor.Value]] = [{**top, "manifest": number}, {**top, "size": number}]
    for place in (1, 3, 4):
        rows = [list(row) if isinstance(row, list) else [] for row in top["tensors"]]
        rows[1][place] = number
        forged.append({**top, "tensors": [list(r) for r in rows]})
    for one in forged:
        with pytest.raises(Malformed):
            parse_manifest(cbor.encode(one, WIDE))


def test_a_verbatim_tensor_with_a_unit_is_refused_in_a_manifest() -> None:
    good, _ = model(0)
    bad = replace(good, exponents=(5, *good.exponents[1:]))
    with pytest.raises(Malformed, match="verbatim"):
        parse_manifest(bad.encode())


def test_units_are_bound_by_the_root() -> None:
    good, base = model(0)
    with pytest.raises(WrongBase):
        ModelState.of_base(replace(good, exponents=(0, good.exponents[1] + 1, *good.exponents[2:])), base)


def test_what_later_releases_say_of_a_base_is_kept_and_bound_unless_it_must_be_understood() -> None:
    good, _ = model(0)
    said = replace(good, more={"runtime": "litert", "ram": 4})
    assert parse_manifest(said.encode()) == said and said.commit != good.commit
    top = cbor.decode(good.encode(), "manifest", WIDE)
    assert isinstance(top, dict) and "more" not in top
    for further, error in (({"!x": 1}, NotUnderstood), ({}, Malformed), ([], Malformed)):
        with pytest.raises(error):
            parse_manifest(cbor.encode({**top, "more": further}, WIDE))


def test_a_base_with_a_weight_that_is_no_number_is_refused() -> None:
    good, base = model(0)
    bad = [a.copy() for a in base]
    bad[2][7] = np.nan
    lying = replace(good, root=root_parts(good.schema, bad, good.exponents, {}).root)
    with pytest.raises(NonFinite, match="dense_kernel: entry 7"):
        ModelState.of_base(lying, bad)


def test_a_unit_for_a_tensor_that_takes_none_is_refused() -> None:
    manifest, base = model(0)
    for name in ("dense_kernal", "bn_moving_variance"):
        with pytest.raises(ModelError, match=name):
            manifest_for(manifest.schema, base, **NO_FILE, exponents={name: -3})


def test_the_units_of_the_extremes_are_those_of_the_page() -> None:
    assert coarsest_safe(2.0**122) == EXPONENT_MAX and coarsest_safe(math.nextafter(2.0**122, math.inf)) == EXPONENT_MAX + 1


def test_a_manifest_reads_back_as_it_was_written() -> None:
    manifest, _ = model(4)
    assert parse_manifest(manifest.encode()) == manifest
    assert parse_manifest(manifest.encode()).commit == manifest.commit


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader_of_manifests(data: bytes) -> None:
    with pytest.raises(ModelWireError):
        parse_manifest(data)
