"""Write one file for each telling attack, its expected error in its name. Files are only ever added.

    python -m tests.hostile.make_attacks

All but the first few are sealed with the device's own valid key, as a device gone bad would. They are to be tried on the base of
tests/vectors/wire-1/updates, which is what the victim of mutations.py is.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from .mutations import Attack, attacks, flip, opened, victim

FOLDER = Path(__file__).parent / "attacks"
TELLING = (
    "magic after text-mode transfer",
    "wire version 2",
    "a critical key b'!later' in the extension",
    "a device called all",
    "crc32c is 0xffffffff",
    "header length 4294967295",
    "extension length 2147483648",
    "4294967295 sections",
    "4096 sections that are not there",
    "total length 4294967295",
    "device name of 255 bytes said",
    "stream cut by 7",
    "stream gone",
    "stream longer by 1 of 00",
    "stream longer by 3000 of 55",
    "stream of ones",
    "stream reversed",
    "a delta that says it is a snapshot",
    "a snapshot that says it is a delta",
    "digest algorithm 2",
    "epoch 0",
    "version 9223372036854775808",
    "device name b'../a'",
    "model name b'#'",
    "another schema by one bit",
    "snapshot on base 00",
    "root ff",
    "fingerprint byte 7",
    "snapshot's fingerprint byte 15",
    "extension 8: 818181818181",
    "extension 9: a161619bffff",
    "extension of 10,000 items",
    "codec 255",
    "step mantissa 254",
    "step shift 23",
    "unit 2^127",
    "delta in unit 2^-96",
    "verbatim tensor with a step",
    "tensor 65535",
    "the same tensor twice",
    "a section without content",
    "count off by 1",
    "bomb: 4294967295 entries in a short stream",
    "the largest values there are",
    "signalling NaN in a verbatim tensor",
)
SAID_BETTER = {  # where the list names an attack by its bytes
    "a critical key b'!later' in the extension": "a critical key in the extension",
    "device name b'../a'": "a device name that climbs out of its folder",
    "model name b'#'": "a model name that is a wildcard",
    "extension 8: 818181818181": "extension nested 2000 deep",
    "extension 9: a161619bffff": "extension with a list of 2^64 items",
    "unit 2^127": "unit of 2 to the 127",
    "delta in unit 2^-96": "delta in another unit than its parent",
    "snapshot's fingerprint byte 15": "fingerprint byte 15 of a snapshot",
}


def containers() -> dict[str, bytes]:
    """Return every attack as its file's name and content."""
    parent, delta, snapshot = victim()
    known = np.fromfile(Path(__file__).parents[1] / "vectors" / "wire-1" / "updates" / "base.bin", np.float32)
    assert np.concatenate(parent.weights).tobytes() == known.tobytes(), "the victim's base is not the golden vectors' any more"
    by_name = {a.name: a for a in attacks()}
    out = {
        "a bit of the body changed.DigestMismatch": flip(delta, 200),
        "a bit of the commit changed.DigestMismatch": flip(delta, len(delta) - 96),
        "a bit of the signature changed.BadSignature": flip(delta, len(delta) - 1),
        "its first 257 bytes alone.Malformed": delta[:257],
    }
    for attack in (by_name[name] for name in TELLING):
        data = attack.change(opened(snapshot if attack.snapshot else delta)).resealed()
        out[f"{SAID_BETTER.get(attack.name, attack.name)}.{error_of(attack, data)}"] = data
    return {f"{slug(name)}.bin": data for name, data in out.items()}


def error_of(attack: Attack, data: bytes) -> str:
    """Return the name of the error; where the list only says that the wire refuses it, the one that it met when first made."""
    from .test_attacks import refusal

    return attack.expected.__name__ if attack.expected.__name__ != "WireError" else type(refusal(data)).__name__


def slug(name: str) -> str:
    """Return a file's name: small letters, digits and hyphens, but for the error after the last point."""
    what, _, error = name.rpartition(".")
    return re.sub(r"[^a-z0-9]+", "-", what.lower()).strip("-") + "." + error


def main() -> None:
    """Write every attack that is not there yet, under any error."""
    FOLDER.mkdir(exist_ok=True)
    there = {f.name.split(".")[0] for f in FOLDER.glob("*.bin")}
    for name, data in containers().items():
        if name.split(".")[0] not in there:
            (FOLDER / name).write_bytes(data)
            print(name)


if __name__ == "__main__":
    main()
