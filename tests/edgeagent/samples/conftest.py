"""What tests of samples share: a small spool."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.samples.spool import Spool
from tests.edgeagent.samples.spools import small


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return small(tmp_path)
