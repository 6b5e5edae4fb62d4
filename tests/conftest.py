"""What holds for all tests: how Hypothesis looks for examples here."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No deadlines: the machine may be a small one under load, and a slow example is no wrong one.
COMMON = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("desk", COMMON)
# CI looks at the same examples each time: what fails there, fails at the desk, and fails because of the change.
settings.register_profile("ci", COMMON, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
