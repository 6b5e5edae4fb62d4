"""A backup that only the holder of a key reads: whatever happens to it on the way, nothing half of it becomes a registry."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from pathlib import Path

import pytest

from edgecloud.registry import encrypted
from edgecloud.registry.encrypted import backup_encrypted, decrypt, is_encrypted, read_identities, read_recipients, restore_encrypted
from modelwire.errors import BadArgument, DigestMismatch, MissingFile, ModelWireError, StateBusy
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.commands.test_trust import killed_at
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import Base, ScriptedDevice
from tests.edgecloud.registry.test_backup import exact, silent

pytest.importorskip("pyrage")  # no wheel on 32-bit ARM


@pytest.fixture
def registry(tmp_path: Path, base: Base) -> Path:
    path = tmp_path / "fleet.db"
    store = make_registry(path, base, files_from=0)
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, *(device.train() for _ in range(5)))
    centre.rebuild()
    store.close()
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    private, public = encrypted.made_backup_key()
    path = tmp_path / "backup.key"
    path.write_text(f"# public key: {public}\n{private}\n")
    path.chmod(0o600)
    (tmp_path / "backup.pub").write_text(f"{public}\n")
    return path


def sealed(registry: Path, key: Path, name: str = "monday.age") -> Path:
    target = registry.with_name(name)
    backup_encrypted(registry, target, read_recipients([str(key.with_name("backup.pub"))]), progress=silent)
    return target


def left(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if not p.name.endswith((".lock", "-wal", "-shm"))}


def test_a_backup_is_sealed_to_a_key_and_opened_by_it_exactly(registry: Path, key: Path) -> None:
    before = left(registry.parent)
    copy = sealed(registry, key)
    assert left(registry.parent) == before | {"monday.age"}, "no plain copy stays"
    assert is_encrypted(copy) and not is_encrypted(registry) and b"SQLite" not in copy.read_bytes() and copy.stat().st_mode & 0o077 == 0
    target = registry.with_name("other.db")
    assert restore_encrypted(copy, target, read_identities(key), progress=silent) is None
    assert exact(target) == exact(registry) == 5 and target.stat().st_mode & 0o077 == 0
    aside = restore_encrypted(copy, target, read_identities(key), progress=silent, replace=True)
    assert aside is not None and exact(aside) == 5
    assert left(registry.parent) == before | {"monday.age", "other.db", aside.name}


def test_each_of_several_keys_opens_a_backup(registry: Path, key: Path, tmp_path: Path) -> None:
    private, public = encrypted.made_backup_key()
    other = tmp_path / "other.key"
    other.write_text(private)
    other.chmod(0o600)
    copy = tmp_path / "two.age"
    backup_encrypted(registry, copy, read_recipients([str(key.with_name("backup.pub")), public]), progress=silent)
    for one, name in ((key, "a.db"), (other, "b.db")):
        restore_encrypted(copy, tmp_path / name, read_identities(one), progress=silent)
        assert exact(tmp_path / name) == 5


def test_another_key_opens_nothing(registry: Path, key: Path, tmp_path: Path) -> None:
    copy = sealed(registry, key)
    private, _ = encrypted.made_backup_key()
    (tmp_path / "wrong.key").write_text(private)
    (tmp_path / "wrong.key").chmod(0o600)
    before = left(tmp_path)
    with pytest.raises(BadArgument, match="none of the keys"):
        restore_encrypted(copy, tmp_path / "new.db", read_identities(tmp_path / "wrong.key"), progress=silent)
    assert left(tmp_path) == before


def test_a_backup_that_was_cut_changed_or_put_in_another_order_becomes_no_registry(registry: Path, key: Path, tmp_path: Path) -> None:
    copy = sealed(registry, key)
    data, mine = copy.read_bytes(), read_identities(key)
    known, before = hashlib.sha256(registry.read_bytes()).digest(), left(tmp_path)
    payload = data.index(b"\n---") + data[data.index(b"\n---") :].index(b"\n", 1) + 1 + 16
    block = 64 * 1024 + 16
    assert len(data) > payload + 2 * block, "several chunks"
    first, second = data[payload : payload + block], data[payload + block : payload + 2 * block]
    rng = random.Random(7)
    changed = [data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] for at in [*range(0, payload + 40, 3), *(
        rng.randrange(payload, len(data)) for _ in range(60))]]  # fmt: skip
    cut = [data[:at] for at in (0, 1, 30, payload - 1, payload, payload + 100, payload + block, payload + 2 * block, len(data) - 1)]
    moved = [
        data[:payload] + second + first + data[payload + 2 * block :], data[:payload] + data[payload + block :],
        data[:payload] + first + data[payload:], data + b"x", data + data[payload:],
    ]  # fmt: skip
    for bad in (*changed, *cut, *moved):
        copy.write_bytes(bad)
        with pytest.raises(ModelWireError) as refused:
            restore_encrypted(copy, registry, mine, progress=silent, replace=True)
        assert isinstance(refused.value, DigestMismatch) or refused.value.message.endswith("opens this backup"), refused.value
        assert left(tmp_path) == before
    assert hashlib.sha256(registry.read_bytes()).digest() == known


def test_a_plain_copy_is_never_taken_for_an_encrypted_one(desk: Desk) -> None:
    desk.ok("init")
    public = desk.json("keys", "backup")["public"]
    assert desk.error("keys", "backup")["error"] == "BadArgument", "a key is never overwritten"
    assert (desk.folder / "backup.key").stat().st_mode & 0o077 == 0
    desk.ok("backup", "plain.db")
    assert desk.json("backup", "sealed.age", "--encrypt-to", str(public))["encrypted"] is True
    assert "--backup-key" in str(desk.error("restore", "sealed.age", "--db", "a.db")["hint"])
    assert "not encrypted" in str(desk.error("restore", "plain.db", "--db", "a.db", "--backup-key", "backup.key")["message"])
    assert not (desk.folder / "a.db").exists()
    assert desk.json("restore", "sealed.age", "--db", "a.db", "--backup-key", "backup.key")["fleet"] == "fleet"
    (desk.folder / "backup.key").chmod(0o644)
    assert desk.error("restore", "sealed.age", "--db", "b.db", "--backup-key", "backup.key")["hint"] == "chmod 600 backup.key"


@pytest.mark.parametrize("said", ["age1nonsense", "none.pub", "backup.key", "empty", "AGE-SECRET-KEY-1X", "edge-command-pub:" + "00" * 32])
def test_what_is_no_public_key_is_named_before_anything_is_written(desk: Desk, said: str) -> None:
    desk.ok("init")
    private = desk.json("keys", "backup")
    (desk.folder / "empty").write_text("# nothing\n")
    message = desk.error("backup", "sealed.age", "--encrypt-to", said)
    assert message["error"] == "BadArgument" and not (desk.folder / "sealed.age").exists() and private["public"] not in str(message)
    secret = (desk.folder / "backup.key").read_text().split("\n")[1]
    assert secret not in str(message)


@pytest.mark.parametrize("text", ["", "# a comment\n", "nonsense", "AGE-SECRET-KEY-1" + "Q" * 58, "edge-root-key:" + "00" * 32])
def test_what_is_no_private_key_opens_nothing_and_is_not_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "backup.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(BadArgument) as refused:
        read_identities(path)
    assert not text.strip() or text not in str(refused.value)
    with pytest.raises(MissingFile):
        read_identities(tmp_path / "none")


def test_a_full_disk_is_told_from_a_damaged_backup(registry: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, before = sealed(registry, key), left(tmp_path)

    class Full:
        def __init__(self, file: object) -> None:
            self.failed: OSError | None = None

        def write(self, data: bytes) -> int:
            self.failed = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise self.failed

        def flush(self) -> None:
            pass

    monkeypatch.setattr(encrypted, "_Watched", Full)
    with pytest.raises(OSError, match="No space") as refused:
        restore_encrypted(copy, tmp_path / "new.db", read_identities(key), progress=silent)
    assert not isinstance(refused.value, ModelWireError) and left(tmp_path) | {"monday.age"} == before | {"monday.age"}


def test_a_registry_that_is_in_use_is_not_replaced(registry: Path, key: Path, tmp_path: Path) -> None:
    from edgecloud.registry.lock import lock_registry

    copy, before = sealed(registry, key), left(tmp_path)
    with lock_registry(registry), pytest.raises(StateBusy):
        restore_encrypted(copy, registry, read_identities(key), progress=silent, replace=True)
    with pytest.raises(BadArgument, match="there already"):
        restore_encrypted(copy, registry, read_identities(key), progress=silent)
    with pytest.raises(BadArgument, match="there already"):
        sealed(registry, key)
    with pytest.raises(BadArgument, match="there already"):
        backup_encrypted(registry, registry, read_recipients([str(key.with_name("backup.pub"))]), progress=silent, replace=True)
    assert left(tmp_path) == before


@pytest.mark.slow("encrypts 64 MiB", seconds=3)
def test_memory_does_not_grow_with_the_backup(tmp_path: Path, key: Path) -> None:
    import subprocess
    import sys

    plain, size = tmp_path / "plain", 64 * 1024 * 1024
    with plain.open("wb") as file:
        file.truncate(size)
    public = key.with_name("backup.pub").read_text().strip()
    program = (
        "import sys, pyrage; from pathlib import Path; from edgecloud.registry.encrypted import decrypt, read_identities\n"
        "f, k, p = map(Path, sys.argv[1:4])\n"
        "to = [pyrage.x25519.Recipient.from_str(sys.argv[4])]\n"
        "with f.open('rb') as a, f.with_suffix('.age').open('wb') as b: pyrage.encrypt_io(a, b, to)\n"
        # The process's own peak: what getrusage tells begins with the parent's.
        "peak = lambda: next(int(x.split()[1]) for x in open('/proc/self/status') if x.startswith('VmHWM:'))\n"
        "before = peak()\n"
        "decrypt(f.with_suffix('.age'), p, read_identities(k))\n"
        "print(peak() - before, before)\n"
    )
    command = [sys.executable, "-c", program, str(plain), str(key), str(tmp_path / "again"), public]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown, before = map(int, done.stdout.split())
    assert grown < 16 * 1024 and (tmp_path / "again").stat().st_size == size, (grown, before)


def test_a_file_that_is_there_is_never_written_through(registry: Path, key: Path, tmp_path: Path) -> None:
    copy = sealed(registry, key)
    (tmp_path / "there").write_text("mine")
    with pytest.raises(FileExistsError):
        decrypt(copy, tmp_path / "there", read_identities(key))
    assert (tmp_path / "there").read_text() == "mine"


@pytest.mark.slow("kills a backup at each touch of the disk", seconds=5)
def test_a_backup_that_is_killed_anywhere_is_whole_or_not_there(desk: Desk) -> None:
    desk.ok("init")
    public, kills = str(desk.json("keys", "backup")["public"]), 0
    mine, target = read_identities(desk.folder / "backup.key"), desk.folder / "m.age"
    while killed_at(desk, kills, "backup", "m.age", "--encrypt-to", public, "--force"):
        kills += 1
        if target.exists():
            decrypt(target, desk.folder / f"opened-{kills}", mine)
        for left_over in desk.folder.glob("*.copy"):
            assert left_over.stat().st_mode & 0o077 == 0, "what a kill leaves is the owner's alone"
    decrypt(target, desk.folder / "opened", mine)
    assert kills > 4 and (desk.folder / "opened").read_bytes()[:6] == b"SQLite"
