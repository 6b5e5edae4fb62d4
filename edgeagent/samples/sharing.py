"""Who may append to a spool: its owner, and one group where one is named. Nothing else of a device's folder is opened to others here."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from modelwire.errors import BadArgument, StateDamaged

from .spool_tables import FOLDER

FILE_MODE = 0o660
# What is made there is the folder's group's. Not sticky: Debian sets fs.protected_regular = 2, by which nobody opens for writing in a
# sticky folder what another user than its owner made there: an application that was killed would leave a -wal that stops the agent.
FOLDER_MODE = 0o2770
STATE_MODE = 0o710  # a named group passes through to its own folder, and does not even list the rest


def group_of(name: str) -> int:
    """Return the number of a group. Raises BadArgument for one that there is not, or that this user can't give a file to."""
    import grp  # for who sets a board up
    import shlex

    try:
        group = grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise BadArgument(reason=f"there is no group {name!r} on this machine", fix=f"groupadd {shlex.quote(name)}") from None
    if os.geteuid() != 0 and group not in {os.getegid(), *os.getgroups()}:
        fix = f"usermod -aG {shlex.quote(name)} for the agent's user, log in again, and run this as that one"
        raise BadArgument(reason=f"this user is not of the group {name}, and can give it no file", fix=fix)
    return group


def unstick(folder: Path) -> None:
    """Take the sticky bit from a spool's folder that an earlier release made. Another's folder stays as it is."""
    with suppress(OSError):
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & stat.S_ISVTX:
            folder.chmod(mode & ~stat.S_ISVTX)


def require_own_file(file: Path) -> None:
    """Raise StateDamaged for a spool that is no file of its own: who may write to the folder could lead the agent to another one."""
    try:
        found = file.lstat()
    except FileNotFoundError:
        return  # said by who opens it
    if not stat.S_ISREG(found.st_mode):
        what = "it is a link, or no file at all, in the place of the spool"
        error = StateDamaged(path=file, reason=what, trouble="samples-replaced")
        error.hint = f"see who may write to {file.parent}, and remove it: the next start makes an empty spool"
        raise error


def shut(folder: Path) -> None:
    """Give a spool's folder and file the modes that they have from the start, whatever the umask. SQLite does the same beside the file."""
    for file in folder.iterdir():
        if os.geteuid() == 0:
            os.chown(file, folder.stat().st_uid, -1)
        file.chmod(FILE_MODE)
    if stat.S_IMODE(folder.stat().st_mode) == FOLDER_MODE:
        return
    try:
        folder.chmod(FOLDER_MODE)
    except PermissionError:  # a service that may make nothing setgid (RestrictSUIDSGID of its unit): the folder passes no group on
        folder.chmod(FOLDER_MODE & ~stat.S_ISGID)


def folder_of(state: Path) -> Path:
    """Return the folder in a state folder that a group may write to."""
    return state / FOLDER


def share(state: Path, settings: Path, group: int) -> None:
    """Let a group append to the spool, pass through the state folder, and read the settings, which hold no secret."""
    folder = folder_of(state)
    for path in (*folder.iterdir(), folder, state, settings):
        os.chown(path, -1, group)
    shut(folder)  # after chown, which takes the special bits away
    state.chmod(STATE_MODE)
    settings.chmod(stat.S_IMODE(settings.stat().st_mode) | stat.S_IRGRP)


def barred(state: Path, group: int) -> list[Path]:
    """Return the folders above a state folder through which a group can't pass, the uppermost first."""
    found = []
    for folder in reversed(state.resolve().parents):
        at = folder.stat()
        if not at.st_mode & (stat.S_IXGRP if at.st_gid == group else stat.S_IXOTH):
            found.append(folder)
    return found


def require_may_write(file: Path) -> None:
    """Raise BadArgument for another user than the spool's who is not of its group: SQLite would say no more than that it is read-only."""
    may = os.access(file.parent, os.W_OK) and os.access(file, os.W_OK)
    if not may and file.stat().st_uid != os.geteuid():
        fix = f"let this user be of the folder's group, which ls -ld {file.parent} shows; or run this as the agent's user"
        raise BadArgument(reason=f"{file} may not be written by this user", fix=fix)
