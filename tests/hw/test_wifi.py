"""Networks that somebody names on a boot partition: read as a stranger's, kept without the passphrase, erased there once they are safe."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hw.image.onboard import wifi
from hw.image.onboard.wifi import WifiNetwork, WifiRefused
from tests.simulator.crashes import Crash, Steps

SUPPLICANT = shutil.which("wpa_supplicant", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
needs_supplicant = pytest.mark.skipif(
    SUPPLICANT is None or os.geteuid() != 0, reason="apt-get install wpasupplicant, and be root: it opens a packet socket"
)
HOME = 'country = "DE"\n\n[[network]]\nssid = "home"\npassphrase = "correct horse"\n'
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=32).filter(lambda s: len(s.encode()) <= 32)
PHRASES = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=8, max_size=63)
NASTY = ('"', "\\", "'", "#", "}\nnetwork={", "$(reboot)", "`reboot`", "%s%n", "\u202e", "\U0001f4f6", " x ", "P\"x\\'")


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a boot partition and a data partition, on which the script works."""
    lay(tmp_path, monkeypatch)
    return tmp_path


def lay(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("boot", "data/system", "run", "sys/module/firmware_class/parameters"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    (place / "boot/vmlinuz").write_bytes(b"kernel")
    (place / "sys/module/firmware_class/parameters/path").touch()
    places = {"BOOT": "boot", "PLACE": "data/system/wifi", "FIRMWARE": "data/system/firmware", "RUN": "run", "SYS": "sys", "RULES": "none"}
    for name, path in places.items():
        monkeypatch.setattr(wifi, name, place / path)
    monkeypatch.setattr(wifi, "ISSUE", place / "issue.d/40-wifi.issue")


def started(board: Path, text: str | bytes | None = None) -> tuple[str, str]:
    """Start the board, with a wifi.toml where one is given; return what went wrong and what to do."""
    if text is not None:
        (board / "boot/wifi.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    assert wifi.main() == 0, "the boot goes on"
    report = json.loads((board / "run/wifi.json").read_text())
    return report["error"], report["fix"]


def kept(board: Path) -> str:
    path = board / "data/system/wifi/wpa_supplicant.conf"
    return path.read_text() if path.exists() else ""


def test_networks_are_kept_without_the_passphrase_and_erased_on_the_boot_partition(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert started(board, HOME) == ("", "")
    assert not (board / "boot/wifi.toml").exists()
    assert os.listdir(board / "data/system/wifi") == ["wpa_supplicant.conf"]
    assert (board / "data/system/wifi/wpa_supplicant.conf").stat().st_mode & 0o777 == 0o600
    assert (board / "data/system/wifi").stat().st_mode & 0o777 == 0o700
    assert "correct horse" not in kept(board) + capsys.readouterr().out + (board / "run/wifi.json").read_text()
    assert "country=DE\n" in kept(board) and f"ssid={b'home'.hex()}\n" in kept(board)
    before = kept(board)
    assert started(board) == ("", "") and kept(board) == before, "a later start finds nothing to do"
    assert started(board, HOME.replace("home", "office")) == ("", "")
    assert b"office".hex() in kept(board) and b"home".hex() not in kept(board)
    assert "in place of those before" in capsys.readouterr().out


def test_the_key_is_the_one_of_the_standard() -> None:
    # IEEE 802.11i, annex H.4.3
    assert wifi.derived("password", b"IEEE").hex() == "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"


def toml(ssid: str, phrase: str, more: str = "") -> str:
    # A text's escapes are the same in JSON, but for a lone DEL, which NAMES and PHRASES have not.
    return f'country = "DE"\n[[network]]\nssid = {json.dumps(ssid, ensure_ascii=False)}\npassphrase = {json.dumps(phrase)}\n{more}'


@given(NAMES, PHRASES)
@settings(max_examples=30, deadline=None)
def test_any_name_and_any_passphrase_come_to_one_network(ssid: str, phrase: str) -> None:
    country, (found,) = wifi.parse(toml(ssid, phrase, "hidden = true\npriority = 7").encode(), Path("wifi.toml"))
    assert (country, found.ssid, found.hidden, found.priority) == ("DE", ssid.encode(), True, 7)
    assert not re.search(r"[^\n\ta-zA-Z0-9_=/{}-]", wifi.configuration(country, [found]).decode())


@pytest.mark.skipif(shutil.which("wpa_passphrase") is None, reason="apt-get install wpasupplicant")
@given(PHRASES.map(lambda s: f"_{s}"[:32]), PHRASES)
@settings(max_examples=15, deadline=None)
@example('"a\\', "\"'\\ #}{$`")
def test_the_key_is_the_one_of_wpa_passphrase(ssid: str, phrase: str) -> None:
    done = subprocess.run(["wpa_passphrase", ssid, phrase], capture_output=True, text=True, check=True)
    assert f"\tpsk={wifi.derived(phrase, ssid.encode()).hex()}\n" in done.stdout


class Supplicant:
    """A wpa_supplicant without a radio, by its control socket: it reads a configuration and says what it holds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.conf = folder, folder / "own.conf"
        self._write(b"country=DE\n")
        words = [str(SUPPLICANT), "-D", "none", "-i", "lo", "-c", str(self.conf)]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "client"))
        self._socket.settimeout(60)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # "Successfully initialized": its socket is there soon
        while not (folder / "ctl/lo").exists():
            assert self._process.poll() is None, self._process.stdout.read()
        self._socket.connect(str(folder / "ctl/lo"))

    def _write(self, data: bytes) -> None:
        head = f"ctrl_interface={self.folder}/ctl\nupdate_config=1\n".encode()
        self.conf.write_bytes(head + data.replace(b"ctrl_interface=/run/wpa_supplicant\n", b""))

    def ask(self, command: str) -> str:
        self._socket.send(command.encode())
        while (answer := self._socket.recv(65536).decode()).startswith("<"):  # an event
            pass
        return answer.strip()

    def read(self, data: bytes) -> tuple[str, list[dict[str, str]]]:
        """Let it read a configuration, write it anew by itself, and return country and networks of that."""
        self._write(data)
        assert self.ask("RECONFIGURE") == "OK", "it does not take the configuration"
        self.conf.write_text("")
        assert self.ask("SAVE_CONFIG") == "OK"
        text = self.conf.read_bytes().decode()
        blocks = re.findall(r"network=\{\n(.*?)\n\}", text, re.S)
        rows = [dict(line.strip().split("=", 1) for line in block.split("\n")) for block in blocks]
        return str(re.findall(r"^country=(.*)$", text, re.M)[0]), rows

    def end(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.communicate()


@pytest.fixture(scope="module")
def supplicant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supplicant]:
    made = Supplicant(tmp_path_factory.mktemp("wpa"))
    yield made
    made.end()


def bytes_of(value: str) -> bytes:
    return value[1:-1].encode() if value.startswith('"') else bytes.fromhex(value)


ROWS = st.lists(
    st.builds(WifiNetwork, st.binary(min_size=1, max_size=32), st.binary(min_size=32, max_size=32), st.booleans(), st.integers(0, 100)),
    min_size=1, max_size=wifi.NETWORKS_MAX, unique_by=lambda one: one.ssid,
)  # fmt: skip


@needs_supplicant
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks=ROWS, country=st.sampled_from(["DE", "US", "JP"]))
@example(networks=[WifiNetwork(one.encode()[:32], bytes(32)) for one in NASTY], country="DE")
def test_wpa_supplicant_reads_what_was_meant(supplicant: Supplicant, networks: list[WifiNetwork], country: str) -> None:
    found, rows = supplicant.read(wifi.configuration(country, networks))
    assert found == country and len(rows) == len(networks)
    wanted = [(n.ssid, n.psk.hex(), n.hidden, n.priority, "WPA-PSK", "RSN") for n in networks]
    got = [(bytes_of(r["ssid"]), r["psk"], r.get("scan_ssid") == "1", int(r.get("priority", 0)), r["key_mgmt"], r["proto"]) for r in rows]
    assert sorted(got) == sorted(wanted)


ONE = 'country = "DE"\n[[network]]\nssid = "home"\n'
ZEROES = "0" * 64
BAD = {
    "an unknown key": (HOME + 'pasphrase = "secret77"\n', "network 1, line 6: pasphrase is not known", "passphrase"),
    "an unknown key above": ('contry = "DE"\n' + HOME, "line 1: contry is not known", "country"),
    "no country": (HOME.replace('country = "DE"', ""), "no country", 'country = "DE"'),
    "a country of three": (HOME.replace("DE", "DEU"), "country is no code", "DE"),
    "a country of odd letters": (HOME.replace("DE", "D\u00cb"), "country is no code", "DE"),
    "no network": ('country = "DE"\n', "names no networks", "[[network]]"),
    "one network as a table": (HOME.replace("[[", "[").replace("]]", "]"), "line 3: network is not written as", "write it so"),
    "networks of numbers": ('country = "DE"\nnetwork = [1]\n', "network 1: it is no table", "[[network]]"),
    "too many": ('country = "DE"\n' + "".join(f'[[network]]\nssid = "{n}"\npsk = "{ZEROES}"\n' for n in range(17)), "17 networks", ""),
    "twice": (HOME + f'[[network]]\nssid_hex = "686F6D65"\npsk = "{ZEROES}"\n', "network 2: it has the name of network 1", "leave one"),
    "digits without quotes": (ONE + "passphrase = 12345678\n", "line 4: passphrase is not text in quotes", ""),
    "too short": (ONE + 'passphrase = "secret7"\n', "line 4: passphrase has 7 characters", "access point"),
    "a psk as passphrase": (ONE + f'passphrase = "{"a" * 64}"\n', "64 characters", "called psk"),
    "a passphrase of other letters": (ONE + 'passphrase = "s\u00e9cret77"\n', "ASCII", "psk"),
    "a line end in it": (ONE + 'passphrase = "secret77\\n"\n', "line 4: passphrase has a character", "psk"),
    "a psk that is cut": (ONE + 'psk = "abcd"\n', "psk is no key", "wpa_passphrase"),
    "a psk of odd digits": (ONE + f'psk = "{ZEROES}"\n'.replace("0", "\u0661"), "psk is no key", "wpa_passphrase"),
    "both": (ONE + f'passphrase = "secret77"\npsk = "{ZEROES}"\n', "passphrase or psk must be there", "one of them"),
    "neither": (ONE, "line 2: passphrase or psk must be there", "one of them"),
    "no name": ('country = "DE"\n[[network]]\npassphrase = "secret77"\n', "ssid or ssid_hex", "one of them"),
    "an empty name": (HOME.replace('"home"', '""'), "0 bytes", ""),
    "a long name": (HOME.replace("home", "\u00fc" * 17), "34 bytes", "umlaut"),
    "a control character in the name": (HOME.replace('"home"', '"ho\\u0000me"'), "line 4: ssid has a control", "ssid_hex"),
    "a name of half a byte": (HOME.replace('ssid = "home"', 'ssid_hex = "abc"'), "ssid_hex is no hex", "0-9 a-f"),
    "a large priority": (HOME + "priority = 101\n", "line 6: priority must be 0 to 100", ""),
    "a priority of truth": (HOME + "priority = true\n", "priority is not a whole number", ""),
    "digits without end": (HOME + f"priority = {'9' * 5000}\n", "it is no TOML", ""),
    "no TOML": (HOME + 'ssid = "secret77\n', "line 6", "quotes"),
    "brackets without end": ("a = " + "[" * 9000, "it is no TOML", ""),
    "UTF-16": (HOME.encode("utf-16"), "line 1: it is no text in UTF-8", "UTF-8"),
    "too large": (HOME + "#" * 20_000, "at most 16,384", "smaller"),
    "empty": (b"", "empty", "anew"),
    "zero bytes after text": (HOME.encode() + b"\0" * 300, "it is no TOML", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_and_the_networks_of_before_stay(board: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, says, step = BAD[name]
    assert started(board, HOME) == ("", "")
    before = kept(board)
    error, fix = started(board, text)
    assert says in error and "wifi.toml" in error
    assert fix and step in fix
    assert kept(board) == before and (board / "boot/wifi.toml").exists()
    everywhere = capsys.readouterr().out + (board / "run/wifi.json").read_text() + (board / "issue.d/40-wifi.issue").read_text()
    assert error.splitlines()[0][:60].replace("\\", "") in everywhere.replace("\\", "")
    assert "secret7" not in everywhere and "correct horse" not in everywhere


def test_a_country_without_radio_rules_is_named(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = board / "regulatory.db"
    rules.write_bytes(b"RGDB\0\0\0\x1400\0\x10DE\1\0GB\2\0\0\0\0\0more")
    monkeypatch.setattr(wifi, "RULES", rules)
    error, fix = started(board, HOME.replace("DE", "UK"))
    assert "UK is no country" in error and fix == "Great Britain is GB"
    assert "QQ is no country" in started(board, HOME.replace("DE", "QQ"))[0]
    assert started(board, HOME.replace("DE", "gb")) == ("", "")
    rules.write_bytes(b"RGDB")
    assert started(board, HOME) == ("", ""), "rules that can't be read forbid nothing"


@pytest.mark.parametrize("lie", ["wifi.toml.txt", "WiFi.TOML.TXT", "wpa_supplicant.conf"])
def test_a_name_that_was_meant_to_be_it_is_said(board: Path, lie: str) -> None:
    (board / "boot" / lie).write_text(HOME)
    error, fix = started(board)
    assert lie in error and "wifi.toml" in fix and not kept(board)


def test_letters_of_both_sizes_and_an_editor_of_another_system_are_taken(board: Path) -> None:
    (board / "boot/WIFI.TOML").write_bytes(b"\xef\xbb\xbf" + HOME.replace("\n", "\r\n").encode())
    assert started(board) == ("", "") and b"home".hex() in kept(board)
    assert os.listdir(board / "boot") == ["vmlinuz"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "endless"])
def test_what_is_no_file_is_neither_followed_nor_waited_for(board: Path, kind: str) -> None:
    path, target = board / "boot/wifi.toml", board / "secret"
    target.write_text(HOME)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "endless" else target)
    assert "wifi.toml" in started(board)[0]
    assert not kept(board) and target.read_text() == HOME


def test_a_board_without_a_data_partition_erases_nothing(board: Path) -> None:
    (board / "run/data-missing").write_text("broken")
    error, fix = started(board, HOME)
    assert "no data partition" in error and fix
    assert (board / "boot/wifi.toml").read_text() == HOME


def test_a_file_that_cannot_be_erased_is_said_and_its_networks_are_taken(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "pwrite", locked)
    error, fix = started(board, HOME)
    assert "can't be erased: Read-only" in error and "by hand" in fix and kept(board)
    monkeypatch.undo()


def test_power_that_goes_at_any_write_loses_neither_the_old_networks_nor_the_new_ones(tmp_path: Path) -> None:
    steps, new = Steps(), HOME.replace("home", "office")
    with pytest.MonkeyPatch.context() as patch:
        lay(tmp_path / "0", patch)
        started(tmp_path / "0", HOME)
        before = kept(tmp_path / "0")
        (tmp_path / "0/boot/wifi.toml").write_text(new)
        with steps.installed(), steps.counted():
            wifi.take_networks()
        after = kept(tmp_path / "0")
    names = steps.names
    assert names[: names.index("os.pwrite")].count("os.replace") == 2, "its networks and a mark"
    assert names[: names.index("os.pwrite")][-3:] == ["os.fsync", "os.replace", "os.fsync"], "on the card before it is erased"
    for step in range(1, steps.taken + 1):
        place, left = tmp_path / f"{step}", tmp_path / f"{step}-left"
        with pytest.MonkeyPatch.context() as patch:
            lay(place, patch)
            started(place, HOME)
            (place / "boot/wifi.toml").write_text(new)
            with steps.installed(), pytest.raises(Crash), steps.crash_at(
                step, lambda place=place, left=left: shutil.copytree(place, left, symlinks=True), torn=True  # type: ignore[misc]
            ):
                wifi.take_networks()
            lies = left / "boot/wifi.toml"
            assert kept(left) in (before, after)
            assert kept(left) == after or lies.read_text() == new
            lay(left, patch)
            assert started(left) == ("", "")
            assert kept(left) == after and not lies.exists()
            assert {"wpa_supplicant.conf", "erasing"} >= set(os.listdir(left / "data/system/wifi")), "nothing half made"


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_an_erasure_left_is_known_for_what_it_is(tmp_path: Path, data: st.DataObject) -> None:
    place = tmp_path / "board"
    shutil.rmtree(place, ignore_errors=True)
    text = (HOME + "# " + "x" * 3000).encode()
    torn = data.draw(st.sets(st.integers(0, len(text) // 512), min_size=1))
    left = b"".join(b"\0" * len(text[n : n + 512]) if n // 512 in torn else text[n : n + 512] for n in range(0, len(text), 512))
    with pytest.MonkeyPatch.context() as patch:
        lay(place, patch)
        started(place, HOME)
        before = kept(place)
        (place / "data/system/wifi/erasing").write_text(f"{len(text)}\n")
        assert started(place, left) == ("", "")
        assert kept(place) == before and not (place / "boot/wifi.toml").exists()
        assert "it is no TOML" in started(place, left)[0] or left.strip(b"\0") == b"", "where nothing was being erased, it is somebody's"


ENDS = st.text("[]=\"\\'#{}nw\n ,.t0", max_size=80).map(HOME.__add__)  # of a file that is whole up to there


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode) | ENDS.map(str.encode))
@settings(max_examples=150, deadline=None)
def test_whatever_stands_in_the_file_is_taken_or_refused(data: bytes) -> None:
    try:
        country, networks = wifi.parse(data, Path("wifi.toml"))
    except WifiRefused as error:
        assert error.step and "correct horse" not in f"{error} {error.step}"
        return
    assert country == "DE" and networks


def test_firmware_is_put_where_the_kernel_looks_first(board: Path) -> None:
    folder = board / "boot/firmware"
    folder.mkdir()
    files = {"brcmfmac43436s-sdio.bin": b"radio", "brcmfmac43436s-sdio.raspberrypi,model-zero-2-w.txt": b"board"}
    others = {"LICENCE": b"terms", "._brcmfmac43436s-sdio.bin": b"twin", "brcmfmac..": b"", "brcmfmac43436-sdio.": b""}
    for name, data in {**files, **others}.items():
        (folder / name).write_bytes(data)
    (folder / "brcm").mkdir()
    assert started(board) == ("", "")
    place = board / "data/system/firmware/brcm"
    assert {path.name: path.read_bytes() for path in place.iterdir()} == files
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in place.iterdir())
    assert (board / "sys/module/firmware_class/parameters/path").read_text() == str(board / "data/system/firmware")
    assert "LICENCE" in (board / "issue.d/40-wifi.issue").read_text()
    (folder / "brcmfmac43436s-sdio.bin").write_bytes(b"newer")
    assert started(board) == ("", "") and (place / "brcmfmac43436s-sdio.bin").read_bytes() == b"newer"
    times = [path.stat().st_mtime_ns for path in place.iterdir()]
    assert started(board) == ("", "") and times == [path.stat().st_mtime_ns for path in place.iterdir()], "the same is not written again"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({f"brcmfmac43436-sdio.{n}x": b"x" for n in range(33)}, "more than 32 files"),
        ({"brcmfmac43436-sdio.bin": b"x" * ((2 << 20) + 1)}, "at most 2,097,152"),
        ({f"brcmfmac43436-sdio.{n}x": b"x" * (2 << 20) for n in range(5)}, "8,388,608 may be"),
        ({"brcmfmac43436-sdio.bin": b""}, "empty"),
    ],
    ids=["many", "large", "large together", "empty"],
)
def test_firmware_without_measure_is_refused_and_the_networks_are_taken(board: Path, files: dict[str, bytes], says: str) -> None:
    (board / "boot/firmware").mkdir()
    for name, data in files.items():
        (board / "boot/firmware" / name).write_bytes(data)
    error, fix = started(board, HOME)
    assert says in error and fix and not (board / "data/system/firmware").exists()
    assert kept(board)


def test_a_link_among_firmware_is_not_followed(board: Path) -> None:
    (board / "boot/firmware").mkdir()
    (board / "boot/firmware/brcmfmac43436-sdio.bin").symlink_to("/etc/passwd")
    assert "brcmfmac43436-sdio.bin" in started(board)[0]
    assert not (board / "data/system/firmware").exists()
