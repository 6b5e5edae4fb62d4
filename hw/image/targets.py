"""The boards that an image is made for, and what each needs beside the system that all share."""

from __future__ import annotations

from dataclasses import dataclass

# What the initrd needs to find the card and mount what is on it; a module that the kernel has built in is left out by itself.
# The watchdog is there, too: systemd arms it as soon as it starts.
_FILE_SYSTEMS = ("vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "squashfs", "crc32c_generic", "ext4")


@dataclass(frozen=True, slots=True)
class Target:
    """One board: what is built for it. dtbs: as the kernel package names them, without the ending."""

    name: str
    arch: str  # Debian's name
    says: str  # for people
    initrd: tuple[str, ...]  # modules, in any order
    firmware: tuple[str, ...] = ()  # packages whose files alone are taken, of non-free-firmware
    dtbs: tuple[str, ...] = ()
    tried: str = "not booted on silicon"  # how far it was seen to work

    @property
    def compatible(self) -> str:
        """What a bundle must be made for to be taken by this board."""
        return f"edgeagent-{self.name}"


def _pi(name: str, says: str, *dtbs: str) -> Target:
    return Target(
        name, "arm64", says, (*_FILE_SYSTEMS, "sdhci_iproc", "bcm2835", "mmc_block", "reset_raspberrypi", "bcm2835_wdt"),
        firmware=("raspi-firmware", "firmware-brcm80211"), dtbs=dtbs,
    )  # fmt: skip


_QEMU = Target(
    "qemu-arm64", "arm64", "QEMU's virt machine, 64-bit ARM", (*_FILE_SYSTEMS, "virtio_pci", "virtio_mmio", "virtio_blk", "i6300esb"),
    tried="booted in an emulator",
)  # fmt: skip
TARGETS = {
    one.name: one
    for one in (
        _QEMU,
        _pi("rpi4", "Raspberry Pi 4 B, 400 and CM4", "bcm2711-rpi-4-b", "bcm2711-rpi-400", "bcm2711-rpi-cm4-io"),
        _pi("rpi-zero2w", "Raspberry Pi Zero 2 W and 3", "bcm2837-rpi-zero-2-w", "bcm2837-rpi-3-b", "bcm2837-rpi-3-b-plus"),
    )
}

KERNEL = ("linux-image-arm64", "busybox-static")  # files alone: nothing of them is run while the image is made
BASE = (
    "systemd-sysv", "systemd-resolved", "systemd-timesyncd", "udev", "kmod", "dbus", "python3", "adduser", "ca-certificates",
    "rauc", "rauc-service", "e2fsprogs", "iproute2", "dropbear-bin", "wpasupplicant", "wireless-regdb",
)  # fmt: skip

# Firmware of the radios of the Raspberry Pi 3, 4 and 400, as Debian has it; of the Zero 2 W's it has none.
RADIO = (
    *(f"brcm/brcmfmac{chip}-sdio.{end}" for chip in ("43430", "43455") for end in ("bin", "clm_blob", "txt", "raspberrypi,*.txt")),
    *(f"brcm/brcmfmac43456-sdio.{end}" for end in ("bin", "clm_blob", "txt")),
    *(f"cypress/cyfmac{chip}-sdio.{end}" for chip in ("43430", "43455") for end in ("bin", "clm_blob")),
)

# Trees of modules that no board here has a use for: a third of the system's size.
PRUNED = (
    "sound", "drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/scsi", "drivers/iio", "drivers/staging/lustre", "drivers/isdn",
    "drivers/target", "drivers/ata", "drivers/xen", "drivers/mtd", "drivers/nvme", "drivers/hwmon/pmbus", "drivers/net/can",
    *(f"drivers/net/ethernet/{maker}" for maker in (
        "mellanox", "chelsio", "intel", "qlogic", "marvell", "cavium", "netronome", "hisilicon", "emulex", "huawei", "pensando", "sfc",
        "amazon", "microsoft", "aquantia", "freescale", "broadcom/bnxt", "broadcom/bnx2x", "broadcom/bnx2.ko", "broadcom/tg3.ko",
    )),
    *(f"drivers/net/wireless/{maker}" for maker in (
        "mac80211_hwsim.ko", "broadcom/b43", "broadcom/b43legacy", "broadcom/brcm80211/brcmsmac",
        "ath", "intel", "marvell", "mediatek", "ralink", "realtek", "rsi", "ti", "st", "quantenna", "microchip", "silabs", "purelifi",
    )),
    "fs/xfs", "fs/btrfs", "fs/ocfs2", "fs/gfs2", "fs/ceph", "fs/cifs", "fs/nfs", "fs/nfsd", "fs/smb", "fs/jfs", "fs/reiserfs", "fs/f2fs",
    "fs/ubifs", "fs/afs", "fs/dlm", "fs/ksmbd", "fs/orangefs", "net/ceph", "net/openvswitch", "net/dccp", "net/sctp", "net/rds", "net/tipc",
    "net/batman-adv", "net/rxrpc", "net/mac802154", "net/ieee802154", "net/smc", "net/nfc",
)  # fmt: skip
