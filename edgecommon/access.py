"""Who may see a file and who may not, said with its owner's name: whoever asks from outside is told whom to ask."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from modelwire.errors import ConfigError


def me() -> str:
    """Return the name of the user of this process, or its number where it has none."""
    return name_of(os.geteuid())


def name_of(user: int) -> str:
    """Return a user's name, or the number where it has none."""
    import pwd  # for those who are shut out

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def shut(path: Path) -> tuple[str, str]:
    """Return why this process may not read or write `path`, and its owner's name; ("", "") when nothing of the modes is against it."""
    at = Path(os.path.abspath(path))
    for folder in [*reversed(at.parents), at]:
        try:
            found = os.stat(folder)
        except OSError:  # it is not there, or the folder around it was named already
            return "", ""
        passes = os.access(folder, os.X_OK if folder != at else os.R_OK | os.W_OK, effective_ids=True)
        if not passes and not os.statvfs(folder).f_flag & os.ST_RDONLY:
            return _said(folder, found), name_of(found.st_uid)
        if not passes and not os.access(folder, os.R_OK, effective_ids=True):
            return _said(folder, found), name_of(found.st_uid)
    return "", ""


def denied(path: Path, reason: str) -> ConfigError:
    """Return the error of one who may not: whose the file is, and the user who may."""
    why, owner = shut(path)
    asked = f"give the same command as {owner}: sudo {'' if owner == 'root' else f'-u {owner} '}..."
    import shlex  # for those who are shut out

    fix = asked if owner and owner != me() else f"see whose it is: ls -ld {shlex.quote(str(path))}"
    return ConfigError(reason=f"{path}: {reason}" + (f": {why}" if why else ""), fix=fix)


def _said(path: Path, found: os.stat_result) -> str:
    return f"{path} is {name_of(found.st_uid)}'s (mode {stat.S_IMODE(found.st_mode):o}), and this is {me()}"
