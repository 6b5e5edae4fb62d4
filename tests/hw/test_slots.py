"""The slots' state on the boot partition: the initrd's shell and RAUC's Python say the same, and power may go at any byte."""

from __future__ import annotations

import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.image.onboard import slots
from hw.image.onboard.slots import CIRCLE, COPIES, SIZE, SlotStates

SHELL = Path(slots.__file__).parent / "slots.sh"
STATES = st.sampled_from(("good", "trial", "bad"))
anything = st.builds(
    SlotStates, st.integers(0, CIRCLE - 1), st.sampled_from("AB"), st.tuples(STATES, STATES),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)  # fmt: skip
WORDS = ("set-primary A", "set-primary B", "set-state A good", "set-state B good", "set-state A bad", "boot")
SHELLS = [words for words in (["busybox", "sh"], ["dash"]) if subprocess.run(["which", words[0]], capture_output=True).returncode == 0]
SAID = 'echo "$S_SERIAL $S_PRIMARY $S_A $S_A_TRIES $S_B $S_B_TRIES"'


def shell(words: list[str], folder: Path, script: str) -> list[str]:
    """Run lines with slots.sh sourced; return what they print."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    head = f"set -u\nSLOTS_DIR={folder} SLOTS_TMP={scratch}\n. {SHELL}\n"
    done = subprocess.run([*words, "-c", head + script], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def said(states: SlotStates) -> str:
    (a, b), (a_tries, b_tries) = states.states, states.tries
    return f"{states.serial} {states.primary} {a} {a_tries} {b} {b_tries}"


@given(anything)
def test_what_was_written_is_read(states: SlotStates) -> None:
    data = states.encode()
    assert len(data) == SIZE
    assert slots.decode(data) == states
    assert slots.decode(data + b"more") == states  # a file that grew: the first sector is what counts


@given(anything, st.integers(0, SIZE * 8 - 1))
def test_a_flipped_bit_makes_a_copy_count_no_more(states: SlotStates, bit: int) -> None:
    data = bytearray(states.encode())
    data[bit // 8] ^= 1 << bit % 8
    assert slots.decode(bytes(data)) is None


@given(st.binary(max_size=2 * SIZE))
def test_any_bytes_are_read_as_nothing_or_as_what_they_are(data: bytes) -> None:
    found = slots.decode(data)
    assert found is None or found.encode() == data[:SIZE]


@given(anything, anything, st.integers(0, SIZE))
def test_a_write_that_is_torn_at_any_byte_leaves_the_old_state_or_the_new_one(old: SlotStates, new: SlotStates, torn: int) -> None:
    new, before = replace(new, serial=(old.serial + 1) % CIRCLE), replace(old, serial=(old.serial - 1) % CIRCLE)
    copy = new.encode()[:torn] + before.encode()[torn:]
    assert slots.newest(slots.decode(old.encode()), slots.decode(copy))[0] in (old, new)
    assert slots.newest(slots.decode(copy), slots.decode(old.encode()))[0] in (old, new)


@given(anything)
def test_a_trial_ends_within_its_tries_and_a_good_slot_is_never_left(states: SlotStates) -> None:
    boots, now = list[str](), states
    for _ in range(12):
        slot, now = now.choose()
        boots.append(slot)
    if "good" in states.states:
        assert now.state(boots[-1]) == "good"  # nobody called anything good meanwhile: it ends on what was good before
        assert len(set(boots[7:])) == 1
    if states.state(states.primary) == "good":
        assert set(boots) == {states.primary}
        assert now == states


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_what_rauc_called_good_is_good_until_rauc_says_otherwise(words: list[str]) -> None:
    now, good = SlotStates(serial=CIRCLE - 3), {"A"}
    for word in words:
        match word.split():
            case ["boot"]:
                slot, now = now.choose()
                assert slot in good or now.left(slot) < slots.TRIES or not good
            case ["set-primary", slot]:
                now = now.wanted(slot)
            case [_, slot, state]:
                now = now.with_state(slot, state, 3 if state == "good" else 0)
                good = good | {slot} if state == "good" else good - {slot}
        assert {slot for slot in "AB" if now.state(slot) == "good"} == good


@pytest.mark.parametrize("words", SHELLS, ids=lambda words: words[0])
@settings(max_examples=15, deadline=None)
@given(states=anything, other=anything, ahead=st.integers(0, CIRCLE - 1))
def test_the_shell_reads_chooses_and_writes_as_python_does(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], states: SlotStates, other: SlotStates, ahead: int
) -> None:
    folder = tmp_path_factory.mktemp("boot")
    other = replace(other, serial=(states.serial + ahead) % CIRCLE)
    (folder / COPIES[0]).write_bytes(states.encode())
    (folder / COPIES[1]).write_bytes(other.encode())
    expected, name = slots.load(folder)
    slot, chosen = expected.choose()
    lines = shell(words, folder, f"slots_read; echo $?\n{SAID}; echo $S_NEXT; slots_choose; echo $S_BOOT $S_CHANGED\nslots_write; echo $?")
    changed = int(chosen != expected)
    assert lines == ["0", said(expected), name[-1], f"{slot} {changed}", "0"]
    assert slots.load(folder)[0] == replace(chosen, serial=(expected.serial + 1) % CIRCLE)


def with_body(body: bytes) -> bytes:
    """Return a copy whose CRC is right, whatever it says."""
    body = body[: SIZE - 27].ljust(SIZE - 27, b"\n")
    return f"edgeagent-slots 1 {zlib.crc32(body):08x}\n".encode() + body


@st.composite
def mutated(draw: st.DrawFn) -> bytes | None:
    """A copy as it may be found: whole, cut, grown, changed in its bytes with and without a CRC that fits, or none at all."""
    whole = draw(anything).encode()
    at, odd = draw(st.integers(0, 60)), draw(st.sampled_from([b"", b" ", b"\n", b"0", b"\0", b"\r", b"\t", b"\xff", b"*", b"\\", b"$("]))
    return draw(st.sampled_from([
        whole, None, whole + odd * at, whole[: at * 9], whole[:at] + odd + whole[at + 1 :],
        with_body(whole[27 : 27 + at] + odd + whole[28 + at :]),
        whole.replace(b"slots 1", b"slots 2"), whole.replace(b"\n", b"\r\n"), whole.upper(), b"\0" * SIZE,
        with_body(whole[27:].replace(b"serial ", b"serial 0", 1)),
    ]))  # fmt: skip


@pytest.mark.parametrize("words", SHELLS, ids=lambda words: words[0])
@settings(max_examples=10, deadline=None)
@given(cards=st.lists(st.tuples(mutated(), mutated()), min_size=1, max_size=12))
def test_the_shell_takes_any_two_copies_as_python_does(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], cards: list[tuple[bytes | None, bytes | None]]
) -> None:
    folder, expected, lines = tmp_path_factory.mktemp("boot"), list[str](), list[str]()
    for number, copies in enumerate(cards):
        (folder / str(number)).mkdir()
        for name, data in zip(COPIES, copies, strict=True):
            if data is not None:
                (folder / str(number) / name).write_bytes(data)
        now, name = slots.load(folder / str(number))
        slot, chosen = now.choose()
        expected += [said(now), f"{name[-1]} {slot} {int(chosen != now)}"]
        lines.append(f"SLOTS_DIR={folder}/{number}; slots_read; {SAID}; next=$S_NEXT; slots_choose; echo $next $S_BOOT $S_CHANGED")
    assert shell(words, folder, "\n".join(lines)) == expected


@pytest.mark.parametrize("words", SHELLS, ids=lambda words: words[0])
@pytest.mark.parametrize("name", COPIES)
def test_a_folder_in_a_copys_place_is_passed_over_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], name: str
) -> None:
    boot, states = tmp_path / "boot", SlotStates(7, "B", ("good", "good"), (3, 3))
    boot.mkdir()
    (boot / COPIES[1 - COPIES.index(name)]).write_bytes(states.encode())
    (boot / name).mkdir()
    assert slots.load(boot)[0] == states
    assert shell(words, boot, f"slots_read; {SAID}; slots_write; echo $?") == [said(states), "1"]
    assert slots.main(["set-state", "A", "bad"], boot, tmp_path / "lock") == 1
    assert f"{boot} can't be written" in capsys.readouterr().err
    assert slots.load(boot)[0] == states


@pytest.mark.parametrize("words", SHELLS, ids=lambda words: words[0])
def test_a_card_that_fails_between_two_looks_leaves_a_new_cards_state_and_no_half_of_one(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / COPIES[1]).write_bytes(SlotStates(7, "B", ("bad", "good"), (0, 3)).encode())
    (tmp_path / COPIES[0]).write_bytes(b"edgeagent-slots 1 00000000\nserial x\n")
    # The first look at slots.b finds it whole, the second one does not.
    once = 'head() { case $3 in */slots.b) [ -z "$seen" ] || return 1; seen=1 ;; esac; command head "$@"; }; seen=""; '
    assert shell(words, tmp_path, f"{once}slots_read; echo $?; {SAID}; echo $S_NEXT") == ["1", said(SlotStates()), "a"]


def test_anybody_may_look_and_root_alone_changes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shut(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", shut)
    assert slots.main(["show"], tmp_path, tmp_path / "lock") == 0
    assert slots.main(["set-primary", "B"], tmp_path, tmp_path / "lock") == 1
    assert "is this root" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", SHELLS, ids=lambda words: words[0])
def test_the_shell_boots_something_whatever_a_torn_write_left(tmp_path: Path, words: list[str]) -> None:
    old = SlotStates(7, "B", ("good", "trial"), (3, 2))
    new, before = replace(old.with_state("B", "trial", 1), serial=8), replace(old, serial=6, tries=(3, 3))
    (tmp_path / COPIES[0]).write_bytes(old.encode())
    ends = [*range(0, 76, 3), SIZE]
    for n in ends:
        (tmp_path / f"torn-{n}").write_bytes(new.encode()[:n] + before.encode()[n:])
    lines = shell(words, tmp_path, "\n".join(f"cp {tmp_path}/torn-{n} {tmp_path}/slots.b; slots_read; {SAID}" for n in ends))
    assert set(lines) == {said(old), said(new)}
    assert lines[0] == said(old)
    assert lines[-1] == said(new)


@pytest.mark.parametrize("words", SHELLS, ids=lambda words: words[0])
@pytest.mark.parametrize(
    "copies",
    [
        (None, None), (b"", b""), (b"\0" * SIZE, b"\xff" * SIZE), (b"\n" * 600, b"serial"),
        (SlotStates(1000).encode(), SlotStates(5, "C").encode()),
    ],
    ids=["none", "empty", "blank", "short", "out-of-range"],
)
def test_where_no_copy_counts_the_first_slot_is_booted(tmp_path: Path, words: list[str], copies: tuple[bytes | None, ...]) -> None:
    for name, data in zip(COPIES, copies, strict=True):
        if data is not None:
            (tmp_path / name).write_bytes(data)
    assert slots.load(tmp_path) == (SlotStates(), COPIES[0])
    assert shell(words, tmp_path, f"slots_read || echo unread; {SAID}; slots_choose; echo $S_BOOT") == ["unread", said(SlotStates()), "A"]


def test_rauc_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def asked(*words: str) -> str:
        assert slots.main(list(words), tmp_path, tmp_path / "lock") == 0
        return capsys.readouterr().out.strip()

    assert (asked("get-primary"), asked("get-state", "A"), asked("get-state", "B")) == ("A", "good", "bad")
    asked("set-state", "B", "bad")  # as before an installation
    asked("set-primary", "B")
    assert (asked("get-primary"), asked("get-state", "B")) == ("B", "good")
    assert slots.load(tmp_path)[0].choose() == ("B", SlotStates(1, "B", ("good", "trial"), (3, 2)))
    asked("set-state", "B", "good")
    assert slots.load(tmp_path)[0].states == ("good", "good")
    assert slots.main(["set-state", "C", "good"], tmp_path, tmp_path / "lock") == 2
