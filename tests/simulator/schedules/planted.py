"""Bugs that the simulator must find: each is put into a seam of the product for the time of a schedule, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from edgeagent.link.session import Session
from edgecloud.intake.decision import Decision
from edgecloud.intake.routing import Ingest
from edgecloud.registry import blobs
from edgecommon import files

from .playing import Play


@contextmanager
def puback_trusted(play: Play) -> Iterator[None]:
    """Let boards take the broker's PUBACK for the centre's receipt: what the broker loses then is never sent again."""
    plain = Session.accepted

    def accepted(session: Session, ticket: int) -> None:
        outbox = session.lineage.outbox
        for version in [v for v, t in session._on_the_way.items() if t == ticket]:
            row = session.lineage.version(version)
            assert row is not None
            with outbox.transaction():
                outbox.stored(row)
        plain(session, ticket)

    with patch.object(Session, "accepted", accepted):
        yield


@contextmanager
def receipt_before_commit(play: Play) -> Iterator[None]:
    """Let the centre send its receipts before its transaction has ended: what is cut in between was confirmed, and is not there."""
    plain = Ingest.take

    def take(ingest: Ingest, *args: Any) -> Decision:
        outcome = plain(ingest, *args)
        if outcome.result.value == "stored":
            play.centre._say(outcome.replies)
        return outcome

    with patch.object(Ingest, "take", take):
        yield


@contextmanager
def rename_before_fsync(play: Play) -> Iterator[None]:
    """Let files get their names first, and be flushed when the next one is written: cut in between, the name leads to nothing or a half.

    Flushed right behind the rename it would do no harm that shows: who is not answered sends again, and what a name holds is compared then.
    """
    late: list[Path] = []

    def write(path: Path, data: bytes, *, mode: int = 0o644, replace: bool = True, beside: Path | None = None) -> None:
        while late:
            with suppress(FileNotFoundError):
                handle = os.open(late.pop(), os.O_RDONLY)
                os.fsync(handle)
                os.close(handle)
        beside = beside or path.with_name(path.name + files.TEMPORARY)
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            os.write(handle, data)
            files.put_in_place(beside, path, replace=replace)
        finally:
            os.close(handle)
        late.append(path)

    with ExitStack() as stack:
        for module in (files, blobs):
            stack.enter_context(patch.object(module, "write", write))
        yield


BUGS: Mapping[str, Callable[[Play], AbstractContextManager[None]]] = {
    "puback-trusted": puback_trusted, "receipt-before-commit": receipt_before_commit, "rename-before-fsync": rename_before_fsync,
}  # fmt: skip
