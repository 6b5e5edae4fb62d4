"""All that the log holds of one device, for who has to judge it later: who let it in, what it published, and what came of that."""

from __future__ import annotations

from collections.abc import Iterator

from edgecloud.registry import LineageRow, Store, VersionRow
from modelwire.errors import ModelWireError, UnknownVersion
from modelwire.wire import cbor

from .exporting_log import Shown, log_lines
from .making import header_bytes
from .verifier.encoding import plain, to_line
from .verifier.evidence import EVIDENCE, LOST
from .verifier.headers import facts_of, read_headers


def evidence_lines(store: Store, device: str) -> Iterator[str]:
    """Yield the evidence on a device, a line of JSON each; the verifier checks it against the signed end of the log.

    Raises UnknownVersion for a device that nothing is known of, BadArgument while the log is unsigned.
    """
    lineages = store.lineages.of(device)
    if not lineages and not store.devices.keys(device):
        raise UnknownVersion(name=device)
    versions = [(lineage, version) for lineage in lineages for version in store.versions.of(lineage.id)]
    yield to_line({"format": EVIDENCE, "device": device, "fleet": store.identity.id.hex()})
    yield from log_lines(store, Shown(device, {version.commit for _, version in versions}, decided=True))
    for lineage, version in versions:
        yield _version(store, lineage, version)


def _version(store: Store, lineage: LineageRow, version: VersionRow) -> str:
    try:
        proof = header_bytes(store, lineage, version)
    except ModelWireError:
        return to_line({"lost": version.commit.hex(), "says": f"{lineage}@{version.version}: {LOST}"})
    (header,) = read_headers(proof)
    figures = cbor.decode(version.extension, f"the extension of {lineage}@{version.version}") if version.extension else {}
    return to_line({"header": proof.hex(), "extension": version.extension.hex(), "says": {**facts_of(header), "figures": plain(figures)}})
