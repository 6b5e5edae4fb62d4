"""`edgeagent provision`: sets a board up from its boot partition, at its first start."""

from __future__ import annotations

import argparse
import grp
import pwd
from pathlib import Path

from edgeagent import provisioning
from edgeagent.provisioning import ProvisionOutcome
from edgecommon.printing import Answer, lines_of
from modelwire.errors import BadArgument, ModelWireError

from ..model import rate_of

NAME = "provision"
HELP = (
    "Set this board up from its boot partition: edgeagent.toml, fleet.pub, NAME.tflite of each model, and a claim or device.key lie there. "
    "Secrets are erased there once they are safe. A board that is set up stays as it is."
)
EXAMPLES = (
    "edgeagent provision --from /boot/firmware --dir /var/lib/edgeagent/agent",
    "edgeagent provision --from /boot/firmware --dir /var/lib/edgeagent/agent --owner edgeagent --json",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", required=True, dest="source", metavar="DIR", help="where the boot partition is mounted")
    parser.add_argument("--dir", required=True, metavar="DIR", help="the folder to be made")
    parser.add_argument("--owner", metavar="USER", help="give the folder to this user and the group of the same name")
    parser.add_argument("--report", metavar="FILE", help="write what came of it as JSON, also when it failed")
    parser.add_argument("--issue", metavar="FILE", help="write what came of it for the console's screen, also when it failed")


def run(args: argparse.Namespace) -> Answer:
    error: Exception | None = None
    try:
        outcome = provisioning.provision(Path(args.source), Path(args.dir), owner=_owner(args.owner), rate_of=rate_of)
    except Exception as e:  # noqa: BLE001  # also what nobody foresaw: it is raised again once the screen says it
        outcome, error = ProvisionOutcome.failed(e), e
    for place, write in ((args.report, provisioning.write_report), (args.issue, provisioning.write_issue)):
        try:
            if place:
                write(Path(place), outcome)
        except (ModelWireError, OSError) as e:  # the other place may still take it, and an error before this one matters more
            error = error or e
    if error is not None:
        raise error
    return Answer(outcome.document(), lines_of(outcome.lines()))


def _owner(name: str | None) -> tuple[int, int] | None:
    if name is None:
        return None
    try:
        return pwd.getpwnam(name).pw_uid, grp.getgrnam(name).gr_gid
    except KeyError:
        raise BadArgument(reason=f"there is no user and group {name!r} here", fix="leave --owner out, or name one that is there") from None
