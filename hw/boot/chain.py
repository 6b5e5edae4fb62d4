"""Whether a power cut cost anything: what the centre had verified is held against what both sides list afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

GONE = ("refused", "lost")  # what a centre calls a version that it does not hold


def wrong(heard: Iterable[tuple[int, str]], board: Sequence[Mapping[str, Any]], centre: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what was lost, doubled or overwritten, a sentence each.

    heard: version and commit, in hex, of each `verified` that was ever heard; board, centre: what their commands `log` list now.
    """
    out, said = list[str](), dict[int, str]()
    for version, commit in heard:
        if said.setdefault(version, commit) != commit:
            out.append(f"overwritten: @{version} was verified as {said[version][:12]} and as {commit[:12]}")
    theirs = listed(centre, "the centre", out)
    ours = listed(board, "the board", out)
    for version, commit in said.items():
        if theirs.get(version) != commit:
            out.append(f"lost: @{version} was verified as {commit[:12]}, and the centre lists {theirs.get(version, 'none')[:12]}")
        # The board may have let an old row go; another one in its place is what must never be.
        if version in ours and ours[version] != commit:
            out.append(f"overwritten: @{version} was verified as {commit[:12]}, and the board lists {ours[version][:12]}")
    for version, commit in ours.items():
        if version in theirs and theirs[version] != commit:
            out.append(f"apart: @{version} is {commit[:12]} on the board and {theirs[version][:12]} at the centre")
    if ours and said and max(ours) < max(said):
        out.append(f"lost: the board is at @{max(ours)}, and @{max(said)} of it was verified")
    epochs = {row["epoch"] for row in centre if row.get("epoch")}
    if len(epochs) > 1:
        out.append(f"lost: the board's state, for it went on in epoch {max(epochs)} after {min(epochs)}")
    out += [f"@{row['version']} is {row['status']} at the centre" for row in centre if row.get("status") in GONE]
    return out


def listed(rows: Sequence[Mapping[str, Any]], who: str, out: list[str]) -> dict[int, str]:
    """Return the commit of each version that is listed; adds to `out` what is listed twice."""
    found: dict[int, str] = {}
    for row in rows:
        version, commit = row.get("version"), row.get("commit")
        if not isinstance(version, int) or not isinstance(commit, str) or not commit:
            continue  # a round that was rejected has no version
        if version in found:
            out.append(f"doubled: {who} lists @{version} twice")
        found[version] = commit
    return found
