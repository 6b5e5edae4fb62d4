"""What holds of a device's files and database at every start."""

from __future__ import annotations

from tests.edgeagent.boards import Rig


def check_invariants(r: Rig) -> None:
    """The database's head, the active slot, the served file and the chain of commits say the same."""
    head, lineage = r.lineage.head(), r.lineage
    assert lineage.load().state.root == (lineage.versions(1)[0]["root"] if head.version else lineage.manifest.root)
    rows = [row for row in reversed(lineage.versions()) if row["state"] not in ("rejected", "skipped", "refused", "lost")]
    parent = lineage.base_commit
    for row in rows:
        assert row["parent"] == parent
        parent = row["commit_id"]
    assert parent == head.commit
