"""`edgeagent version`: which release of what works here."""

from __future__ import annotations

import argparse
import platform

import numpy as np

from edgeagent import __version__
from edgecommon.printing import Answer
from modelwire import kernels
from modelwire.update import header

NAME = "version"
HELP = "Say the releases of the agent, the wire, the kernels and Python."
EXAMPLES = ("edgeagent version", "edgeagent version --json")


def add(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> Answer:
    document = {
        "edgeagent": __version__, "wire": str(header.VERSION), "kernels": kernels.describe(),
        "python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine(),
    }  # fmt: skip
    return Answer(document, "\n".join(f"{key:<10} {value}" for key, value in document.items()))
