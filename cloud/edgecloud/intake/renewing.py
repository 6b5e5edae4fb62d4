"""A board's newer certificate for the broker: its welcome brings it, when the CA's folder has another one than the board says it has."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from edgecommon.certificates import chain_bytes, first_bytes, read_file
from modelwire.errors import MissingFile, ModelWireError
from modelwire.wire import cbor, renewal
from modelwire.wire.records import Hello

log = logging.getLogger("edgecloud.ingest")


def newer(folder: Path | None, said: Hello) -> dict[str, cbor.Value]:
    """Return what a welcome says of the certificate of a device that is let in; nothing where it has the one that is there.

    The board judges it: it takes none but its own, for its own key, by its own CA, that is good for longer.
    """
    has = renewal.held(said.more)
    if folder is None or not has:
        return {}
    path = folder / f"{said.device}.pem"  # a device's name leads nowhere else
    try:
        data = read_file(path, "the certificate")
        if hashlib.sha256(first_bytes(data, str(path))).digest() == has:
            return {}
        chain = chain_bytes(data, str(path))
    except MissingFile:
        return {}
    except ModelWireError as error:
        log.warning("%s", error)
        return {}
    return {renewal.KEY: chain} if len(chain) <= renewal.CHAIN_MAX else {}
