"""What the attacks share: a clock that only moves when it is told to."""

from __future__ import annotations

import pytest

from tests.edgeagent.centre import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
