"""This device's certificate for the broker, as the link minds it: which files it is, how long it is good, what to say when it ends."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeagent.settings.tree import LinkSettings
from edgecommon import files
from edgecommon.certificates import Life, as_pem, first_bytes, life_of, read_file
from modelwire.errors import ModelWireError
from modelwire.wire import cbor, renewal

RENEW = "on the centre: edgecloud ca renew; then here: edgeagent certificate install FILE"


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """This device's certificate in its talk with the centre: each hello says which one it has, and a welcome may bring a newer one."""

    settings: LinkSettings
    folder: Path  # where relative paths of the settings start
    device: str

    def said(self) -> dict[str, cbor.Value]:
        """Return what a hello says of it; nothing where there is none."""
        data = self._held()
        return {renewal.KEY: hashlib.sha256(first_bytes(data)).digest()} if data else {}

    def take(self, more: Mapping[str, cbor.Value], now: float) -> str:
        """Put what a welcome brought in place if it is this device's, and good for longer; return what to log, or nothing.

        The agent goes by it from its next connection on. Raises ModelWireError when it is not this device's; nothing was changed.
        """
        brought, data = renewal.brought(more), self._held()
        if not brought or not data:
            return ""
        from . import installing  # loads `cryptography`, which an agent does without until then

        text = as_pem(brought)
        bundle = read_file(self.folder / self.settings.tls_ca, "the certificates of the CA")
        key = self.folder / self.settings.tls_key
        life = installing.checked(text, bundle, self.device, key, "the certificate that the centre sent", now)
        if life.until <= life_of(data).until:
            return ""
        files.write_named(self.folder / self.settings.tls_cert, text)
        return f"the certificate {self.settings.tls_cert} was renewed, and {life.told(now)}"

    def _held(self) -> bytes:
        """Return the file, where there is a whole one that settings name with all that belongs to it."""
        link = self.settings
        if not (link.tls_cert and link.tls_key and link.tls_ca and link.broker.startswith("mqtts:")):
            return b""
        try:
            data = read_file(self.folder / link.tls_cert, "this device's certificate")
            life_of(data)
        except ModelWireError:
            return b""
        return data


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
