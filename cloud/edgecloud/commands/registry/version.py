"""`edgecloud version`: the release, and the formats that it speaks."""

from __future__ import annotations

import argparse

from edgecloud import __version__
from edgecloud.registry.sqlite.schema import SCHEMA
from edgecommon.printing import Answer
from modelwire.update import header

from ..answer import Document

NAME = "version"
HELP = "Say which release this is."
EXAMPLES = ("edgecloud version", "edgecloud version --json")


def add(parser: argparse.ArgumentParser) -> None:
    """It takes nothing of its own."""


def run(args: argparse.Namespace) -> Answer:
    document: Document = {"edgecloud": __version__, "wire": str(header.VERSION), "registry_schema": SCHEMA}
    return Answer(document, f"edgecloud {__version__}, wire {document['wire']}, registry schema {SCHEMA}")
