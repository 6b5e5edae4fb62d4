"""What the trust around the bytes promises: every row of the threat model, edits and flips of a registry, claims, keys, the broker."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path

from edgecloud import cli
from tests.edgecloud.audit import edits, page_flips
from tests.edgecloud.centre import Centre, admit, make_registry, revoke
from tests.edgecloud.device import Base, ScriptedDevice, key_of
from tests.evidence.claims import claim_admitted
from tests.system import bit_flips, deliveries, last_model, lying
from tests.threats.__main__ import Case, run, verdict
from tests.threats.table import ROOT, threats

Figures = dict[str, int | float | str]
SECOND_ROUND = "tests/attacks"
ROTATIONS = "tests/system/test_rotation.py"
FLIPS, FLIPS_FULL = 210, 5000


def measure(full: bool) -> Figures:
    """Return the figures. full: more flips, and a board that gets its last models back while all is killed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = _registry(folder, FLIPS_FULL if full else FLIPS)
        (folder / "claims").mkdir()
        figures["claim_admitted"] = claim_admitted(folder / "claims")
        for part in ("broker", "last"):
            (folder / part).mkdir()
        figures |= deliveries.measure(folder / "broker").figures()
        figures |= lying.figures(folder / "lying", seeds=range(1, 14) if full else range(1, 3))
        if full:
            back = last_model.measure(folder / "last")
            figures["last_models_back_to_the_bit"] = int(back.to_the_bit and back.exact)
    flips = [bit_flips.taken(what, read) for _, what, read in bit_flips.signed()]
    figures |= {"signed_messages_flipped_bit_by_bit": len(flips), "flipped_messages_taken": sum(flips)}
    return _table() | figures


def _table() -> Figures:
    """Run every row of the threat model and the second round of attacks, and count cases."""
    rows = threats()
    wanted = [str(test) for row in rows for test in row.tests if test.is_there]
    extra = [SECOND_ROUND] if (ROOT / SECOND_ROUND).exists() else []
    with contextlib.redirect_stdout(sys.stderr):
        cases = run([*wanted, *extra], jobs=2)
    counted = [case for case in cases if case.came != "skipped"]
    words = [verdict(row, cases)[0] for row in rows]
    return {
        "attacks_total": len(counted), "attacks_held": sum(case.came == "passed" for case in counted),
        "attacks_of_the_second_round": _of(counted, SECOND_ROUND), "rotations": _of(counted, ROTATIONS),
        "threats": len(rows), "threats_held": words.count("held"), "threats_without_test": sum(row.untested for row in rows),
    }  # fmt: skip


def _of(cases: list[Case], where: str) -> int:
    return sum(case.came == "passed" for case in cases if case.file.startswith(where))


def _registry(folder: Path, flips: int) -> Figures:
    """Edit and damage a registry with a history, and count what verify makes of it."""
    path = folder / "fleet.db"
    store = make_registry(path, base := Base.of())
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    for number in range(1, 13):
        centre.deliver(device, device.snapshot() if number == 5 else device.train(**({"fingerprint": (1, 2)} if number == 9 else {})))
        if number == 9:
            centre.rebuild()
            centre.deliver(device, device.snapshot(centre.said()[-1].good))  # type: ignore[attr-defined]
    centre.rebuild()
    admit(store, "pi-8", key_of("pi-8").public, 70)
    revoke(store, "pi-8", 80)
    centre.take(device.presence(True, 1))
    store.database.run("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    whole = path.read_bytes()
    named = 0
    for one in edits.EDITS:
        copy = folder / "edited.db"
        for end in ("", "-wal", "-shm"):
            copy.with_name(copy.name + end).unlink(missing_ok=True)
        copy.write_bytes(whole)
        edits.edit(copy, one)
        code, said = _verify(copy)
        named += code == 56 and one.told in said
    found = page_flips.flip(whole, folder / "flipped.db", _verify, count=flips, seed=7)
    return {
        "registry_edits": len(edits.EDITS), "registry_edits_named": named, "page_flips": found.tried, "page_flips_named": found.named,
        "page_flips_false_exact": found.false_exact, "page_flips_tracebacks": found.tracebacks,
    }  # fmt: skip


def _verify(path: Path) -> tuple[int, str]:
    """Run edgecloud verify on a registry. What escapes it counts as a traceback."""
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = cli.main(["verify", "--all", "--db", str(path)])
    except Exception as error:  # noqa: BLE001 - counted
        return 1, f"Traceback: {error}"
    return code, out.getvalue()
