"""The documents say what the code does, and the house is laid out as they say."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cloud.cli
import edgeagent.cli
from modelwire import container, errors, limits, parts, planes, records, signing, topics
from modelwire.exact import exact_update
from modelwire.manifest import parse_manifest
from modelwire.state import ModelState
from modelwire.update import Kind
from tests.broker import free_port

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "hw").rglob("*.md"), *(ROOT / "tests").rglob("*.md")])
WIRE = (DOCS / "wire-format.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BOARDS = sorted((ROOT / "hw" / "boards").glob("*.toml"))


def section(text: str, title: str) -> str:
    """Return what stands under a heading, up to the next one of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,6}} |\Z)", text, re.M | re.S)
    assert found, f"no section {title!r}"
    return found.group(2)


def rows(text: str) -> list[list[str]]:
    """Return the cells of the first Markdown table in `text`, without its head."""
    table = re.search(r"(?:^\|.*\n)+", text, re.M)
    assert table, "no table"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.group().splitlines()[2:]]


def slug(heading: str) -> str:
    """Return the anchor that a heading gets in rendered Markdown."""
    plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def prose(text: str) -> str:
    """Return Markdown without its fenced and its indented code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return re.sub(r"^ {4}.*$", "", text, flags=re.M)


# Links and names


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} is not there"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", file.read_text(), flags=re.M | re.S), re.M)
            assert anchor in [slug(h) for h in headings], f"{file.name} has no heading for #{anchor}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)\s#:]+)", page.read_text()):
            file = (page.parent / target).resolve()
            if file.is_file() and file.suffix == ".md":
                todo.append(file)
    assert set(DOCS.rglob("*.md")) <= seen


def test_the_glossary_has_each_word_once_and_in_order() -> None:
    words = [row[0].strip("*") for row in rows((DOCS / "glossary.md").read_text())]
    assert words == sorted(set(words))
    for word in ("update", "version", "parent", "commit", "root", "receipt", "outbox", "ingester", "registry", "materialise"):
        assert word in words


# Commands


def console_lines(page: Path) -> list[str]:
    """Return every command that a page shows after a `$` in a console block."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.M | re.S)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def indented_commands(page: Path) -> list[str]:
    """Return every command of our programs that a page shows indented, as an example; not those that are cut short by dots."""
    plain = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    return [line for line in re.findall(r"^ {4}(?:\$ )?(edge(?:agent|cloud) .*)$", plain, re.M) if not re.search(r" \.\.\. |\{| -> ", line)]


def our_commands(line: str) -> list[list[str]]:
    """Return the argument lists of our two programs in one shell line, the program's name first."""
    out = []
    if not re.search(r"\bedge(agent|cloud)\b", line):
        return out
    for part in re.split(r"&&|\|\||[|;&]|\d?>", line):
        words = shlex.split(part, comments=True)
        if words[:1] == ["sudo"]:
            words = words[3:] if words[1] == "-u" else words[1:]
        if words and Path(words[0]).name in ("edgeagent", "edgecloud"):
            out.append([Path(words[0]).name, *words[1:]])
    return out


@pytest.mark.parametrize("page", [p for p in PAGES if console_lines(p) or indented_commands(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_that_a_page_shows_can_be_typed(page: Path) -> None:
    parsers = {"edgeagent": edgeagent.cli.parser(), "edgecloud": cloud.cli.parser()}
    for line in console_lines(page) + indented_commands(page):
        for program, *words in our_commands(line):
            try:
                parsers[program].parse_args(words)
            except SystemExit as stop:
                assert stop.code == 0, line  # --help and --version
        for verb in re.findall(r"^make ([\w-]+)", line):
            assert re.search(rf"^{verb}:", MAKEFILE, re.M), line


@pytest.mark.slow("types a whole hour of commands", seconds=10)
@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto is not installed")
def test_the_first_hour_can_be_typed_as_it_stands(tmp_path: Path) -> None:
    page = DOCS / "first-hour.md"
    lines = console_lines(page)
    lines = lines[lines.index("cd build/first-hour") + 1 : lines.index("cd ../..")]
    typed = "\n".join(lines).replace("../..", str(ROOT)).replace("1884", str(free_port()))
    typed = re.sub(r"^(edgeagent init .*)$", r"\1 > init.out", typed, flags=re.M)
    typed = typed.replace("PUBKEY", '$(grep -om1 "[0-9a-f]\\{64\\}" init.out)')
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with open(tmp_path / "said", "w+") as said:
        # A session of its own: whatever the hour leaves behind when it fails goes with it.
        shell = subprocess.Popen(
            ["bash", "-e", "-c", typed], cwd=tmp_path, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL,
            stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(timeout=500)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
        said.seek(0)
        text = said.read()
    assert code == 0, text
    assert "8 of 8 versions exact" in text
    first, second = re.findall(r"^([0-9a-f]{64})  \S+\.tflite$", text, re.M)
    assert first == second  # what the centre rebuilt and what the device served
    run_python_examples(page, tmp_path)
    run_python_examples(ROOT / "README.md", tmp_path)


def run_python_examples(page: Path, folder: Path) -> None:
    """Run a page's Python blocks beside a registry fleet.db and a device's folder pi-7, as one program."""
    blocks = "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
    program = "import numpy\nimage = numpy.zeros(64)\n" + blocks.replace("/home/pi/agent", "pi-7")
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr


def test_the_page_of_commands_is_what_the_parsers_say() -> None:
    current = subprocess.run([sys.executable, DOCS / "generate_cli.py", "--check"], cwd=ROOT, check=False)
    assert current.returncode == 0, "run: make docs"


def test_every_verb_of_the_makefile_is_listed_and_every_listed_one_is_there() -> None:
    listed = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.M))
    phony = set(re.search(r"^\.PHONY: (help .*)$", MAKEFILE, re.M).group(1).split())  # type: ignore[union-attr]
    assert listed == phony >= {"help", "venv", "demo", "test", "lint", "bench", "clean"}


def test_ci_installs_what_the_readme_asks_for() -> None:
    asked = re.search(r"apt-get install -y (.*)$", (ROOT / "README.md").read_text(), re.M).group(1).split()  # type: ignore[union-attr]
    packages = re.search(r"^packages=\((.*?)\)", (ROOT / ".ci" / "run").read_text(), re.M | re.S).group(1).split()  # type: ignore[union-attr]
    assert set(asked) <= set(packages)


def test_the_release_and_the_wire_version_are_said_alike_everywhere() -> None:
    release = PROJECT["project"]["version"]
    entries = re.findall(r"^## \[([^]]+)\].*?\n\n(.*?)(?=^## |\Z)", (ROOT / "CHANGELOG.md").read_text(), re.M | re.S)
    assert release == edgeagent.__version__
    assert release in [name for name, _ in entries]
    assert all(re.search(r"^Wire version \d+\.$", text, re.M) for _, text in entries)
    assert f"Wire version {container.MAJOR}." in dict(entries)[release]


# Errors


def test_every_error_class_is_in_the_document_with_its_code_text_and_hint() -> None:
    text = (DOCS / "errors.md").read_text()
    documented = re.findall(r"^### (\d+) (\w+)$", text, re.M)
    defined = [cls for cls in errors.all_errors() if cls.__module__ == errors.__name__]
    assert documented == [(str(cls.code), cls.__name__) for cls in defined]
    for cls in defined:
        entry = section(text, f"{cls.code} {cls.__name__}")
        if "text" in vars(cls):
            assert f"    {cls.text}\n" in entry
        hint = vars(cls).get("hint", "")
        assert re.findall(r"^- Its hint: `(.*)`$", entry, re.M) == ([hint] if hint else [])
        assert "- What to do: " in entry


def test_exit_codes_are_unique_and_leave_room_for_the_shell() -> None:
    codes = [cls.code for cls in errors.all_errors() if "code" in vars(cls)]
    assert len(codes) == len(set(codes))
    assert all(0 < code < 126 and code != 2 for code in codes)  # 2 is argparse's, 126 and above the shell's


# Wire format

FORMATS = {
    ("Container", "Preamble"): container._PREAMBLE,
    ("Container", "Header"): container._HEADER,
    ("Container", "Section table"): container._SECTION,
    ("Records", None): records._HEAD,
    ("Parts", None): parts._HEAD,
}


@pytest.mark.parametrize(("titles", "form"), FORMATS.items(), ids=lambda v: str(v) if isinstance(v, tuple) else "")
def test_the_byte_tables_are_the_structures_that_are_packed(titles: tuple[str, str | None], form: struct.Struct) -> None:
    table = rows(section(WIRE, titles[1] or titles[0]))
    at, sizes = 0, [n for one in re.findall(r"\d*[a-zA-Z]", form.format.lstrip("<")) for n in field_sizes(one)]
    assert [int(row[1]) for row in table] == sizes
    for row in table:
        assert int(row[0]) == at, row
        at += int(row[1])
    assert at == form.size


def field_sizes(one: str) -> list[int]:
    """Return the bytes of each field that one item of a struct format stands for: "3I" is three fields, "32s" is one."""
    count, code = re.fullmatch(r"(\d*)([a-zA-Z])", one).groups()  # type: ignore[union-attr]
    return [int(count or 1)] if code == "s" else [struct.calcsize("<" + code)] * int(count or 1)


def test_the_magic_numbers_are_the_documented_ones() -> None:
    for magic in (container.MAGIC, records.MAGIC, parts.MAGIC):
        assert f"`{magic.hex(' ').upper()}`" in WIRE
    for domain in (signing.UPDATE, signing.RECORD):
        assert f"`{domain[:-1].decode()}` and a zero byte" in WIRE and domain[-1] == 0
    assert f"The smallest container has {container.SMALLEST} bytes" in WIRE
    assert all(f"{kind.value} {kind.name.lower()}" in section(WIRE, "Header") for kind in Kind)


def test_the_limits_are_the_documented_ones() -> None:
    documented = {row[0].strip("`"): int(row[1].replace(",", "")) for row in rows(section(WIRE, "Limits"))}
    assert documented == {f.name: getattr(limits.DEFAULT, f.name) for f in fields(limits.Limits)}
    fixed = re.findall(r"(-?\d[\d,]*)[^\d]*?\(`([A-Z_]+)`\)", section(WIRE, "Limits"))
    named = {name: int(value.replace(",", "")) for value, name in fixed}
    assert named == {n: v for n, v in vars(limits).items() if n.isupper() and isinstance(v, int) and n not in ("KIB", "MIB")}


def test_the_records_have_the_documented_fields() -> None:
    words: dict[str, Any] = {"str": "text", "int": "integer", "bytes": "bytes", "bool": "true or false", "Level": "text"}
    common = [f.name for f in fields(records.Record)]
    documented = dict(re.findall(r"^\| `([a-z]+)` \| (`.*) \|$", section(WIRE, "Records"), re.M))
    assert set(documented) == set(records.KINDS)
    for kind, cls in records.KINDS.items():
        own = [f for f in fields(cls) if f.name not in common]
        told = re.findall(r"(?:^|· )`([a-z_]+)` (text|integer|bytes|true or false)(?: (\d+))?", documented[kind])
        assert [(name, word) for name, word, _ in told] == [(f.name, words[str(f.type)]) for f in own]
        for name, _, size in told:
            if size and name in records._LENGTHS:
                assert int(size) == records._LENGTHS[name]


def test_the_topics_are_the_documented_ones() -> None:
    leaves = [row[0].strip("`") for row in rows(section(WIRE, "Topics"))]
    assert leaves == [f"up/{leaf}" for leaf in topics.UP] + [f"dn/{leaf}" for leaf in topics.DOWN]
    assert f"`{topics.all_up('0').replace('0', '{fleet}')}`" in WIRE
    assert f"`{topics.all_down('0', '9').replace('0', '{fleet}').replace('9', '{device}')}`" in WIRE


def test_the_worked_example_reads_as_it_says_and_is_written_again() -> None:
    text = section(WIRE, "Worked example")
    manifest_bytes, update = (bytes.fromhex(block) for block in re.findall(r"(?:^ {4}[0-9a-f ]+\n)+", text, re.M))
    manifest = parse_manifest(manifest_bytes)
    assert f"`{manifest.commit.hex()}`" in text
    base = np.array([0.5, -0.25, 1, -0.0, 0.125, 0.75, -1, 0], np.float32)
    state = ModelState.of_base(manifest, [base])

    read = container.parse(update)
    key = signing.PrivateKey(bytes(range(32)))
    read.verify(key.public)
    sections = read.sections(manifest.schema)
    state.apply(read.header.kind, sections, expect=read.header.fingerprint)

    assert read.header.parent == manifest.commit and read.header.root == state.root
    assert f"is then\n{', '.join(f'{w:.8g}' for w in state.weights[0].tolist())}.".replace("-0,", "-0.0,") in text
    assert f"`{read.stream.hex()}`" in text and f"this update has {len(update)}\nbytes" in text
    assert container.seal(read.header, sections, manifest.schema, key) == update


def test_the_worked_exact_update_reads_as_it_says_and_is_written_again() -> None:
    text = section(WIRE, "An exact update")
    manifest_bytes, update = (bytes.fromhex(block) for block in re.findall(r"(?:^ {4}[0-9a-f ]+\n)+", text, re.M))
    manifest, key = parse_manifest(manifest_bytes), signing.PrivateKey(bytes(range(32)))
    state = ModelState.of_base(manifest, [np.array([1, -2, 0.5, 0], np.float32)])
    trained = [np.array([1 + 2**-10, -2, 0.5, -0.0], np.float32)]
    kind, sections, _ = exact_update(state, trained)

    read = container.parse(update)
    state.apply_container(read)

    assert state.weights[0].tobytes() == trained[0].tobytes() and state.root == read.header.root
    assert "1.0009766, -2, 0.5, -0:" in text and f"this update has {len(update)} bytes" in text
    assert bytes(read.planes).hex() == "".join(re.findall(r"`((?:[0-9a-f]{2})+(?: [0-9a-f]+)?)`[:;]", text)).replace(" ", "")
    assert container.seal(read.header, sections, manifest.schema, key) == update and kind is read.header.kind
    assert f"{planes.BLOCK:,} entries" in WIRE


# Boards


def test_there_is_a_profile_for_each_board_that_is_promised() -> None:
    names = {"pi-zero-2w", "pi-3b", "pi-4", "pi-5", "jetson-nano", "jetson-orin-nano", "x86-64-gateway"}
    assert {p.stem for p in BOARDS} == names


@pytest.mark.parametrize("file", BOARDS, ids=lambda p: p.stem)
def test_a_board_profile_is_complete_and_could_work(file: Path) -> None:
    board = tomllib.loads(file.read_text())
    shape = {
        "name": str, "system": str, "arch": str, "cores": int, "ram_mib": int, "python": str, "glibc": str,
        "runtime": {"extra": str, "package": str, "version": str, "numpy": str},
        "training": {"max_ram_mib": int, "max_cpu_percent": int, "max_seconds": int, "max_celsius": int},
    }  # fmt: skip
    check_shape(board, shape)
    python, glibc = version(board["python"]), version(board["glibc"])
    runtime, training = board["runtime"], board["training"]
    assert board["arch"] in ("armv7l", "aarch64", "x86_64") and python >= (3, 10)
    assert any(spec.startswith(runtime["package"]) for spec in PROJECT["project"]["optional-dependencies"][runtime["extra"]])
    # Where wheels exist: see docs/board-setup.md.
    if runtime["package"] == "tflite-runtime":
        assert python <= (3, 11) and (board["arch"] == "x86_64" or glibc >= (2, 34))
    else:
        assert board["arch"] != "armv7l" and glibc >= (2, 27)
    assert runtime["numpy"] == ("system" if board["arch"] == "armv7l" else "pip")
    assert 64 <= training["max_ram_mib"] <= board["ram_mib"] // 4
    assert 0 < training["max_cpu_percent"] <= 100 and 0 < training["max_seconds"] <= 3600
    assert 50 <= training["max_celsius"] <= 95


def check_shape(value: dict[str, Any], shape: dict[str, Any]) -> None:
    assert list(value) == list(shape)
    for key, want in shape.items():
        if isinstance(want, dict):
            check_shape(value[key], want)
        else:
            assert type(value[key]) is want and value[key], key


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
