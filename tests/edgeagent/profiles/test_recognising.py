"""Which board it is, by what real ones say, and by what none should."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent import boards
from edgeagent.boards import Recognised
from modelwire.errors import BadArgument
from tests.edgeagent.profiles.trees import BOARDS, RealBoard, tree

ids = [f"{board.profile}-{number}" for number, board in enumerate(BOARDS)]


def seen(folder: Path, board: RealBoard) -> Recognised:
    sensors = tree(folder, board)
    return boards.detect(sensors.sys, sensors.proc, machine=board.machine)


@pytest.mark.parametrize("board", BOARDS, ids=ids)
def test_a_real_board_is_recognised(tmp_path: Path, board: RealBoard) -> None:
    found = seen(tmp_path, board)
    assert found.profile.name == board.profile and found.known is not found.profile.generic
    here = found.here
    assert (here.compatible, here.model, here.cores) == (board.compatible, board.model, board.cores)
    assert here.memory == 1024 * board.memory_kib and here.arch in found.profile.arches
    least, most = found.profile.ram_range
    assert least * 2**20 <= here.memory <= most * 2**20


@pytest.mark.parametrize("board", [board for board in BOARDS if board.compatible and not board.profile.startswith("generic")])
def test_by_its_model_s_text_where_firmware_says_no_compatible_that_is_known(tmp_path: Path, board: RealBoard) -> None:
    found = seen(tmp_path, RealBoard(board.profile, ("vendor,unheard-of",), board.model, board.machine, board.memory_kib))
    known = {"Raspberry Pi 400 Rev 1.0"}  # whose text is of another form
    assert found.profile.name == board.profile or board.model in known
    assert board.model in found.how


@pytest.mark.parametrize(
    "model", ["Raspberry Pi 50", "Raspberry Pi 500X", "Raspberry Pi 3 Model Bee", "XRaspberry Pi 4 Model B", "raspberry pi 5", ""]
)
def test_a_text_that_only_looks_alike_is_none(tmp_path: Path, model: str) -> None:
    found = seen(tmp_path, RealBoard("", ("vendor,unheard-of",), model, "aarch64", 500_000))
    assert found.profile.name == "generic-arm64" and "no profile knows" in found.how


def test_the_most_special_word_counts_first(tmp_path: Path) -> None:
    board = RealBoard("", ("raspberrypi,4-model-b", "raspberrypi,5-model-b"), "Raspberry Pi 5", "aarch64", 500_000)
    assert seen(tmp_path, board).profile.name == "pi-4"


def test_programs_of_32_bit_on_a_kernel_of_64_are_of_32(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeagent.boards import recognising

    class Small:
        machine = "aarch64"

    monkeypatch.setattr(recognising.os, "uname", Small)
    monkeypatch.setattr(recognising.interpreter, "maxsize", 2**31 - 1)
    recognising.own_machine.cache_clear()
    try:
        assert recognising.own_machine() == "armv7l"
    finally:
        monkeypatch.undo()
        recognising.own_machine.cache_clear()


def test_an_architecture_without_a_profile_is_said(tmp_path: Path) -> None:
    for machine in ("riscv64", "i686", "\x1b[2J"):
        with pytest.raises(BadArgument, match="no profile for boards of the architecture") as refused:
            boards.detect(tmp_path, tmp_path, machine=machine)
        assert str(refused.value).isprintable()


def test_a_machine_that_says_nothing_is_a_generic_one_without_memory_or_cores(tmp_path: Path) -> None:
    found = boards.detect(tmp_path, tmp_path, machine="aarch64")
    assert found.profile.name == "generic-arm64" and (found.here.memory, found.here.cores, found.here.compatible) == (0, 0, ())


LIKELY = st.sampled_from([b"raspberrypi,4-model-b", b"\xff\xfe", b"\x1b[2J", b"a" * 200])
WORDS = st.one_of(st.binary(max_size=9000), st.lists(LIKELY).map(b"\0".join))


@given(WORDS, WORDS, st.binary(max_size=600), st.binary(max_size=600))
def test_bytes_of_any_kind_are_a_board_that_is_known_or_a_generic_one_and_are_said_in_plain_text(
    compatible: bytes, model: bytes, memory: bytes, cores: bytes
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        node, cpu = folder / "device-tree", folder / "devices" / "system" / "cpu"
        node.mkdir()
        cpu.mkdir(parents=True)
        (node / "compatible").write_bytes(compatible)
        (node / "model").write_bytes(model)
        (folder / "meminfo").write_bytes(memory)
        (cpu / "present").write_bytes(cores)
        found = boards.detect(folder, folder, machine="aarch64")
        assert found.how.isprintable() and found.how.isascii() and len(found.how) < 300
        assert len(found.here.compatible) <= 64 and found.here.memory >= 0 and found.here.cores >= 0
        assert found.known or found.profile.name == "generic-arm64"
        if b"raspberrypi,4-model-b" not in compatible[:4096]:
            assert found.profile.generic or model


@pytest.mark.parametrize("odd", ["folder", "loop", "none"])
def test_what_stands_in_the_place_of_a_file_is_no_file(tmp_path: Path, odd: str) -> None:
    node = tmp_path / "device-tree"
    node.mkdir()
    if odd == "folder":
        (node / "compatible").mkdir()
    elif odd == "loop":
        (node / "compatible").symlink_to("compatible")
    assert boards.look(tmp_path, tmp_path, machine="aarch64").compatible == ()


@pytest.mark.parametrize(
    ("text", "cores"), [("0", 1), ("0-3", 4), ("0-1,4-5", 4), ("", 0), ("3-0", 0), ("a", 0), ("0-99999999", 0), ("²", 0)]
)
def test_cores_are_counted_or_not_known(tmp_path: Path, text: str, cores: int) -> None:
    cpu = tmp_path / "devices" / "system" / "cpu"
    cpu.mkdir(parents=True)
    (cpu / "present").write_text(text)
    assert boards.look(tmp_path, tmp_path, machine="aarch64").cores == cores
