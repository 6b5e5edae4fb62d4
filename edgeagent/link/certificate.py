"""This device's certificate for the broker, as the link minds it: which files it is, how long it is good, what to say when it ends."""

from __future__ import annotations

from pathlib import Path

from edgeagent.settings.tree import LinkSettings
from edgecommon.certificates import Life, life_of, read_file
from modelwire.errors import ModelWireError

RENEW = "on the centre: edgecloud ca renew; then here: edgeagent certificate install FILE"


def stamp(settings: LinkSettings, folder: Path) -> tuple[tuple[int, int], ...]:
    """Return what changes when one of the files for TLS is replaced."""
    out = []
    for name in (settings.tls_ca, settings.tls_cert, settings.tls_key):
        try:
            at = (folder / name).stat() if name else None
        except OSError:
            at = None
        out.append((at.st_ino, at.st_mtime_ns) if at is not None else (0, 0))
    return tuple(out)


def own_life(settings: LinkSettings, folder: Path) -> Life | None:
    """Return how long this device's certificate is good, None when its settings name none. Raises ModelWireError."""
    if not settings.tls_cert or not settings.broker.startswith("mqtts:"):
        return None
    path = folder / settings.tls_cert
    return life_of(read_file(path, "this device's certificate"), str(path))


def trouble(settings: LinkSettings, folder: Path, now: float) -> str:
    """Return what a lost link's reason is to go on with when the certificate is not good now; else nothing."""
    try:
        life = own_life(settings, folder)
    except ModelWireError as error:
        return f"; {error.message}"
    if life is None or life.word(now) in ("good", "due"):
        return ""
    return f"; the certificate {settings.tls_cert} {life.told(now)}: {RENEW}"


def due(settings: LinkSettings, folder: Path, now: float) -> str:
    """Return what to say of a certificate that still holds and is past two thirds of its life; else nothing."""
    try:
        life = own_life(settings, folder)
    except ModelWireError:
        return ""  # it was taken by the broker just now
    return f"the certificate {settings.tls_cert} {life.told(now)}: {RENEW}" if life is not None and life.word(now) == "due" else ""
