"""A board in an emulator: QEMU's virt machine with the card, a network that reaches the host's broker alone, a port for the test.

Its power is cut by SIGKILL: memory and caches of the board are gone, what reached the card's file is there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .console import Console

QEMU = "qemu-system-aarch64"
BROKER = "10.0.2.100:1883"  # as the board sees it
PORT = "trial"  # of the virtio console by which the test's script speaks
# On a busy machine the disc's name comes after the script's turn.
START = "mkdir -p /run/trial; until mount /dev/disk/by-id/virtio-trial /run/trial; do sleep 1; done; exec sh /run/trial/probe.sh"


@dataclass(frozen=True, slots=True)
class Images:
    """What is booted. card is written to; the others are not."""

    card: Path
    kernel: Path
    initrd: Path
    append: str  # the image's own kernel command line


class Board:
    """One emulated board, off until it is switched on. log: a folder for what it says."""

    def __init__(self, images: Images, folder: Path, *, memory: int = 512) -> None:
        """memory: MiB."""
        self.images, self.folder, self.memory = images, folder, memory
        folder.mkdir(parents=True, exist_ok=True)
        self.console, self.facts = Console(folder / "console.log"), Console(folder / "facts.log")
        self._process: subprocess.Popen[bytes] | None = None
        self.since = 0.0  # time.time() of the last power on

    @property
    def on(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def up(self) -> float:
        """Seconds since the power came."""
        return time.time() - self.since

    def switch_on(self, port: int, disc: Path) -> None:
        """Begin to boot. port: of the broker on this machine; disc: the test's own, with probe.sh."""
        assert not self.on, "it runs already"
        if shutil.which(QEMU) is None:
            raise RuntimeError(f"{QEMU} is not here: apt-get install qemu-system-arm")
        self.console, self.facts = Console(self.folder / "console.log"), Console(self.folder / "facts.log")
        self.since = time.time()
        with (self.folder / "console.log").open("ab") as out, (self.folder / "qemu.log").open("ab") as said:
            self._process = subprocess.Popen(self.words(port, disc), stdin=subprocess.DEVNULL, stdout=out, stderr=said)

    def words(self, port: int, disc: Path) -> list[str]:
        """Return the command line of the emulator."""
        relay = f"{sys.executable} {Path(__file__).with_name('relay.py')} {port}"
        images, facts = self.images, self.folder / "facts.log"
        # The test's script is started by the kernel's command line: nothing in the image knows of it.
        append = f"{images.append} systemd.run=\"/bin/sh -c '{START}'\" systemd.run_success_action=none systemd.run_failure_action=none"
        return [
            QEMU, "-M", "virt", "-cpu", "cortex-a53", "-smp", "2", "-m", str(self.memory), "-accel", "tcg,thread=multi,tb-size=256",
            "-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot", "-serial", "stdio",
            "-kernel", str(images.kernel), "-initrd", str(images.initrd), "-append", append,
            "-drive", f"file={images.card},format=raw,if=none,id=card", "-device", "virtio-blk-pci,drive=card",
            "-drive", f"file={disc},format=raw,if=none,id=trial,readonly=on", "-device", "virtio-blk-pci,drive=trial,serial=trial",
            "-netdev", f"user,id=net,restrict=on,guestfwd=tcp:{BROKER}-cmd:{relay}", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", "virtio-serial-pci", "-chardev", f"file,id=facts,path={facts},append=on",
            "-device", f"virtserialport,chardev=facts,name={PORT}",
            "-device", "virtio-rng-pci", "-device", "i6300esb", "-action", "watchdog=reset",
        ]  # fmt: skip

    def wait(self, pattern: str, seconds: float) -> str:
        """Return what the board says through the test's port, from a pattern on to the end of the line, once it does."""
        found = self.facts.wait(pattern, seconds, lambda: self.on)
        return found[1] if found.groups() else found[0]

    def cut(self) -> bool:
        """Cut the power; return whether it was on."""
        was = self.on
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        return was

    def ended(self, seconds: float) -> bool:
        """Wait until the board has switched itself off or asked for a reboot; return whether it has, within so long."""
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True
