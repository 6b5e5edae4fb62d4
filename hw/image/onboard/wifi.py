#!/usr/bin/python3
"""Takes the Wi-Fi networks that somebody named on the boot partition, and firmware of the radio that lies there.

    wifi      at each start of the board at which one of both lies there, before the board is set up and before a radio is used

wifi.toml becomes wpa_supplicant's configuration on the data partition, and takes the place of the one before. The passphrase is not
kept: what is derived from it is (IEEE 802.11i, annex H.4), and names of networks stand there in hex. Once that is on the card, the file
is overwritten and removed. Files of the folder `firmware` go where the kernel looks first. Whatever is wrong there is said, and the boot
goes on: a board with a broken wifi.toml has the networks that it had. It stands alone: the image holds it as /usr/lib/edgeagent-image/wifi.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomllib

BOOT = Path("/boot/firmware")
PLACE = Path("/data/system/wifi")
FIRMWARE = Path("/data/system/firmware")  # the initrd tells the kernel of it
RUN, ISSUE = Path("/run/edgeagent-image"), Path("/run/issue.d/40-wifi.issue")
RULES = Path("/lib/firmware/regulatory.db")  # what each country allows
SYS = Path("/sys")
FILE, CONF, ERASING = "wifi.toml", "wpa_supplicant.conf", "erasing"

FILE_MAX = 16 * 1024  # bytes
NETWORKS_MAX = 16
PRIORITY_MAX = 100
NAMES_MAX = 10_000  # of the boot partition
RADIO_MAX, RADIO_FILES, RADIO_ALL = 2 << 20, 32, 8 << 20  # bytes of a file, files, bytes of all
RADIO_NAME = re.compile(r"brcmfmac[0-9a-z]{4,8}-(sdio|pcie)\.[A-Za-z0-9._,+-]{2,80}")
KEYS = {"country": str, "network": list}
NETWORK_KEYS = {"ssid": str, "ssid_hex": str, "passphrase": str, "psk": str, "hidden": bool, "priority": int}
KINDS = {str: 'text in quotes, "..."', bool: "true or false", int: "a whole number", list: "written as [[network]]"}
BLOCK, SECTOR = 4096, 512


class WifiRefused(Exception):
    """What lies on the boot partition and is not taken. step: what to do."""

    def __init__(self, reason: str, step: str) -> None:
        super().__init__(reason)
        self.step = step


@dataclass(frozen=True, slots=True)
class WifiNetwork:
    """One network. ssid: 1 to 32 bytes; psk: 32 bytes."""

    ssid: bytes
    psk: bytes = field(repr=False)
    hidden: bool = False
    priority: int = 0


def main() -> int:
    """Take what lies on the boot partition; always return 0."""
    says, wrong = list[str](), list[WifiRefused]()
    for step in (take_firmware, take_networks):
        try:
            says += step()
        except WifiRefused as error:
            wrong.append(error)
        except (OSError, subprocess.SubprocessError) as error:
            wrong.append(WifiRefused(f"Wi-Fi: {error}", "see with dmesg what the card says, or write it anew"))
    lines = [*says, *(line for error in wrong for line in (f"attention: {error}", f"  to do: {error.step}"))]
    lines = ["".join(c if c.isprintable() else "?" for c in line) for line in lines]
    for line in lines:
        print(f"edgeagent-wifi: {line}", flush=True)
    report = {"says": says, "error": "; ".join(map(str, wrong)), "fix": "; ".join(error.step for error in wrong)}
    with contextlib.suppress(OSError):
        RUN.mkdir(parents=True, exist_ok=True)
        (RUN / "wifi.json").write_text(json.dumps(report, indent=1) + "\n")
        ISSUE.parent.mkdir(parents=True, exist_ok=True)
        # agetty takes a backslash for a command of its own
        ISSUE.write_text("\n".join(lines).replace("\\", "\\\\") + "\n\n" if lines else "")
    return 0


def take_networks() -> list[str]:
    """Make wpa_supplicant's configuration of wifi.toml, then erase that file; return what is to be said. Raises WifiRefused, OSError."""
    name = found_name()
    if not name:
        return []
    path = BOOT / name
    data = read_file(path, FILE_MAX)
    begun = erasing(len(data))
    if not data.strip(b"\0") or (begun and b"\0" in data):  # power went while it was erased; no text holds such a byte
        erase(path)
        (PLACE / ERASING).unlink(missing_ok=True)
        return [f"{FILE}: what was left of it is erased"]
    country, networks = parse(data, path)
    if (RUN / "data-missing").exists():
        raise WifiRefused(f"{path}: there is no data partition to keep it on", "see what the console says of the data partition")
    before = (PLACE / CONF).exists()
    keep(configuration(country, networks))
    count = f"{len(networks)} network{'s' * (len(networks) > 1)}"
    says = f"{FILE}: {count} taken, country {country}{', in place of those before' * (before and not begun)}"
    try:
        # What a power cut leaves of the file is then known for what it is.
        write(PLACE / ERASING, f"{len(data)}\n".encode(), 0o600)
        erase(path)
        (PLACE / ERASING).unlink()
    except OSError as error:
        reason = f"{path}: its networks are taken, but it can't be erased: {error.strerror or error}"
        raise WifiRefused(reason, "take it off the card by hand: it holds a secret") from None
    return [f"{says}; the file was erased"]


def found_name() -> str:
    """Return the name of wifi.toml as it is written there; empty for none. Raises WifiRefused for a name that was meant to be it."""
    names = []
    with os.scandir(BOOT) as entries:
        for count, entry in enumerate(entries):
            if count >= NAMES_MAX:
                raise WifiRefused(f"{BOOT}: more than {NAMES_MAX} files", "leave there what belongs there")
            names.append(entry.name)
    for name in sorted(names):  # a vfat takes letters of both sizes for the same, so that there is one at most
        if name.lower() == FILE:
            return name
    for name in sorted(names):
        if name.lower() == f"{FILE}.txt":
            raise WifiRefused(f"{BOOT / name}: its name ends in .txt", f"call it {FILE}")
        if name.lower() in (CONF, f"{CONF}.txt"):
            raise WifiRefused(f"{BOOT / name} is of another system, and not read", f"write {FILE}: README.txt there says how")
    return ""


def read_file(path: Path, most: int) -> bytes:
    """Return what a file holds. Raises WifiRefused for what is no file, empty or too large, OSError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        raise WifiRefused(f"{path}: {error.strerror}", "put the file itself there") from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise WifiRefused(f"{path}: it is no file", "put the file itself there")
        if found.st_size > most:
            raise WifiRefused(f"{path}: it has {found.st_size:,} bytes, and at most {most:,} are read", "copy a smaller one there")
        data = b""
        while len(data) <= most and (part := os.read(handle, most + 1 - len(data))):
            data += part
    except OSError as error:
        raise WifiRefused(f"{path}: {error.strerror}", "write the card anew, or take another one") from None
    finally:
        os.close(handle)
    if not data or len(data) > most:
        raise WifiRefused(f"{path}: it is empty, or grew while it was read", "copy it there anew")
    return data


def parse(data: bytes, path: Path) -> tuple[str, list[WifiNetwork]]:
    """Return country and networks of a wifi.toml. Raises WifiRefused, whose text holds no secret."""
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise WifiRefused(f"{path}, line {line}: it is no text in UTF-8", "save it as UTF-8") from None
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        at = re.search(r"\(at (line \d+, column \d+|end of document)\)$", str(error))  # the rest may hold a piece of a secret
        fix = 'mend that place: texts stand in quotes; "\\" is written twice, or the text stands in \'...\''
        raise WifiRefused(f"{path}{f', {at[1]}' if at else ''}: it is no TOML", fix) from None
    require_kinds(table, KEYS, f"{path}", text, 0)
    country = _country(table.get("country"), path)
    rows = table.get("network", [])
    if not 1 <= len(rows) <= NETWORKS_MAX:
        reason = f"{path}: it names {len(rows) or 'no'} networks, and 1 to {NETWORKS_MAX} may be"
        raise WifiRefused(reason, "begin each with a line [[network]]")
    networks = list[WifiNetwork]()
    for number, row in enumerate(rows, 1):
        where = f"{path}, network {number}"
        if not isinstance(row, dict):
            raise WifiRefused(f"{where}: it is no table", "begin each network with a line [[network]]")
        require_kinds(row, NETWORK_KEYS, where, text, number)
        new = network(row, where, text, number)
        for other, one in enumerate(networks, 1):
            if one.ssid == new.ssid:
                raise WifiRefused(f"{where}: it has the name of network {other}", "leave one of both")
        networks.append(new)
    return country, networks


def require_kinds(table: dict[str, Any], known: Mapping[str, type], where: str, text: str, number: int) -> None:
    """Raise WifiRefused for a key that is not known, and for a value of another kind. number: of the network, 0 outside."""
    for key, value in table.items():
        shown = ascii(key[:40])[1:-1]
        if key not in known:
            lists = ", ".join(known)
            raise WifiRefused(f"{where}{line_of(text, number, key)}: {shown} is not known", f"known are: {lists}")
        if type(value) is not known[key]:
            raise WifiRefused(f"{where}{line_of(text, number, key)}: {shown} is not {KINDS[known[key]]}", "write it so")


def network(row: dict[str, Any], where: str, text: str, number: int) -> WifiNetwork:
    """Return one network of the file. Raises WifiRefused."""

    def refused(key: str, reason: str, step: str) -> WifiRefused:
        return WifiRefused(f"{where}{line_of(text, number, key)}: {key} {reason}", step)

    if ("ssid" in row) == ("ssid_hex" in row):
        raise refused("ssid", "or ssid_hex must be there, one of both", "name the network by one of them")
    if ("passphrase" in row) == ("psk" in row):
        raise refused("passphrase", "or psk must be there, one of both", "give one of them; a network without is not joined")
    if "ssid" in row:
        key, ssid = "ssid", row["ssid"].encode()
        if any(ord(c) < 32 or ord(c) == 127 for c in row["ssid"]):
            raise refused(key, "has a control character", "take it out, or write the name's bytes as ssid_hex")
    else:
        key = "ssid_hex"
        if not re.fullmatch(r"([0-9a-fA-F]{2})+", row[key]):
            raise refused(key, "is no hex", "write two of 0-9 a-f for each byte of the name")
        ssid = bytes.fromhex(row[key])
    if not 1 <= len(ssid) <= 32:
        raise refused(key, f"has {len(ssid)} bytes, and a network's name has 1 to 32", "look the name up; an umlaut takes two bytes")
    priority = row.get("priority", 0)
    if not 0 <= priority <= PRIORITY_MAX:
        raise refused("priority", f"must be 0 to {PRIORITY_MAX}", "the network with the largest one is joined, of those in reach")
    if "psk" in row:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", row["psk"]):
            raise refused("psk", "is no key of 64 hex digits", "take what wpa_passphrase prints, or give the passphrase")
        return WifiNetwork(ssid, bytes.fromhex(row["psk"]), row.get("hidden", False), priority)
    said = row["passphrase"]
    if not said.isascii() or not said.isprintable():
        raise refused("passphrase", "has a character that is none of ASCII's printable ones", "WPA2 knows no others: give the psk instead")
    if not 8 <= len(said) <= 63:
        step = "a key of 64 hex digits is called psk" if len(said) == 64 else "look it up at the access point"
        raise refused("passphrase", f"has {len(said)} characters, and WPA2 asks for 8 to 63", step)
    return WifiNetwork(ssid, derived(said, ssid), row.get("hidden", False), priority)


def derived(passphrase: str, ssid: bytes) -> bytes:
    """Return the key of 32 bytes that a passphrase comes to at this network (IEEE 802.11i, annex H.4)."""
    return hashlib.pbkdf2_hmac("sha1", passphrase.encode("ascii"), ssid, 4096, 32)


def line_of(text: str, number: int, key: str) -> str:
    """Return ", line N", of a key in the n-th [[network]]; of that header where the key is not there, empty where neither is."""
    table, header = 0, 0
    for at, line in enumerate(text.split("\n"), 1):
        if re.match(r"\s*\[\[\s*network\s*\]\]", line):
            table += 1
            header = at if table == number else header
        elif table == number and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]|\s*\[+\s*{re.escape(key)}\s*\]", line):
            return f", line {at}"
    return f", line {header}" if header else ""


def _country(said: str | None, path: Path) -> str:
    """Return a country as its two letters. Raises WifiRefused."""
    if said is None or not re.fullmatch("[A-Za-z]{2}", said):
        reason = "there is no country" if said is None else "country is no code of two letters"
        raise WifiRefused(f"{path}: {reason}", 'write where the board stands before the first [[network]]: country = "DE"')
    found = said.upper()
    with contextlib.suppress(OSError):
        rules = RULES.read_bytes()  # Linux, net/wireless/reg.c: a head of 8 bytes, then two letters and a place each, up to zeroes
        known = {rules[at : at + 2] for at in range(8, rules.find(b"\0\0\0\0", 8), 4)}
        if rules.startswith(b"RGDB") and known and found.encode() not in known:
            step = "Great Britain is GB" if found == "UK" else "look it up in ISO 3166"
            raise WifiRefused(f"{path}: {found} is no country that there are radio rules of", step)
    return found


def configuration(country: str, networks: list[WifiNetwork]) -> bytes:
    """Return wpa_supplicant's configuration. Names stand there as hex: nothing that they hold means anything to it."""
    lines = ["ctrl_interface=/run/wpa_supplicant", f"country={country}"]
    for one in networks:
        lines += ["network={", f"\tssid={one.ssid.hex()}", f"\tpsk={one.psk.hex()}", "\tkey_mgmt=WPA-PSK", "\tproto=RSN"]
        lines += ["\tscan_ssid=1"] * one.hidden + [f"\tpriority={one.priority}"] * bool(one.priority) + ["}"]
    return ("\n".join(lines) + "\n").encode()


def keep(data: bytes) -> None:
    """Have the configuration on the card, whole or as it was before. Raises OSError."""
    made = not PLACE.exists()
    PLACE.mkdir(mode=0o700, exist_ok=True)
    if made:
        flush(PLACE.parent)
    write(PLACE / CONF, data, 0o600)


def write(path: Path, data: bytes, mode: int) -> None:
    """Put a file in its place in one step, and on the card. Raises OSError."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(handle, mode)
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    part.replace(path)
    flush(path.parent)


def erasing(size: int) -> bool:
    """Return whether a file of this size was being erased when the board was last on."""
    try:
        return (PLACE / ERASING).read_bytes() == f"{size}\n".encode()
    except OSError:
        return False


def erase(path: Path) -> None:
    """Overwrite a file in place, to the end of its last block, and remove it. What a flash chip keeps behind it is out of reach."""
    with writable(path.parent):
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            size = os.fstat(handle).st_size
            os.pwrite(handle, b"\0" * size, 0)
            os.fsync(handle)
            with contextlib.suppress(OSError):  # an older text may reach beyond the file's end; a card without room has no such blocks
                os.pwrite(handle, b"\0" * (-size % BLOCK), size)
                os.fsync(handle)
        finally:
            os.close(handle)
        path.unlink()
        flush(path.parent)


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Have a partition that is mounted read-only written to for the time of a `with` block. Raises OSError."""
    shut = os.path.ismount(folder) and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    if shut:
        remount(folder, "rw")
    try:
        yield
    finally:
        if shut:
            with contextlib.suppress(OSError):
                remount(folder, "ro")


def remount(folder: Path, how: str) -> None:
    done = subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise OSError(30, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"it can't be mounted {how}", str(folder))


def flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def take_firmware() -> list[str]:
    """Copy firmware of a radio to where the kernel looks first; a driver that asked too early asks again. Raises WifiRefused, OSError."""
    folder = BOOT / "firmware"
    if not folder.is_dir() or folder.is_symlink():
        return []
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry, _ in zip(entries, range(RADIO_FILES + 1), strict=False))
    if len(names) > RADIO_FILES:
        raise WifiRefused(f"{folder}: more than {RADIO_FILES} files", "leave there what this board's radio asks for")
    taken = [name for name in names if RADIO_NAME.fullmatch(name)]
    files = {name: read_file(folder / name, RADIO_MAX) for name in taken}
    if (total := sum(map(len, files.values()))) > RADIO_ALL:
        raise WifiRefused(f"{folder}: {total:,} bytes, and {RADIO_ALL:,} may be", "leave there what this board's radio asks for")
    if files and (RUN / "data-missing").exists():
        raise WifiRefused(f"{folder}: there is no data partition to keep it on", "see what the console says of the data partition")
    place = FIRMWARE / "brcm"
    new = [name for name, data in files.items() if not (place / name).is_file() or (place / name).read_bytes() != data]
    if new:
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name in new:
            write(place / name, files[name], 0o644)
        for path in (FIRMWARE, FIRMWARE.parent):
            flush(path)
        ask_again()
    says = [f"firmware: {', '.join(new)} taken for the radio"] if new else []
    if others := [name for name in names if name not in taken and not name.startswith(".")]:
        says.append(f"firmware: {', '.join(ascii(one[:60])[1:-1] for one in others[:4])} not taken: names begin with brcmfmac")
    return says


def ask_again() -> None:
    """Tell the kernel where firmware lies, and have a driver that is there look for its own once more."""
    (SYS / "module/firmware_class/parameters/path").write_text(str(FIRMWARE))
    if (SYS / "module/brcmfmac").exists():
        for words in (["modprobe", "-r", "brcmfmac"], ["modprobe", "brcmfmac"]):
            subprocess.run(words, check=False, capture_output=True, timeout=30)


if __name__ == "__main__":
    sys.exit(main())
