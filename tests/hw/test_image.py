"""What an image is made of, piece by piece: none of this needs root, a mirror or an emulator."""

from __future__ import annotations

import configparser
import gzip
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from hw.image import bill, debian, disk, initrd, rootfs, twice
from hw.image.onboard import slots
from hw.image.targets import RADIO, TARGETS

ONBOARD = initrd.ONBOARD
BUSYBOX = shutil.which("busybox")


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [one for one in programs if shutil.which(one) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not on this machine: {', '.join(missing)}")


def sh(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run lines with the initrd's scripts sourced, in its own shell. `say` goes to a file."""
    assert BUSYBOX
    head = f'SLOTS_DIR={folder} SLOTS_TMP={folder} SYS={folder}/sys\nsay() {{ echo "$*" >>{folder}/said; }}\n'
    head += f". {ONBOARD}/slots.sh\n. {ONBOARD}/mounting.sh\n"
    return subprocess.run([BUSYBOX, "sh", "-c", head + script], capture_output=True, text=True, check=False)


def test_the_partition_table_says_where_everything_lies() -> None:
    table = disk.table()
    assert len(table) == 512 and table[510:] == b"\x55\xaa"
    rows = [struct.unpack_from("<B3xB3xII", table, 446 + 16 * n) for n in range(4)]
    assert [row[1] for row in rows] == [0x0C, 0x83, 0x83, 0x83]
    ends = 0
    for _, _, start, size in rows:
        assert start * 512 >= max(ends, 1 << 20) and start % 2048 == 0
        ends = (start + size) * 512
    assert ends == disk.SIZE and disk.SIZE & (disk.SIZE - 1) == 0


def test_the_initrd_looks_for_the_signature_that_the_card_has() -> None:
    text = (ONBOARD / "mounting.sh").read_text()
    said = re.search(r"^SIGNATURE=([0-9a-f]{8})", text, re.M)
    assert said and bytes.fromhex(said[1]) == disk.table()[440:444]
    assert "skip=110" in text, "the signature is the 110th word of four bytes"


@needs("busybox", "dd")
@pytest.mark.parametrize("most", [4, 4095, 0x12345678, 0xFFFFFFFF])
def test_the_last_partition_grows_by_four_bytes_and_no_other(tmp_path: Path, most: int) -> None:
    card = tmp_path / "card"
    card.write_bytes(disk.table())
    done = sh(f'printf "$(le32 {most})" | dd of={card} bs=1 seek=506 count=4 conv=notrunc 2>/dev/null', tmp_path)
    assert done.returncode == 0, done.stderr
    now = card.read_bytes()
    assert struct.unpack_from("<I", now, 506) == (most,)
    assert now[:506] == disk.table()[:506] and now[510:] == disk.table()[510:]


@needs("busybox")
@pytest.mark.parametrize(
    ("size", "start", "room"), [(1 << 22, 1 << 20, 3 << 20), ((1 << 22) + 5, 1 << 20, 3 << 20), (1 << 40, 2048, 4294965248)]
)
def test_a_partition_ends_on_a_whole_mebibyte_and_within_what_a_table_holds(tmp_path: Path, size: int, start: int, room: int) -> None:
    assert sh(f"room {size} {start}", tmp_path).stdout.strip() == str(room)


@needs("busybox")
def test_a_partition_is_found_by_its_number(tmp_path: Path) -> None:
    for disk_name, part in (("mmcblk0", "mmcblk0p3"), ("sda", "sda3")):
        (tmp_path / f"sys/block/{disk_name}/{part}").mkdir(parents=True)
        (tmp_path / f"sys/block/{disk_name}/{part}/partition").write_text("3\n")
        assert sh(f"DISK={disk_name}; part 3", tmp_path).stdout.strip() == f"/dev/{part}"
        assert sh(f"DISK={disk_name}; part 4", tmp_path).returncode != 0


@needs("busybox")
@pytest.mark.parametrize("works", ["A", "B", "AB", ""])
@pytest.mark.parametrize("states", [("good", "bad"), ("bad", "good"), ("trial", "good"), ("good", "trial"), ("bad",) * 2, ("trial",) * 2])
@pytest.mark.parametrize("primary", "AB")
def test_a_system_is_booted_whenever_one_can_be_mounted(tmp_path: Path, works: str, states: tuple[str, str], primary: str) -> None:
    said = slots.SlotStates(0, primary, states, (3, 3))
    for name in slots.COPIES:
        (tmp_path / name).write_bytes(said.encode())
    run = sh(_mounting(works), tmp_path)
    if not works:
        assert run.returncode != 0
        return
    slot, trial = run.stdout.split()
    assert slot in works
    wanted, _ = said.choose()
    assert slot == (wanted if wanted in works else slots.other(wanted))
    assert trial == ("1" if slot == wanted and said.state(slot) == "trial" else "0")
    now, _ = slots.load(tmp_path)
    if trial == "1":
        assert now.left(slot) == 2, "its try was counted before it was mounted"
    if wanted not in works and said.state(wanted) == "trial":
        assert now.state(wanted) == "bad" and now.primary == slot


def _mounting(works: str) -> str:
    """Return lines that choose and mount, where `mount` and what it finds are played: no privileges are needed."""
    text = (ONBOARD / "mounting.sh").read_text()
    body = text[text.index("mount_slot() {") : text.index("# Mount the data partition")]
    body = re.sub(r"\[ ! -e /root/sbin/init \] && \[ ! -L /root/sbin/init \]", "false", body)
    body = re.sub(r'\[ ! -d "/root/lib/modules/[^"]*" \]', "false", body)
    return f"""
part() {{ case $1 in 2) echo A;; 3) echo B;; esac; }}
mount() {{ case "$*" in *remount*) return 0;; *squashfs*) case "{works}" in *"$5"*) return 0;; esac; return 1;; esac; }}
umount() {{ return 0; }}
{body}
slots_read; take_slot; mount_slot && echo "$S_BOOT $S_TRIAL"
"""


@needs("busybox")
def test_a_trial_that_cannot_be_counted_is_not_tried_for_ever(tmp_path: Path) -> None:
    said = slots.SlotStates(0, "B", ("good", "trial"), (3, 3))
    for name in slots.COPIES:
        (tmp_path / name).write_bytes(said.encode())
    done = sh('mount() { return 1; }\nslots_read; take_slot; echo "$S_BOOT $S_TRIAL"', tmp_path)
    assert done.stdout.split() == ["A", "0"]


def kernel(folder: Path) -> Path:
    """Lay a kernel package as far as the initrd needs it."""
    modules = folder / "lib/modules/6.1/kernel"
    modules.mkdir(parents=True)
    for name in ("jbd2", "crc16", "ext4", "vfat"):
        (modules / f"{name}.ko").write_bytes(name.encode() * 100)
    lines = ["kernel/ext4.ko: kernel/jbd2.ko kernel/crc16.ko", "kernel/jbd2.ko:", "kernel/crc16.ko:", "kernel/vfat.ko:"]
    (folder / "lib/modules/6.1/modules.dep").write_text("\n".join(lines) + "\n")
    (folder / "lib/modules/6.1/modules.builtin").write_text("kernel/drivers/mmc/core/mmc_block.ko\n")
    (folder / "bin").mkdir()
    (folder / "bin/busybox").write_bytes(b"\x7fELF")
    return folder


def test_modules_are_loaded_after_what_they_need_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    folder = kernel(tmp_path / "k") / "lib/modules/6.1"
    names = [path.stem for path in initrd.ordered(folder, ("ext4", "vfat", "mmc-block"))]
    assert names.index("jbd2") < names.index("ext4") > names.index("crc16") and len(names) == 4
    with pytest.raises(LookupError, match="no module sdhci"):
        initrd.ordered(folder, ("sdhci",))


@needs("cpio")
def test_an_initrd_has_the_same_bytes_each_time_and_cpio_reads_it(tmp_path: Path) -> None:
    first = initrd.build(kernel(tmp_path / "a"), "6.1", ("ext4",), 1_700_000_000)
    assert first == initrd.build(kernel(tmp_path / "b"), "6.1", ("ext4",), 1_700_000_000)
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["cpio", "-i", "--quiet"], input=gzip.decompress(first), cwd=out, check=True)
    assert (out / "init").read_bytes() == (ONBOARD / "init").read_bytes()
    assert (out / "init").stat().st_mode & 0o111
    assert sorted(p.name for p in (out / "m").iterdir())[-1].endswith("ext4.ko")


@needs("busybox", "dash")
@pytest.mark.parametrize("name", ["init", "mounting.sh", "slots.sh"])
def test_the_scripts_of_the_initrd_are_read_by_both_shells(name: str) -> None:
    for shell in (["busybox", "sh"], ["dash"]):
        subprocess.run([*shell, "-n", str(ONBOARD / name)], check=True)


@needs("mkfs.vfat", "mcopy", "mmd")
def test_a_boot_partition_has_the_same_bytes_for_the_same_files(tmp_path: Path) -> None:
    sums = set()
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "overlays").mkdir(parents=True)
        for file in (sorted, lambda names: sorted(names, reverse=True))[name == "two"](["b.txt", "a.txt", "overlays/c.dtbo"]):
            (folder / file).write_text(file)
        disk.boot_partition(folder, tmp_path / f"{name}.vfat", 1_700_000_000)
        sums.add(hashlib.sha256((tmp_path / f"{name}.vfat").read_bytes()).hexdigest())
    assert len(sums) == 1
    subprocess.run(["mcopy", "-i", str(tmp_path / "one.vfat"), "::slots.b", str(tmp_path / "back")], check=True)
    assert slots.decode((tmp_path / "back").read_bytes()) == slots.SlotStates(serial=1)


@needs("mke2fs")
@pytest.mark.slow("makes a file system of 700 MiB twice, sparse", seconds=3)
def test_a_data_partition_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    heads = []
    for name in ("one", "two"):
        disk.data_partition(tmp_path / name, 1_700_000_000)
        heads.append(subprocess.run(["sha256sum"], stdin=(tmp_path / name).open("rb"), capture_output=True, check=True).stdout)
        (tmp_path / name).unlink()
    assert heads[0] == heads[1]


@needs("mksquashfs")
def test_a_system_has_the_same_bytes_whatever_the_files_times_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = set()
    for name, order in (("one", "ab"), ("two", "ba")):
        (tmp_path / name).mkdir()
        for file in order:
            (tmp_path / name / file).write_text(file * 5000)
        os.utime(tmp_path / name / "a", (1, 1 + len(sums)))
        rootfs.squash(tmp_path / name, tmp_path / f"{name}.squashfs", 1_700_000_000)
        sums.add((tmp_path / f"{name}.squashfs").read_bytes())
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1600000000")
    assert len(sums) == 1


def test_no_account_has_a_password_not_even_an_empty_one(tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    shadow.write_text("root::19700:0:99999:7:::\nedge:$y$hash:19700:0:99999:7:::\ndaemon:*:1::::::\n")
    rootfs._no_passwords(shadow)
    assert [line.split(":")[1] for line in shadow.read_text().splitlines()] == ["*", "*", "*"]


def test_a_unit_is_enabled_as_its_install_section_says_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    units = tmp_path / "lib/systemd/system"
    units.mkdir(parents=True)
    (units / "a.service").write_text("[Install]\nWantedBy=multi-user.target\nAlias=b.service\n")
    rootfs._enable(tmp_path, "a.service")
    made = tmp_path / "etc/systemd/system"
    assert (made / "multi-user.target.wants/a.service").readlink() == Path("/lib/systemd/system/a.service")
    assert (made / "b.service").is_symlink()
    with pytest.raises(LookupError, match="no unit none"):
        rootfs._enable(tmp_path, "none.service")


def test_the_machines_own_sources_are_taken_of_debian_alone(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    with pytest.raises(LookupError, match="no source of Debian"):
        debian.lines(etc=tmp_path)
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (parts / "debian.sources").write_text(
        f"Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates trixie\nComponents: main\nSigned-By: {key}\n"
    )
    (parts / "other.sources").write_text(
        "Types: deb\nURIs: http://other.example\nSuites: bookworm\nComponents: main\nSigned-By: /x/other.gpg\n"
    )
    (parts / "old.list").write_text(f"deb [arch=amd64 signed-by={key}] http://mirror.example/security bookworm-security main\n")
    assert debian.lines(("main", "contrib"), tmp_path) == [
        f"deb [signed-by={key}] http://mirror.example/debian bookworm main contrib",
        f"deb [signed-by={key}] http://mirror.example/debian bookworm-updates main contrib",
        f"deb [signed-by={key}] http://mirror.example/security bookworm-security main contrib",
    ]


def test_a_bill_of_materials_has_each_part_with_version_licence_and_hash(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    rows = "Package: zlib1g\nStatus: install ok installed\nArchitecture: arm64\nSource: zlib\nVersion: 1:1.2.13+b1\n\n"
    rows += "Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n"
    (tmp_path / "var/lib/dpkg/status").write_text(rows)
    (tmp_path / "usr/share/doc/zlib1g").mkdir(parents=True)
    (tmp_path / "usr/share/doc/zlib1g/copyright").write_text("Files: *\nLicense: Zlib\n\nFiles: x\nLicense: GPL-2+\n")
    paho_folder = tmp_path / "usr/lib/edgeagent/lib/paho_mqtt-2.1.dist-info"
    paho_folder.mkdir(parents=True)
    (paho_folder / "METADATA").write_text("Name: paho-mqtt\nVersion: 2.1\nLicense-Expression: EPL-2.0\n")
    parts = [*bill.installed(tmp_path, {("zlib1g", "1:1.2.13+b1"): "ab" * 32}), *bill.distributions(tmp_path)]
    made = bill.cyclonedx(parts, name="edgeagent-rpi4", version="0.1.0", epoch=0, image="cd" * 32)
    assert made == json.loads(json.dumps(bill.cyclonedx(parts, name="edgeagent-rpi4", version="0.1.0", epoch=0, image="cd" * 32)))
    zlib, paho = made["components"]
    assert zlib["purl"] == "pkg:deb/debian/zlib1g@1%3A1.2.13%2Bb1?arch=arm64&distro=bookworm"
    assert [one["license"]["name"] for one in zlib["licenses"]] == ["Zlib", "GPL-2+"] and zlib["hashes"][0]["content"] == "ab" * 32
    assert (paho["purl"], paho["licenses"][0]["license"]["name"]) == ("pkg:pypi/paho-mqtt@2.1", "EPL-2.0")
    rows_of_sources = bill.sources(parts, commit="c", package="edgeagent.deb", sha256="ef" * 32)
    assert [row["name"] for row in rows_of_sources] == ["edgeagent.deb", "zlib1g"]


def test_of_firmware_the_files_of_these_radios_are_taken_and_one_that_is_gone_is_named(tmp_path: Path) -> None:
    kernel, root = tmp_path / "kernel", tmp_path / "root"
    for pattern in (*RADIO, "brcm/brcmfmac4366c-pcie.bin"):
        path = kernel / "lib/firmware" / pattern.replace("*", "4-model-b")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"radio")
    link = kernel / "lib/firmware/brcm/brcmfmac43455-sdio.bin"
    link.unlink()
    link.symlink_to("../cypress/cyfmac43455-sdio.bin")
    rootfs.add_firmware(root, kernel, RADIO)
    place = root / "lib/firmware/brcm"
    assert (place / "brcmfmac43455-sdio.bin").is_symlink() and (place / "brcmfmac43455-sdio.bin").read_bytes() == b"radio"
    assert (place / "brcmfmac43430-sdio.raspberrypi,4-model-b.txt").is_file() and not list(place.glob("*4366*"))
    with pytest.raises(LookupError, match=r"no longer has brcm/x\*\.bin"):
        rootfs.add_firmware(root, kernel, ["brcm/x*.bin"])


def test_of_firmware_the_bill_names_the_terms_of_what_was_taken(tmp_path: Path) -> None:
    place = tmp_path / "usr/share/doc/firmware-brcm80211"
    place.mkdir(parents=True)
    (place / "copyright").write_text("Files: *\nLicense: A\n\nFiles: x.fw\n brcm/b*.bin\nCopyright: C\nLicense: B\n of brcm/\n")
    (made,) = bill.unpacked(tmp_path, ["firmware-brcm80211"], "arm64", {})
    assert made.licenses == ("B",)


FIRST_BOOT = Path(rootfs.__file__).parent / "overlay/usr/lib/edgeagent-image/first-boot"


def first_boot(place: Path, provisioned: str) -> dict[str, str]:
    """Run the image's script of a start in a folder, with the programs of a board played; return the files that it made."""
    text = FIRST_BOOT.read_text()
    for path in ("/boot/firmware", "/var/lib/edgeagent", "/run", "/data/system", "/proc/sys/kernel"):
        (place / path[1:]).mkdir(parents=True, exist_ok=True)
        text = re.sub(rf"(?<![\w/]){path}(?=[/\s\"])", f"{place}{path}", text)
    (place / "proc/sys/kernel/hostname").write_text("edgeagent\n")
    bin_folder = place / "bin"
    bin_folder.mkdir()
    report = f"mkdir -p {place}/run/edgeagent; echo '{provisioned}' >{place}/run/edgeagent/provision.json"
    lines = {"edgeagent": report, "systemctl": "", "dropbearkey": ""}
    for name, line in lines.items():
        (bin_folder / name).write_text(f"#!/bin/sh\n{line}\nexit 1\n")
        (bin_folder / name).chmod(0o755)
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, env={"PATH": f"{bin_folder}:{os.environ['PATH']}"})
    assert done.returncode == 0, "a board boots whatever comes of it"
    return {str(p.relative_to(place)): p.read_text() for p in place.rglob("*") if p.is_file()}


def test_a_board_is_called_as_its_device_as_far_as_a_host_may_be_called_so(tmp_path: Path) -> None:
    made = first_boot(tmp_path, '  "device": "pi_7.line-3",')
    assert made["proc/sys/kernel/hostname"] == made["data/system/hostname"] == "pi-7-line-3\n"


def test_ssh_is_on_for_public_keys_on_the_boot_partition_and_for_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "one/boot/firmware").mkdir(parents=True)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@desk"
    (tmp_path / "one/boot/firmware/authorized_keys").write_text(f"# mine\n{key}\n\0 noise\n")
    made = first_boot(tmp_path / "one", "")
    assert made["run/edgeagent-image/ssh/authorized_keys"] == f"{key}\n"
    for name, text in (("none", None), ("noise", "no key at all\n"), ("huge", f"{key}\n" * 5000)):
        folder = tmp_path / name / "boot/firmware"
        folder.mkdir(parents=True)
        if text is not None:
            (folder / "authorized_keys").write_text(text)
        assert not any("ssh/authorized_keys" in one for one in first_boot(tmp_path / name, "") if one.startswith("run/"))


def test_what_was_not_booted_on_silicon_says_so() -> None:
    page = (Path(rootfs.__file__).parent / "README.md").read_text()
    for target in TARGETS.values():
        assert target.tried in ("not booted on silicon", "booted in an emulator")
        row = next(line for line in page.splitlines() if line.startswith(f"| `{target.name}` |"))
        assert target.tried in row.replace("**", "")


@pytest.mark.parametrize("second", ["same", "other"])
def test_two_builds_that_differ_in_a_byte_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second: str) -> None:
    sums = iter([{"disk.img": "same"}, {"disk.img": second}])

    def build(_target: object, out: Path, **_: object) -> dict[str, object]:
        out.mkdir()
        return {"sha256": next(sums), "bytes": {}}

    monkeypatch.setattr(twice.building, "ROOT", tmp_path)
    monkeypatch.setattr(twice.building, "build", build)
    monkeypatch.setattr(twice.deb, "build", lambda *_, **__: tmp_path / "any.deb")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert twice.compare("qemu-arm64")["equal"] is (second == "same")


def test_no_socket_waits_for_a_service_that_waits_for_sockets() -> None:
    """systemd ends such a cycle by leaving a unit out, now this one and now that: SSH, Wi-Fi, or what sets the board up."""
    for file in (Path(rootfs.__file__).parent / "overlay/etc/systemd/system").glob("*.socket"):
        lines = file.read_text().splitlines()
        waits = [line for line in lines if line.startswith("After=") and ".service" in line]
        assert not waits or "DefaultDependencies=no" in lines, file.name


def test_the_console_shows_the_agents_warnings_and_not_its_other_lines() -> None:
    """Units that speak there as a whole have their lines at a level that gets there; the agent gives its lines levels, by the journal."""
    places = [Path(rootfs.__file__).parent / "overlay/etc/systemd", Path(rootfs.__file__).parent / "onboard/units"]
    journal = configparser.ConfigParser()
    journal.read(places[0] / "journald.conf.d/10-image.conf")
    assert (journal["Journal"]["ForwardToConsole"], journal["Journal"]["MaxLevelConsole"]) == ("yes", "notice")
    speaking = {}
    for file in (file for place in places for file in place.rglob("*") if file.is_file() and file.suffix in (".service", ".conf")):
        lines = file.read_text().splitlines()
        if "StandardError=journal+console" in lines:
            speaking[file.name] = "SyslogLevel=notice" in lines
    whole = ("edgeagent-provision.service", "edgeagent-state.service", "edgeagent-wifi.service", "rauc-slot.conf")
    assert speaking == dict.fromkeys(whole, True)
