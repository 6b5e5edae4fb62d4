"""All that the centre's log holds of one device, and the program itself."""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .encoding import NotProven, fail, from_hex, from_line, map_of, plain, read_fleet, same_line, sha, to_line, unzipped, visible
from .headers import facts_of, read_headers, signer_of
from .logs import ReadLog, read_log
from .proofs import check_proof

EVIDENCE, LOST = "edge evidence 1", "the centre no longer holds its header"
# What a damaged file comes to wherever it is read: no number, no such entry, no text.
DAMAGED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, struct.error)
USAGE = """Check what `edgecloud prove` and `edgecloud evidence` wrote, from the fleet's public key alone.
Exit code 0: proven, and what is printed is what is proven. 1: not proven. 2: a file or the command line can't be used."""


def check_evidence(text: str, fleet: bytes) -> dict[str, Any]:
    """Return what the evidence on a device proves. Raises NotProven."""
    lines = text.split("\n")
    if lines[-1] or len(lines) < 3:
        fail("the evidence", "it is cut off")
    first = from_line(lines[0], "line 1")
    if first.get("format") != EVIDENCE:
        fail("line 1, format", f"{str(first.get('format'))[:40]!r} is of another release; this program reads {EVIDENCE!r}")
    device = str(first.get("device"))
    same_line(lines[0], {"format": EVIDENCE, "device": device, "fleet": fleet[32:].hex()}, "line 1, of another fleet than fleet.pub?")
    log, taken = read_log(lines[1:], fleet, device, "the log")
    told: dict[bytes, dict[str, Any]] = {}
    for n, line in enumerate(lines[taken + 1 : -1], taken + 2):
        commit, figures = take_version(line, log, f"line {n}")
        if commit in told:
            fail(f"line {n}", "its version is there twice")
        told[commit] = figures
    for commit, seen in log.heads.items():
        if commit not in told:
            fail("the evidence", f"it does not hold {device}/{seen.model}@{seen.version}, which entry {seen.entry} of its log enters")
    return {"format": EVIDENCE, "device": device, "fleet": fleet[32:].hex(), "versions": len(told), "says": _says(log, told)}


def take_version(text: str, log: ReadLog, what: str) -> tuple[bytes, dict[str, Any]]:
    """Return the commit of the update that a line tells of, and what its device said beside it: its figures."""
    line = from_line(text, what)
    if line.keys() == {"lost", "says"}:
        commit = from_hex(line["lost"], what)
        seen = log.heads.get(commit) or fail(what, "the log enters no such update")
        same_line(text, {"lost": commit.hex(), "says": f"{log.device}/{seen.model}@{seen.version}: {LOST}"}, what)
        return commit, {LOST: True}
    proof, extension = from_hex(line.get("header"), what), from_hex(line.get("extension"), what)
    header, *more = read_headers(proof)
    signer_of(header, log)
    if more or sha(extension) != header.extension:
        fail(what, "it has more than one header, or figures that its device has not signed")
    figures = map_of(extension, what) if extension else {}
    says = {**facts_of(header), "figures": plain(figures)}
    same_line(text, {"header": proof.hex(), "extension": extension.hex(), "says": says}, what)
    return header.commit, figures


def _says(log: ReadLog, told: dict[bytes, dict[str, Any]]) -> list[str]:
    verdicts, lost = [log.verdicts.get(commit) for commit in told], sum(LOST in figures for figures in told.values())
    return [
        f"The log of the fleet {log.fleet[32:].hex()} enters {len(log.heads)} updates of the device {log.device}; of "
        f"{len(told) - lost} the header is here, signed by a key that spoke for the device then, of {lost} it is lost.",
        f"Keys let in: {len(log.admitted)}; revoked: {len(log.revoked)}.",
        f"The log shows that the centre rebuilt {verdicts.count(True)} and found them equal, refused {verdicts.count(False)}, "
        "and of the others shows no verdict.",
        f"Figures of before and after, as the device signed them: {sum('loss_after' in figures for figures in told.values())}.",
        *log.limits(),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check one file and print what it proves."""
    parser = argparse.ArgumentParser(prog="verify_proof.py", description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="proof.zip, or the evidence on a device")
    parser.add_argument("--fleet", type=Path, required=True, metavar="FILE", help="fleet.pub, from whom you trust: not from the proof")
    parser.add_argument("--name", metavar="DEVICE/MODEL@VERSION", help="what it must be the proof of (evidence: the DEVICE)")
    parser.add_argument("--header-alone", action="store_true", help="take a proof that holds no weights")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the proven model or tensor here")
    parser.add_argument("--json", action="store_true", help="print what is proven as JSON")
    args = parser.parse_args(arguments)
    try:
        data = args.file.read_bytes()
    except OSError as error:
        return _unusable(args.file, "read", error)
    try:
        fleet = read_fleet(args.fleet.read_text("utf-8"))
    except (OSError, ValueError, NotProven) as error:
        return _unusable(args.fleet, "read as the fleet's public key", error)
    try:
        facts = check(data, fleet, args.name, header_alone=args.header_alone)
    except NotProven as error:
        print(f"NOT PROVEN. {visible(str(error))}", file=sys.stderr)
        return 1
    if args.out is not None:
        files = {} if facts["format"] == EVIDENCE else unzipped(data)
        held = [content for name, content in files.items() if name == "model.tflite" or (name[:6] == "tensor" and name[-4:] == ".bin")]
        if not held:
            print("it holds nothing to write", file=sys.stderr)
            return 2
        try:
            args.out.write_bytes(held[0])
        except OSError as error:
            return _unusable(args.out, "written, though the proof is good", error)
    print(to_line(facts) if args.json else "\n".join(["PROVEN.", *map(visible, facts["says"])]))
    return 0


def _unusable(path: Path, how: str, error: Exception) -> int:
    print(f"{visible(str(path))} can't be {how}: {visible(str(error))}", file=sys.stderr)
    return 2


def check(data: bytes, fleet: bytes, name: str | None = None, *, header_alone: bool = False) -> dict[str, Any]:
    """Return what a proof or the evidence on a device proves. name: what it must be of. Raises NotProven."""
    try:
        is_proof = data[:2] == b"PK"
        facts = check_proof(data, fleet, header_alone=header_alone) if is_proof else check_evidence(data.decode("ascii"), fleet)
    except DAMAGED as error:
        raise NotProven(f"the file: it is damaged: {type(error).__name__}: {str(error)[:200]}") from None
    if name is not None and name != facts.get("name", facts.get("device")):
        fail("name", f"it is of {facts.get('name', facts.get('device'))}, and not of {name}")
    return facts


if __name__ == "__main__":
    sys.exit(main())
