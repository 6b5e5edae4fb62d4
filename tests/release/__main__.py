"""`make release`: builds what would be published, installs it where nothing of the tree is, and runs it.

    python -m tests.release [--out dist] [--advisories-unasked]

Needs a clean clone, a package index and a service that knows advisories. Ends at the first step that fails, and says which.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tests.house.pages import PROJECT, ROOT
from tests.release import facts, supply
from tests.release.place import NotReleasable, Place, empty, environment, install, nothing_of_the_tree, run, said_by


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the two archives are put when all holds (default: dist)")
    parser.add_argument("--advisories-unasked", action="store_true", help="release though nobody could be asked for known vulnerabilities")
    args = parser.parse_args(arguments)
    out: Path = args.out
    with tempfile.TemporaryDirectory(prefix="edgeagent-release-") as folder:
        place = Place(Path(folder), advisories=not args.advisories_unasked)
        for step in STEPS:
            began = time.monotonic()
            name = step.__name__.replace("_", " ")
            if sys.stdout.isatty():
                print(f"     {name} ...", end="\r", flush=True)
            try:
                said = step(place)
            except NotReleasable as error:
                print(f"FAIL {name}: {error}")
                return 1
            print(f"ok   {name:<24} {time.monotonic() - began:4.0f} s  {said}", flush=True)
        out.mkdir(exist_ok=True)
        for archive in (place.sdist, place.wheel, *sorted(place.bills.glob("*.json"))):
            shutil.copy2(archive, out)
            print(f"     {out / archive.name}  {archive.stat().st_size:,} bytes")
        (out / "SHA256SUMS").write_text(digests(place.sdist, place.wheel, *sorted(place.bills.glob("*.json"))))
    return 0


def a_clean_tree(place: Place) -> str:
    changed = run(["git", "status", "--porcelain"], ROOT).strip()
    if changed:
        raise NotReleasable(f"commit first, or remove:\n{changed}")
    commit = run(["git", "rev-parse", "--short", "HEAD"], ROOT).strip()
    archive = place.folder / "tree.tar"
    run(["git", "archive", "-o", str(archive), "HEAD"], ROOT)
    shutil.unpack_archive(archive, place.tree)
    return f"commit {commit}"


def one_version(place: Place) -> str:
    entry, date = facts.newest_entry()
    if entry != facts.version():
        raise NotReleasable(f"edgecommon says {facts.version()}, the newest entry of CHANGELOG.md {entry}")
    return f"{entry}, {date}" + (" (write the date into CHANGELOG.md before you tag)" if date == "unreleased" else "")


def both_archives(place: Place) -> str:
    tools = environment(place, "tools", PROJECT["project"]["optional-dependencies"]["release"])
    run([tools, "-m", "build", "--outdir", str(place.folder / "dist"), str(place.tree)], place.folder)  # the wheel from the archive
    run([tools, "-m", "twine", "check", "--strict", str(place.sdist), str(place.wheel)], place.folder)
    return f"{place.sdist.name}, {place.wheel.name}"


def what_they_hold(place: Place) -> str:
    sources = names_in(place.sdist) - facts.MADE
    if sources != facts.tracked():
        raise NotReleasable(f"the source distribution and git differ in {sorted(sources ^ facts.tracked())[:10]}")
    with zipfile.ZipFile(place.wheel) as wheel:
        names = set(wheel.namelist())
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        text = wheel.read(about).decode()
    files = {name for name in names if ".dist-info/" not in name}
    kernels = {name for name in files if re.fullmatch(r"kernel\.[\w.-]*so", Path(name).name)}
    if len(kernels) != 1 or files - kernels != facts.installed_files():
        raise NotReleasable(f"the wheel and the packages differ in {sorted((files - kernels) ^ facts.installed_files())[:10] or kernels}")
    for line in (f"Version: {facts.version()}", "License-Expression: Apache-2.0", "License-File: LICENSE", "License-File: NOTICE"):
        if f"\n{line}\n" not in text:
            raise NotReleasable(f"the wheel's metadata have no line {line!r}")
    missing = facts.hinted().keys() - set(re.findall(r"^Provides-Extra: (\S+)$", text, re.M))
    if missing:
        raise NotReleasable(f"a hint names extras that the wheel has not: {sorted(missing)}")
    return f"{len(sources)} files of git; the wheel {len(files)} and both licenses"


def the_wheel_alone(place: Place) -> str:
    """In an empty environment: what works without extras works, what does not says the line that mends it, and that line does."""
    python = environment(place, "board", [str(place.wheel)])
    folder = empty(place, "nothing-here")
    programs = Path(python).parent
    for program in ("edgeagent", "edgecloud"):
        if facts.version() not in run([programs / program, "version"], folder):
            raise NotReleasable(f"{program} version does not say {facts.version()}")
    if "numpy" in re.findall(r"^kernels +(.*)$", run([programs / "edgeagent", "version"], folder), re.M)[0]:
        raise NotReleasable("the wheel's kernels are not the compiled ones")
    hint = said_by([programs / "edgecloud", "init"], folder)
    if "pip install 'edgeagent[cloud]'" not in hint:
        raise NotReleasable(f"without its extra edgecloud says: {hint}")
    install(python, folder, "edgeagent[cloud]")  # the line of the hint, as it is typed
    run([programs / "edgecloud", "init"], folder)
    for extra in sorted(facts.typed_hints() - {"cloud"}):
        if extra == "tflite" and sys.version_info >= (3, 12):
            continue  # no wheel, and its hint says so
        install(python, folder, f"edgeagent[{extra}]", "--dry-run")
    return "its hints can be typed: " + ", ".join(sorted(facts.typed_hints()))


def the_demo_from_the_wheel(place: Place) -> str:
    python = environment(place, "fleet", [f"{place.wheel}[litert,demo]"])
    folder = empty(place, "demo")
    shutil.copytree(place.tree / "tests", folder / "tests")  # the demo, and nothing that is installed
    nothing_of_the_tree(python, folder)
    said = run([python, "-m", "tests.system.demo"], folder)
    last = re.findall(r"(\d+ versions, 0 lost, 0 mismatched)", said)
    if not last:
        raise NotReleasable(f"the demo ended with:\n{said[-2000:]}")
    return str(last[-1])


def the_tests_of_the_kernels_from_the_sources(place: Place) -> str:
    python = environment(place, "sources", [f"{place.sdist}[test]"])
    folder = empty(place, "unpacked")
    shutil.unpack_archive(place.sdist, folder)
    (unpacked,) = folder.iterdir()
    for package in facts.PACKAGES.values():  # so that what was built and installed is tested; some tests read the kernels' sources
        for module in (unpacked / package.relative_to(ROOT)).rglob("*.py"):
            module.unlink()
    nothing_of_the_tree(python, unpacked)
    said = run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/modelwire/kernels"], unpacked)
    return said.strip().splitlines()[-1]


STEPS = (
    a_clean_tree, one_version, both_archives, what_they_hold, the_wheel_alone, the_demo_from_the_wheel,
    the_tests_of_the_kernels_from_the_sources, supply.what_is_pinned, supply.bills_of_materials, supply.known_vulnerabilities,
)  # fmt: skip


def digests(*files: Path) -> str:
    """Return the SHA-256 of files, as `sha256sum --check` reads them."""
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)


def names_in(sdist: Path) -> set[str]:
    """Return the files of a source distribution, without the folder that all are in."""
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


if __name__ == "__main__":
    raise SystemExit(main())
