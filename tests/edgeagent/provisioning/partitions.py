"""Boot partitions for tests, as a person writes them."""

from __future__ import annotations

from pathlib import Path

from edgeagent.settings import reading
from modelwire.wire.keys import KeyKind, write_fleet, write_key
from tests import keys
from tests.edgeagent.boards import DEVICE_SEED, TINY, TOKEN

SETTINGS = """\
[device]
name = "pi-7"
fleet = "home"

[link]
broker = "mqtt://192.0.2.10"
user = "pi"
password_file = "broker.password"

[[model]]
name = "tiny"
train = { epochs = 3 }
"""
SECRETS = ("line-3.claim", "broker.password", "device.key")


def lay(folder: Path, settings: str = SETTINGS, *, old: bool = False) -> Path:
    """Write a whole boot partition. old: of a board that gets its old key back."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "edgeagent.toml").write_text(settings)
    (folder / "tiny.tflite").write_bytes(TINY)
    (folder / "fleet.pub").write_text(write_fleet(keys.FLEET) + "\r\n")
    (folder / "broker.password").write_text("open sesame\n")
    (folder / "config.txt").write_text("arm_64bit=1\n")
    if old:
        (folder / "device.key").write_text(write_key(KeyKind.DEVICE_PRIVATE, DEVICE_SEED) + "\n")
    else:
        (folder / "line-3.claim").write_text(f"{TOKEN}\n")
    return folder


def held(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def is_whole(folder: Path) -> bool:
    """Return whether a board's folder is there; check that it is whole then."""
    if not (folder / reading.FILE).exists():
        return False
    loaded = reading.load(folder / reading.FILE, environment={}, flags={})
    assert [m.name for m in loaded.settings.models] == ["tiny"]
    names = {p.name for p in folder.iterdir()}
    assert names - {"device.claim"} == {".provisioned", "broker.password", "device.key", "edgeagent.toml", "fleet.pub", "state"}
    assert (folder / "state/models/tiny/served.tflite").read_bytes() == TINY
    for name in ("device.key", "broker.password", ".provisioned", *(["device.claim"] if "device.claim" in names else [])):
        assert (folder / name).stat().st_mode & 0o077 == 0
    return True
