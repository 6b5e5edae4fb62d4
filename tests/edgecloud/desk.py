"""An operator's desk: commands that run in a folder, as text and as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from unittest import mock

import pytest

from edgecloud import cli
from edgecloud.commands import answer
from modelwire.wire.keys import KeyKind, write_key
from tests.edgecloud.device import key_of

KEY = key_of("pi-7").public.hex()
LINE = write_key(KeyKind.DEVICE, key_of("pi-7").public)


class Desk:
    """Runs commands in a folder, as an operator does."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        try:
            # How far it has come is told after two seconds; whether that is reached hangs on how busy the machine is.
            with mock.patch.object(answer.progress, "__defaults__", (math.inf,)):
                code = cli.main(list(arguments))
        except SystemExit as ended:  # a command line that can't be read
            code = int(ended.code or 0)
        out, err = self._capsys.readouterr()
        return code, out, err

    def ok(self, *arguments: str) -> str:
        code, out, err = self.run(*arguments)
        assert (code, err) == (0, ""), err
        return out

    def json(self, *arguments: str) -> dict[str, object]:
        """Run a command with --json: exactly one document on standard output, nothing beside it."""
        document: dict[str, object] = json.loads(self.ok(*arguments, "--json"))
        return document

    def error(self, *arguments: str) -> dict[str, object]:
        """Run a command that fails: one object on standard error, its code is the exit code."""
        code, out, err = self.run(*arguments, "--json")
        said: dict[str, object] = json.loads(err)
        assert sorted(said) == ["code", "error", "hint", "message"] and said["code"] == code and out == ""
        assert said["message"] and "<" not in str(said["message"]), "a fact of the message is missing"
        return said
