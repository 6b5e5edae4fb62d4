"""Where a broker is and how it wants to be spoken to: its URL, and TLS to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files for TLS: the ones that sign the broker's, where the system's don't; and one's own certificate with its private key."""

    ca: Path | None = None
    own: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return what TLS goes by. Raises OSError for files that can't be used."""
        import ssl  # a plain link never loads it

        context = ssl.create_default_context(cafile=self.ca)
        if self.own is not None:
            context.load_cert_chain(self.own, self.key)
        return context


NO_CERTIFICATES = Certificates()


@dataclass(frozen=True, slots=True)
class Broker:
    """What a broker's URL says, and the certificates for it."""

    host: str
    port: int
    user: str = ""
    password: str = ""
    tls: bool = False
    certificates: Certificates = NO_CERTIFICATES

    @property
    def url(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


def parse_url(url: str) -> Broker | None:
    """Return the broker of mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT]; None for another URL. Raises ValueError for what is no URL at all."""
    parts = urlsplit(url)
    tls, port = parts.scheme == "mqtts", parts.port
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/") or parts.query:
        return None
    return Broker(parts.hostname, port or (8883 if tls else 1883), unquote(parts.username or ""), unquote(parts.password or ""), tls)
