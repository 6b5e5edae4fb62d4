"""Where this board's broker is, and what it is shown there: a user and a password out of a file, and the files for TLS."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeagent.settings.reading import check_broker
from edgeagent.settings.tree import LinkSettings
from edgecommon import files
from edgecommon.broker import Broker, Certificates, parse_url, redacted
from modelwire.errors import BadArgument, ConfigError, MissingFile

if TYPE_CHECKING:
    import ssl


def parse_broker(url: str) -> Broker:
    """Return the broker of mqtt://HOST[:PORT] or mqtts://HOST[:PORT]. Raises ConfigError, which never says a password."""
    check_broker(url)
    try:
        broker = parse_url(url)
    except ValueError:  # what it says may quote the URL
        broker = None
    if broker is None or broker.user:  # the user is a setting of its own
        raise ConfigError(reason=f"link.broker: {redacted(url)!r} is not mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
    return broker


def described(settings: LinkSettings, folder: Path, password: str | None) -> Broker:
    """Return the broker with all that a login says and shows."""
    return replace(parse_broker(settings.broker), user=settings.user, password=password or "", certificates=_files(settings, folder))


def password_of(folder: Path, settings: LinkSettings) -> str | None:
    """Return the password for the broker, None where settings name no file. Raises MissingFile, BadArgument or ConfigError."""
    if not settings.password_file:
        return None
    path = folder / settings.password_file
    try:
        return files.read_password(path)
    except FileNotFoundError:
        raise MissingFile(path=path, what="the broker's password file") from None
    except files.NotPrivateError as e:
        raise BadArgument(reason=f"link.password_file: {e}", fix=e.fix) from None
    except OSError as e:
        raise ConfigError(reason=f"link.password_file: {path}: {e.strerror}") from None


def tls_of(folder: Path, settings: LinkSettings) -> ssl.SSLContext:
    """Return what TLS to the broker goes by. Raises BadArgument or ConfigError for files that can't be used."""
    # Called before there is a client: paho's thread must not be the first to need ssl.
    given = _files(settings, folder)
    try:
        if given.own is not None:
            files.require_closed(given.key or given.own)
        return given.context()
    except files.NotPrivateError as e:
        raise BadArgument(reason=f"link.tls_key: {e}", fix=e.fix) from None
    except FileNotFoundError as e:
        named = {given.ca: "link.tls_ca", given.own: "link.tls_cert", given.key: "link.tls_key"}
        path = Path(os.fsdecode(e.filename or ""))
        raise MissingFile(path=path, what=f"the file of {named.get(path, 'link.tls_ca, link.tls_cert or link.tls_key')}") from None
    except OSError as e:
        raise ConfigError(reason=f"link.tls_ca, link.tls_cert or link.tls_key: {e}") from None


def _files(settings: LinkSettings, folder: Path) -> Certificates:
    return Certificates(*(folder / name if name else None for name in (settings.tls_ca, settings.tls_cert, settings.tls_key)))
