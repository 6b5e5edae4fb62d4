"""The fleet's keys are made once, and kept from others than their owner."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from edgecloud.keys import load_key, make_keys, read_public
from modelwire.errors import BadArgument, Malformed, MissingFile


def test_keys_are_made_once_and_kept(tmp_path: Path) -> None:
    first = make_keys(tmp_path)
    assert make_keys(tmp_path).public == first.public == load_key(tmp_path / "fleet.key").public
    assert read_public(str(tmp_path / "fleet.pub")) == read_public(first.public.hex()) == first.public
    assert stat.S_IMODE((tmp_path / "fleet.key").stat().st_mode) == 0o600


def test_a_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    make_keys(tmp_path)
    (tmp_path / "fleet.key").chmod(0o604)
    with pytest.raises(BadArgument, match="others than its owner"):
        load_key(tmp_path / "fleet.key")
    with pytest.raises(MissingFile):
        load_key(tmp_path / "none.key")
    (tmp_path / "bad.key").write_text("nonsense")
    (tmp_path / "bad.key").chmod(0o600)
    with pytest.raises(Malformed, match="64 hexadecimal digits"):
        load_key(tmp_path / "bad.key")
