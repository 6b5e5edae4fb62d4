"""Runs what tests/edgecommon/test_inbound_bound.py says of the MQTT library with every release of it that pyproject.toml allows.

    python -m tests.edgecommon.paho_versions        fetches them with pip into a temporary folder; a minute
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

RELEASES = ("2.0.0", "2.1.0", "2.2.0")  # a new one is added here before it is allowed
TESTS = ("tests/edgecommon/test_inbound_bound.py", "tests/edgecloud/intake/test_paho_client.py", "tests/attacks/test_boards_links.py")


def main() -> int:
    """Return 0 when all of them pass with every release."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for release in RELEASES:
            place = Path(folder) / release
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(place), f"paho-mqtt=={release}"]
            subprocess.run(pip, check=True)
            found = [sys.executable, "-c", "import paho.mqtt; print(paho.mqtt.__version__)"]
            environment = {**os.environ, "PYTHONPATH": str(place)}
            said = subprocess.run(found, env=environment, check=True, capture_output=True, text=True).stdout.strip()
            tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
            code = subprocess.run(tests, env=environment, check=False).returncode if said == release else -1
            print(f"paho-mqtt {said}: {'as it should' if code == 0 else 'NOT as it should'}", flush=True)
            failed += [release] if code else []
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
