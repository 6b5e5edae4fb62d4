"""Print how many negative vectors have another verdict than theirs, with the kernels that this process runs."""

from __future__ import annotations

from tests.evidence.wire import wrong_verdicts

if __name__ == "__main__":
    wrong = wrong_verdicts()
    print("\n".join([*wrong, str(len(wrong))]))
