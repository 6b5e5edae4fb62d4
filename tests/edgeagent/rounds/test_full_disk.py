"""A disk that fills up in the middle of a round."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgeagent.service.goal import Goal
from edgecommon import files
from modelwire.errors import DiskUnwritable
from tests.edgeagent.boards import centre, fill, rig
from tests.edgeagent.by_hand import one
from tests.edgeagent.centre import FakeClock


def test_a_full_disk_in_the_middle_of_a_round_leaves_nothing_behind_and_names_the_file(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        before, plain = r.lineage.head(), os.write

        def write(handle: int, data: bytes) -> int:
            if len(data) > 100:
                plain(handle, bytes(data)[:100])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return plain(handle, data)

        monkeypatch.setattr(os, "write", write)
        with pytest.raises(DiskUnwritable) as e:
            one(r)
        assert str(e.value.facts["path"]).endswith("model.tflite") and int(str(e.value.facts["needed"])) > 100
        monkeypatch.undo()
        assert r.lineage.head() == before
        assert list((tmp_path / "d").rglob(f"*{files.TEMPORARY}")) == [], "the half that was written takes room that is missing"
        one(r)
        assert r.lineage.head().version == before.version + 1
