"""The quick part of `make release`: what the tree says about itself. The long part builds, installs and runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.pages import DOCS, PROJECT, ROOT
from tests.release import facts
from tests.release.__main__ import STEPS, digests, names_in


def test_one_version_stands_in_one_place() -> None:
    code = [path for folder in facts.PACKAGES.values() for path in folder.rglob("*.py")]
    said = [path.name for path in [*code, ROOT / "pyproject.toml", ROOT / "setup.py"] if f'"{facts.version()}"' in path.read_text()]
    assert said == ["__init__.py"]
    assert facts.newest_entry()[0] == facts.version()


def test_each_extra_that_a_hint_names_is_there() -> None:
    named = facts.hinted()
    assert {"litert", "tflite", "cloud", "backup", "author"} <= facts.typed_hints() <= named.keys()
    missing = {name: files for name, files in named.items() if name not in facts.extras()}
    assert not missing


def test_the_license_is_the_one_that_the_metadata_name() -> None:
    project = PROJECT["project"]
    assert project["license"] == "Apache-2.0" and project["license-files"] == ["LICENSE", "NOTICE"]
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    common = Path("/usr/share/common-licenses/Apache-2.0")  # Debian's copy
    assert not common.exists() or common.read_text() == text


def test_each_data_set_of_others_has_its_notice() -> None:
    notice, readme = (ROOT / "NOTICE").read_text(), (ROOT / "tests/models/README.md").read_text()
    for data in sorted((ROOT / "tests" / "models" / "data").iterdir()):
        assert re.search(rf"^  {data.name} ", notice, re.M), data.name
        assert f"## data/{data.name}" in readme
    assert "Redistributions of source code must retain" in notice


def test_the_page_names_each_step() -> None:
    page = (DOCS / "release.md").read_text()
    assert re.findall(r"^\d+\. \*\*(.+?)\*\*", page, re.M) == [step.__name__.replace("_", " ") for step in STEPS]


@pytest.mark.slow("makes a source distribution", seconds=5)
def test_a_source_distribution_holds_what_git_tracks(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no clone: there is nothing to compare with")
    copy = tmp_path / "tree"
    there = {name for name in facts.tracked() if (ROOT / name).exists()}  # without what was removed and is not committed yet
    for name in there:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    # What a used tree holds besides.
    (copy / "csrc" / "build").mkdir()
    for room, stray in ((copy / "csrc" / "build", "selftest.o"), (copy / "modelwire" / "_core", "kernel.abi3.so"), (copy, "stray.pyc")):
        (room / stray).write_bytes(b"\0")
    command = [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(tmp_path)]
    subprocess.run(command, cwd=copy, check=True, capture_output=True, timeout=300)
    (archive,) = tmp_path.glob("*.tar.gz")
    assert names_in(archive) - facts.MADE == there


def test_digests_are_read_by_sha256sum_and_tell_a_changed_file(tmp_path: Path) -> None:
    one, other = tmp_path / "edgeagent-1.tar.gz", tmp_path / "a.cdx.json"
    one.write_bytes(b"sources")
    other.write_bytes(b"{}")
    (tmp_path / "SHA256SUMS").write_text(digests(one, other))
    check = ["sha256sum", "--check", "--quiet", "--ignore-missing", "SHA256SUMS"]
    other.unlink()
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode == 0
    one.write_bytes(b"other sources")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode == 1
