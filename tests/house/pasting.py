"""Pages as a person pastes them into a shell: every console and Python block in its order, with nothing in between."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PORT = "1884"  # of the broker on the pages
# What a reader fills in is what the board shows; capitals stand for it where a page says so.
SHOWN = {"PUBLICKEY": "public key", "FINGERPRINT": "fingerprint"}


@dataclass(frozen=True)
class Block:
    """What one block of a page gives to paste: commands, or a program."""

    page: str
    line: int  # of the fence
    python: bool
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return a page's console blocks, of each the commands alone, and its Python blocks, in the order of the page."""
    out, text = [], page.read_text()
    for found in re.finditer(r"^```(console|python)\n(.*?)^```", text, re.M | re.S):
        body = found.group(2)
        if found.group(1) == "console":
            body = "".join(line.removeprefix("$ ") + "\n" for line in body.splitlines() if line.startswith("$ "))
        out.append(Block(page.name, text.count("\n", 0, found.start()) + 1, found.group(1) == "python", body))
    return out


def without(blocks: list[Block], left_out: Mapping[str, str]) -> list[Block]:
    """Return the blocks without the lines that `left_out` names, each with its reason. Raises when one of them is on no page."""
    gone: set[str] = set()
    out = []
    for block in blocks:
        lines = block.text.splitlines()
        gone.update(line for line in lines if line in left_out)
        kept = [line for line in lines if line not in left_out]
        if any(kept):
            out.append(Block(block.page, block.line, block.python, "\n".join(kept) + "\n"))
    if missing := left_out.keys() - gone:
        raise ValueError(f"on no page: {sorted(missing)}")
    return out


def script_of(blocks: list[Block], *, port: int | None = None) -> str:
    """Return the blocks as one shell script, which says the name of each before it. port: of the broker, on loopback alone."""
    parts, folder = [], ""
    for block in blocks:
        if named := re.search(r"^edgeagent init .*--dir (\S+)", block.text, re.M):
            folder = named.group(1)
        text = f"python3 - <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK\n" if block.python else block.text
        for word, shown in SHOWN.items():
            text = re.sub(rf"\b{word}\b", rf"$(edgeagent status --dir {folder} | grep -oPm1 '{shown} +\\K\\S+')", text)
        if port is not None:
            text = text.replace(f"listener {PORT}", f"listener {port} 127.0.0.1").replace(PORT, str(port))
        parts.append(f"printf '\\n== %s (%d s)\\n' {block.name} $SECONDS\n{text}")
    return "".join(parts)


def paste(script: str, *, folder: Path, said: Path, environment: Mapping[str, str], seconds: float) -> int:
    """Run a script in a shell that ends at the first failure, and return its exit code. said: the file that gets all output."""
    with open(said, "w") as out:
        # A session of its own: whatever the script leaves behind when it fails goes with it.
        shell = subprocess.Popen(
            ["bash", "-e", "-c", script], cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        try:
            return shell.wait(timeout=seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
