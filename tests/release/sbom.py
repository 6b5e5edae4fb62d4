"""Writes what a deployment is made of as CycloneDX JSON: the wheel, the C in it, and each pinned release with license and dependencies.

    python -m tests.release.sbom --constraints edge-litert --wheel dist/edgeagent-0.1.0-*.whl --site .../site-packages --at 1764547200

The same inputs give the same bytes: the serial number follows from the content, the time is the commit's. Read against CycloneDX's own
schema before it is written. Needs `cyclonedx-python-lib[json-validation]` and `packaging` (the extra `release`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import uuid
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement

from tests.house.pages import ROOT
from tests.release import facts
from tests.release.constraints import DEPLOYMENTS, Deployment, Pin, of_name, pins, requirements, worlds

NAME = uuid.UUID("6f1f7d0e-3c51-5d0b-9a39-0f2c1a1f5e16")  # the name space of our bills


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.release.sbom", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--constraints", choices=[one.name for one in DEPLOYMENTS], required=True, help="whose file of pins")
    parser.add_argument("--wheel", type=Path, required=True, help="what is released")
    parser.add_argument("--site", type=Path, required=True, help="where the pinned releases are installed, for their licenses")
    parser.add_argument("--at", type=int, required=True, help="seconds since 1970: the commit's time")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    args = parser.parse_args(arguments)
    (deployment,) = (one for one in DEPLOYMENTS if one.name == args.constraints)
    text = bill(deployment, args.wheel, args.site, args.at)
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        print(f"{args.constraints}: this is no CycloneDX: {wrong}", file=sys.stderr)
        return 1
    args.out.write_text(text)
    print(f"{args.out.name}: {len(json.loads(text)['components'])} components")
    return 0


def bill(deployment: Deployment, wheel: Path, site: Path, at: int) -> str:
    """Return the bill of materials as CycloneDX 1.6 JSON."""
    installed = {_plain(one.metadata["Name"]): one for one in distributions(path=[str(site)])}
    pinned = pins(deployment.path)
    released = _released(deployment, wheel)
    parts = {pin: _component(pin, installed.get(pin.name)) for pin in pinned}
    kernels = _kernels()
    bom = Bom(components=[*parts.values(), kernels])
    bom.metadata.timestamp = datetime.fromtimestamp(at, timezone.utc)
    bom.metadata.component = released
    by_name = of_name(pinned)
    asked = _asked(requirements(*deployment.extras), deployment)
    bom.register_dependency(released, [kernels, *(parts[pin] for name in asked for pin in by_name.get(name, ()))])
    for pin, part in parts.items():
        dist = installed.get(pin.name)
        needs = _asked(dist.requires or [], deployment) if dist is not None else ()
        bom.register_dependency(part, [parts[other] for name in needs for other in by_name.get(name, ())])
    bom.serial_number = uuid.UUID(int=0)
    bom.serial_number = uuid.uuid5(NAME, JsonV1Dot6(bom).output_as_string(indent=1))
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _released(deployment: Deployment, wheel: Path) -> Component:
    return Component(
        name=f"edgeagent[{','.join(deployment.extras)}]", version=facts.version(), type=ComponentType.APPLICATION, bom_ref="edgeagent",
        licenses=[LicenseFactory().make_from_string("Apache-2.0")], purl=PackageURL("pypi", None, "edgeagent", facts.version()),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(wheel.read_bytes()).hexdigest())],
        properties=[
            Property(name="edgeagent:wheel", value=wheel.name),
            Property(name="edgeagent:constraints", value=f"{deployment.name}.txt"),
            Property(name="edgeagent:constraints:sha256", value=hashlib.sha256(deployment.path.read_bytes()).hexdigest()),
        ],
    )  # fmt: skip


def _kernels() -> Component:
    """Return the C that is compiled into the wheel: all of it is ours, and nothing of others is copied in."""
    sources = sorted(path for path in (ROOT / "csrc").glob("*.[ch]"))
    whole = hashlib.sha256(b"".join(path.name.encode() + b"\0" + path.read_bytes() for path in sources)).hexdigest()
    return Component(
        name="modelwire-kernels", version=facts.version(), type=ComponentType.LIBRARY, bom_ref="csrc",
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
        properties=[
            Property(name="edgeagent:sources", value=f"csrc: {len(sources)} files"),
            Property(name="edgeagent:sources:sha256", value=whole),
        ],
    )  # fmt: skip


def _component(pin: Pin, dist: Distribution | None) -> Component:
    """Return one pinned release. dist: that which is installed here of its name, perhaps in the version for this Python."""
    said = [Property(name="edgeagent:where", value=pin.marker)] if pin.marker else []
    said += [Property(name="edgeagent:file:sha256", value=digest) for digest in pin.hashes]
    url = PackageURL("pypi", None, pin.name, pin.version)
    return Component(
        name=pin.name, version=pin.version, type=ComponentType.LIBRARY, bom_ref=url.to_string(), purl=url, properties=said,
        licenses=[_license(dist)] if dist is not None and _license_text(dist) else [],
    )  # fmt: skip


def _license(dist: Distribution) -> License:
    return LicenseFactory().make_from_string(_license_text(dist), license_acknowledgement=LicenseAcknowledgement.DECLARED)


def _license_text(dist: Distribution) -> str:
    """Return what a release says of its license: the expression, else a short old field, else its classifiers."""
    old = str(dist.metadata.get("License") or "")
    classifiers = [str(line) for line in dist.metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    named = sorted(line.rpartition(" :: ")[2] for line in classifiers)
    return str(dist.metadata.get("License-Expression") or (old if 0 < len(old) < 60 and "\n" not in old else " / ".join(named)))


def _asked(lines: Sequence[str], deployment: Deployment) -> list[str]:
    """Return the names of those requirements that hold on some Python and processor of a deployment, each once."""
    there = worlds(deployment)
    return sorted({_plain(one.name) for one in map(Requirement, lines) if not one.marker or any(map(one.marker.evaluate, there))})


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    raise SystemExit(main())
