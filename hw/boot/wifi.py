"""Boots the image with a wifi.toml on its card, and waits until it is in that network: python -m hw.boot.wifi

Two virtual radios stand in for the board's own and for an access point (mac80211_hwsim, by the test's disc: no image has it). The access
point is told the passphrase, WPA2; the board has to find the network that wifi.toml names and to be given an address there. Three boots:
with a wifi.toml of odd letters and firmware of a radio; with neither, from what was kept; with a broken wifi.toml, as if it were not there.

Prints one JSON document: of each boot, seconds from power on to the network (joined_s), from the radio to it (radio_to_joined_s).
taken_in_s is what taking wifi.toml and firmware cost the start.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hw.image import building
from hw.image.targets import TARGETS

from . import card
from .__main__ import APPEND, default_image
from .console import Silent
from .emulator import Board, Images

SCRIPT = Path(__file__).with_name("wifi.sh")
SSID, PASSPHRASE = '"Café\\ }\'$(x) #', 'a "b\\ c\' $d ,e'
TOML = f"country = 'de'\n[[network]]\nssid = {json.dumps(SSID)}\npassphrase = {json.dumps(PASSPHRASE)}\nhidden = true\n"
ELSEWHERE = '[[network]]\nssid = "elsewhere"\npsk = "' + "0f" * 32 + '"\npriority = 5\n'
RADIO, RADIO_TEXT = "firmware/brcmfmac43436-sdio.bin", b"of no radio"
BROKEN = TOML.replace("hidden", "hiden")
PATIENCE = 900.0  # seconds, a safety limit: an emulated board on a busy machine is slow


def main(arguments: Sequence[str] | None = None) -> int:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="hw.boot.wifi", description=__doc__, formatter_class=shape)
    parser.add_argument("--image", type=Path, metavar="DIR", help="what make image wrote (default: build/hw/image/qemu-arm64)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where card and logs go (default: build/hw/wifi)")
    args = parser.parse_args(arguments)
    try:
        figures = boots(args.image or default_image(), args.work or building.ROOT / "build/hw/wifi")
    except (RuntimeError, Silent, OSError) as error:
        print(f"hw.boot.wifi: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures, indent=1))
    return 1 if figures["wrong"] else 0


def boots(image: Path, work: Path) -> dict[str, Any]:
    """Boot three times; return the figures, and what was wrong as `wrong`. Raises Silent with what the board last said, RuntimeError."""
    work.mkdir(parents=True, exist_ok=True)
    own = work / "card.img"
    card.copy(image / "disk.img", own)
    files = {"probe.sh": SCRIPT.read_bytes(), "passphrase": PASSPHRASE.encode(), "ap.conf": access_point()}
    disc = card.disc(work, {}, range(0), files={**files, "mac80211_hwsim.ko": hwsim(image)})
    board = Board(Images(own, image / "vmlinuz", image / "initrd", APPEND), work)
    rows, wrong = list[dict[str, Any]](), list[str]()
    first = {"wifi.toml": (TOML + ELSEWHERE).encode(), RADIO: RADIO_TEXT, "authorized_keys": b"ssh-ed25519 AAAA test\n"}
    puts = {"first": first, "kept": {}, "broken": {"wifi.toml": BROKEN.encode()}}
    for name, put in puts.items():
        card.put(own, put)
        if name == "kept":
            card.remove(own, "firmware")
        row, said = booted(board, disc)
        left = card.get(own, "wifi.toml")
        wrong += [f"{name}: {one}" for one in judged(name, said, left)]
        rows.append({"boot": name, **row})
    return {"boots": rows, "wrong": wrong}


def booted(board: Board, disc: Path) -> tuple[dict[str, float], Mapping[str, str]]:
    """Boot once, until the board has an address by its radio; return seconds, and the last line of each kind that its script told."""
    try:
        board.switch_on(9, disc)  # no broker: nobody asks for it
        board.wait(r"^end .*$", PATIENCE)
        board.ended(PATIENCE)
    finally:
        board.cut()
    said = {line.partition(" ")[0]: line.partition(" ")[2] for line in board.facts.text().splitlines()}
    for kind, text in said.items():
        print(f"  {kind:<9}{text}", file=sys.stderr, flush=True)
    at = {kind: float(said[kind].split()[0]) for kind in ("radio", "joined", "address")}
    row = {"taken_in_s": int(said["took"]) / 1000, "joined_s": at["joined"], "address_s": at["address"]}
    return {**row, "radio_to_joined_s": round(at["joined"] - at["radio"], 1)}, said


def judged(name: str, said: Mapping[str, str], left: bytes | None) -> list[str]:
    """Return what of a boot is not as it should be. left: wifi.toml as the card holds it afterwards."""
    taken = '.*2 networks taken, country DE; the file was erased.*"error": "".*'
    reports = {"first": taken, "kept": "", "broken": ".*hiden is not known.*"}
    state = "inactive" if name == "kept" else "active"  # nothing lies there to be taken
    wanted = {
        "before": rf"\S+ failed 0 supplicants 0 taken {state}", "kept": "600 root +wpa_supplicant.conf ", "secret": "0", "cycles": "0",
        "path": "/data/system/firmware", "firmware": RADIO_TEXT.decode(), "report": reports[name],
        "rules": "1", "joined": r"\S+ (\S+) WPA2-PSK CCMP \1", "ssh": "active", "end": "failed ",
    }  # fmt: skip
    out = [f"{kind}: {said.get(kind)!r}" for kind, pattern in wanted.items() if not re.fullmatch(pattern, said.get(kind, "-"))]
    if left != (BROKEN.encode() if name == "broken" else None):
        out.append("wifi.toml lies there still" if left else "a broken wifi.toml was taken away")
    return out


def access_point() -> bytes:
    """Return the access point's configuration: it is told name and passphrase as they are."""
    network = (f"ssid={SSID.encode().hex()}", f'psk="{PASSPHRASE}"', "mode=2", "frequency=2412")
    rows = (*network, "key_mgmt=WPA-PSK", "proto=RSN", "pairwise=CCMP")
    return "\n".join(["network={", *rows, "}", ""]).encode()


def hwsim(image: Path) -> bytes:
    """Return the module of virtual radios for an image's kernel, of Debian's package. Raises RuntimeError where that is another one."""
    made = json.loads((image / "image.json").read_text())
    name = f"./lib/modules/{made['kernel']}/kernel/drivers/net/wireless/mac80211_hwsim.ko"
    with tarfile.open(building.kernel_files(TARGETS[made["board"]])) as tar:
        try:
            file = tar.extractfile(name)
        except KeyError:
            file = None
        if file is None:
            raise RuntimeError(f"Debian's kernel is no longer {made['kernel']}, the image's: make image BOARD={made['board']}")
        return file.read()


if __name__ == "__main__":
    raise SystemExit(main())
