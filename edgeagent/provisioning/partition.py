"""Reads what somebody put on a boot partition: anybody may have written it, so each file has a kind, a size and a form."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeagent.board.sensors import Sensors
from edgeagent.settings import reading
from edgeagent.settings.reading import FILE, FILE_MAX, Loaded
from edgeagent.state.keys import WHENCE, told_whence
from edgecommon.files import TEMPORARY
from modelwire.errors import BadArgument, ConfigError, MissingFile, ModelError, UnknownKey, WireError
from modelwire.limits import DEFAULT
from modelwire.tflite import file as tflite_file
from modelwire.tflite.notes import notes_of
from modelwire.wire import claims, keys
from modelwire.wire.keys import KeyKind
from modelwire.wire.signing import Fleet

FLEET, KEY, CLAIM = "fleet.pub", "device.key", "device.claim"
BESIDE = ("password_file", "tls_ca", "tls_cert", "tls_key")  # of [link]: files that settings name, and that come along
BESIDE_MAX = 256 * 1024  # bytes of one of them
MARK = ".provisioned"  # in the folder that is made: what it was made of
# What a start of the board reads on its boot partition: a secret of such a name would take it away as it is erased.
OF_THE_BOOT = (
    "config.txt", "cmdline.txt", "slots.a", "slots.b", "authorized_keys", "wifi.toml", "firmware", "readme.txt", "vmlinuz", "initrd",
    "kernel",
)  # fmt: skip
OF_THE_BOOT_KINDS = (".img", ".dtb", ".dtbo", ".elf", ".bin", ".dat", ".efi")
NAMES_MAX = 10_000  # a vfat's root holds 65,536; a card with more than this is no boot partition of ours
_WHENCE_CLAIM = "take the file that edgecloud claim new -o wrote"
_PLACE = re.compile(r"\b([a-z]+)\.([a-z_]+)\b")


@dataclass(frozen=True, slots=True)
class BootPartition:
    """What a board is to become."""

    folder: Path
    text: str  # of the settings, as they were written
    loaded: Loaded  # the same, read and checked
    table: dict[str, Any]  # the same, as TOML gives it
    models: dict[str, bytes]  # the base's file, in the order of the settings
    fleet: Fleet
    seed: bytes | None  # of the private key, where a board gets its old one back
    token: str  # the claim's line, or empty
    beside: dict[str, bytes] = field(default_factory=dict)  # by their names: what [link] names
    secrets: tuple[str, ...] = ()  # names of files that are erased once what was made of them is safe


def read_partition(folder: Path) -> BootPartition:
    """Return what lies on a boot partition. Raises ConfigError and what is below it, which name the file, the line, and what to do."""
    require_partition(folder)
    raw = read_file(folder, FILE, FILE_MAX, "the settings file")
    text, table = _parsed(raw, folder / FILE)
    try:
        loaded = reading.build(table, where=str(folder / FILE), path=folder / FILE, environment={}, flags={})
    except ConfigError as error:
        raise _with_line(error, text) from None
    _names_apart(folder, loaded)
    models = {m.name: _base(folder, m.name) for m in loaded.settings.models}
    with told_whence(WHENCE[KeyKind.FLEET]):
        fleet = keys.read_fleet(_line(folder, FLEET, KeyKind.FLEET.title), str(folder / FLEET))
    seed, token, secrets = None, "", []
    if (folder / KEY).exists() or (folder / KEY).is_symlink():
        with told_whence(WHENCE[KeyKind.DEVICE_PRIVATE]):
            seed = keys.read_key(_line(folder, KEY, KeyKind.DEVICE_PRIVATE.title), KeyKind.DEVICE_PRIVATE, str(folder / KEY))
        secrets.append(KEY)
    if claim := _claim_file(folder):
        token = _line(folder, claim, claims.TITLE)
        with told_whence(_WHENCE_CLAIM):
            claims.read_token(token, str(folder / claim))
        secrets.append(claim)
    beside = _beside(folder, loaded)
    secrets += [name for name in beside if name in (loaded.settings.link.password_file, loaded.settings.link.tls_key)]
    return BootPartition(folder, text, loaded, table, models, fleet, seed, token, beside, tuple(secrets))


def require_partition(folder: Path) -> None:
    """Raise BadArgument where no boot partition is mounted: one that is there holds a kernel at least."""
    fix = "see with dmesg whether the card can be read, and write it anew"
    try:
        if not any(folder.iterdir()):
            raise BadArgument(reason=f"{folder}: no boot partition is there: the folder is empty", fix=fix)
    except (FileNotFoundError, NotADirectoryError):
        raise BadArgument(reason=f"{folder}: no boot partition is there", fix=fix) from None
    except OSError as error:
        raise BadArgument(reason=f"{folder}: the boot partition can't be read: {error.strerror}", fix=fix) from None


def read_file(folder: Path, name: str, most: int, what: str) -> bytes:
    """Return the bytes of one file. Raises MissingFile, ConfigError for what is no file, can't be read, is empty or too large."""
    path = folder / name
    try:
        # A link could lead to any file of the board, a pipe would be waited for.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise MissingFile(path=path, what=what, fix=f"put it onto the boot partition as {name}") from None
    except OSError as error:
        fix = "put the file itself there" if error.errno == errno.ELOOP else "write the card anew, or take another one"
        raise BadArgument(reason=f"{path}: {'it is a link' if error.errno == errno.ELOOP else error.strerror}", fix=fix) from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise BadArgument(reason=f"{path}: it is no file, and {what} belongs there", fix="put the file itself there")
        if found.st_size > most:
            reason = f"{path}: it has {found.st_size:,} bytes, and {what} has at most {most:,}"
            raise BadArgument(reason=reason, fix=f"copy {what} there anew, or a smaller one")
        # A byte more than there should be, not than there may be: read() sets all of it aside, and a board may have 512 MB.
        data = _all(handle, found.st_size + 1)
    except OSError as error:
        raise BadArgument(reason=f"{path}: {error.strerror}", fix="write the card anew, or take another one") from None
    finally:
        os.close(handle)
    if not data or len(data) > found.st_size:
        raise BadArgument(reason=f"{path}: it is empty, or grew while it was read", fix=f"copy {what} there anew")
    return data


def _all(handle: int, most: int) -> bytes:
    """Return what a file holds, up to so many bytes."""
    parts, left = [], most
    while left and (part := os.read(handle, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _base(folder: Path, model: str) -> bytes:
    """Return a model's file that can be trained."""
    board = Sensors().memory()
    most = min(DEFAULT.model_file, board // 4) if board else DEFAULT.model_file  # beyond that the kernel would end this program
    data = read_file(folder, f"{model}.tflite", most, f"the base of the model {model!r}")
    try:
        tflite_file.check_trainable(data, model=model)
        notes_of(data, model=model)
    except (ModelError, WireError) as error:
        raise BadArgument(reason=f"{folder / model}.tflite: {error.message}", fix=f"copy the base of {model!r} there anew") from None
    return data


def _parsed(raw: bytes, path: Path) -> tuple[str, dict[str, Any]]:
    try:
        # Editors of other systems begin a file with a mark and end its lines in two characters.
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadArgument(reason=f"{path}, line {line}: it is no text in UTF-8", fix="save it as UTF-8") from None
    try:
        return text, reading.parse(text)
    except RecursionError:
        raise BadArgument(reason=f"{path}: brackets within brackets, without end", fix="see docs/board-setup.md") from None
    except ValueError as error:  # "... (at line 3, column 5)"
        raise BadArgument(reason=f"{path}: {error}", fix="mend that line; edgeagent init writes a file to look at") from None


def _with_line(error: ConfigError, text: str) -> ConfigError:
    """Return the same error with the line that it is about, where one can be told."""
    words = [("", str(error.facts["key"]))] if isinstance(error, UnknownKey) else _PLACE.findall(error.message.replace(FILE, ""))
    for section, word in words:
        if number := _line_of(text, section, word, inline="model." in error.message):
            fix = f"mend line {number} of {FILE}; edgeagent config show on a board that is set up lists the settings"
            return BadArgument(reason=f"line {number}: {error.message}", fix=fix)
    # edgeagent config check, the usual next step, looks at a board that is set up.
    return error if "fix" in error.facts else BadArgument(reason=error.message, fix=f"mend {FILE} there: docs/board-setup.md")


def _line_of(text: str, section: str, word: str, *, inline: bool) -> int:
    """Return the line that sets this key in a table of that name, or names the table; 0 for none. section: empty: any.

    inline: a model's own is meant, section = { key = ... }, where there is one.
    """
    table, found, within = "", 0, 0
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([\w.-]+)\s*\]", line)
        if header:
            table = header[1]
        named = header is not None and section in ("", table.partition(".")[0]) and word == table.rpartition(".")[2]
        inside = section in ("", *table.split(".")) and re.match(rf"\s*([\w.]+\.)?{re.escape(word)}\s*[=.]", line)
        if named or inside or (section and re.match(rf"\s*{re.escape(section)}\s*\.\s*{re.escape(word)}\s*=", line)):
            found = found or number
        if section and re.match(rf"\s*{re.escape(section)}\s*=\s*\{{.*\b{re.escape(word)}\s*=", line):
            within = within or number
    return (within or found) if inline else (found or within)


def _line(folder: Path, name: str, what: str) -> str:
    """Return a file of one line. Its text is never repeated: it may be a secret."""
    data = read_file(folder, name, keys.TEXT_MAX, what)
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise BadArgument(reason=f"{folder / name}: it is no line of text, and {what} is one", fix="copy it there anew") from None


def _claim_file(folder: Path) -> str:
    """Return the name of the file with a claim's token; empty for none. Raises BadArgument for two."""
    found = [name for name in names_of(folder) if name.lower().endswith(".claim")]
    if len(found) > 1:
        names = ", ".join(ascii(name) for name in sorted(found)[:4])
        raise BadArgument(reason=f"{folder}: more than one claim: {names}", fix="leave the one that this board is to come by")
    return found[0] if found else ""


def names_of(folder: Path) -> list[str]:
    """Return the names of all files but those with a dot first: some systems put a ._twin beside each file. Raises BadArgument."""
    found = []
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count >= NAMES_MAX:
                raise BadArgument(reason=f"{folder}: more than {NAMES_MAX} files", fix="leave there what belongs there")
            if not entry.name.startswith("."):
                found.append(entry.name)
    return found


def require_own_names(folder: Path) -> None:
    """Raise BadArgument for a file that an editor gave one more suffix, which its system may hide: a claim would be passed over."""
    for name in names_of(folder):
        meant, _, suffix = name.lower().rpartition(".")
        if suffix == "txt" and (meant in (FILE, FLEET, KEY) or meant.endswith((".claim", ".tflite"))) and not (folder / meant).exists():
            raise BadArgument(reason=f"{folder / ascii(name)[1:-1]}: its name ends in .txt", fix=f"call it {ascii(meant)[1:-1]}")


def _names_apart(folder: Path, loaded: Loaded) -> None:
    """Raise BadArgument where two files of the board would have one name: the later one would take the place of the other."""
    device = loaded.settings.device
    taken = {FILE: "the settings file", MARK: "what is noted of the setting up"}
    for key in ("key", "fleet_key", "claim", "dir"):
        name = getattr(device, key)
        if name in taken:
            raise BadArgument(reason=f"{folder / FILE}: device.{key} can't be {name!r}, which is {taken[name]}", fix="call it otherwise")
        taken[name] = f"device.{key}"


def _beside(folder: Path, loaded: Loaded) -> dict[str, bytes]:
    """Return the files that [link] names by a plain name; a path that leads elsewhere is the board's own affair."""
    out = {}
    device = loaded.settings.device
    bases = [f"{m.name}.tflite" for m in loaded.settings.models]
    own = (FILE, FLEET, KEY, CLAIM, device.key, device.fleet_key, device.claim, device.dir, *bases)
    others = {name.lower() for name in (*own, *OF_THE_BOOT)}  # a vfat takes letters of both sizes for the same
    for key in BESIDE:
        name = getattr(loaded.settings.link, key)
        if not name or "/" in name or name in (".", ".."):
            continue
        if name.lower() in others or name.lower().endswith((*OF_THE_BOOT_KINDS, ".claim")):
            raise BadArgument(reason=f"{folder / FILE}: link.{key} can't be {name!r}, which is another file", fix="call it otherwise")
        if name.startswith(".") or name.endswith(TEMPORARY):
            raise BadArgument(reason=f"{folder / FILE}: link.{key} can't be {name!r}, a name of passing files", fix="call it otherwise")
        out[name] = read_file(folder, name, BESIDE_MAX, f"what link.{key} names")
    return out
