"""What came of setting a board up, as a file for programs and as lines for whoever looks at its screen."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from edgeagent.settings.reading import FILE
from edgecommon import files
from modelwire.errors import ModelWireError


class ProvisionStage(Enum):
    """How far a board is."""

    WAITING = "waiting"  # nothing on the boot partition says what it is to be
    SET_UP = "set up"  # just now
    READY = "ready"  # by an earlier start
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ProvisionOutcome:
    """What `edgeagent provision` did."""

    state: ProvisionStage
    device: str = ""
    fleet: str = ""
    fingerprint: str = ""
    says: tuple[str, ...] = ()
    error: str = ""  # what is wrong; with SET_UP and READY: what could not be erased
    fix: str = ""

    @classmethod
    def failed(cls, error: Exception) -> ProvisionOutcome:
        """Return what an error comes to; one that nobody foresaw is said, too: who stands before the screen sees nothing else."""
        if isinstance(error, ModelWireError):
            return cls(ProvisionStage.FAILED, error=error.message, fix=error.next_step)
        if isinstance(error, OSError):
            return cls(ProvisionStage.FAILED, error=str(error), fix="see with dmesg what the card says, or write it anew")
        if isinstance(error, MemoryError):
            return cls(ProvisionStage.FAILED, error="the memory of this board is too small for what lies there", fix="take smaller models")
        fix = f"journalctl -u edgeagent-provision has the rest: report it; a simpler {FILE} may do meanwhile"
        return cls(ProvisionStage.FAILED, error=f"a fault of this program: {type(error).__name__}", fix=fix)

    def document(self) -> dict[str, object]:
        return {**asdict(self), "state": self.state.value, "says": list(self.says)}

    def lines(self) -> list[str]:
        """Return it for people."""
        out = [*self.says]
        if self.error:
            out.append(f"{'NOT SET UP' if self.state is ProvisionStage.FAILED else 'attention'}: {self.error}")
        if self.fix:
            out.append(f"  to do: {self.fix}")
        return out


def write_report(path: Path, outcome: ProvisionOutcome) -> None:
    """Write it as JSON, for programs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, (json.dumps(outcome.document(), indent=1) + "\n").encode())


def write_issue(path: Path, outcome: ProvisionOutcome) -> None:
    """Write it as what a console shows above its login. agetty takes a backslash for a command of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f"{outcome.device} of {outcome.fleet}: " if outcome.device else ""
    lines = [f"edgeagent: {name}{outcome.state.value}", *(f"  {line}" for line in outcome.lines())]
    text = "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)
    files.write(path, (text.replace("\\", "\\\\") + "\n\n").encode())
