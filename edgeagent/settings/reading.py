"""Reads settings: flag before environment before file before default, strictly, remembering where each came from."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from edgecommon import access
from edgecommon.broker import holds_password, redacted
from edgecommon.files import open_regular
from modelwire.errors import BadArgument, ConfigError, Malformed, MissingFile, UnknownKey
from modelwire.names import check_name, check_own_name
from modelwire.text import is_plain
from modelwire.wire.claims import PREFIX as PREFIX_OF_TOKEN
from modelwire.wire.claims import SERIAL_MAX

from . import units
from .channels import channels_of
from .tree import PER_MODEL, SECTIONS, ModelSettings, Settings

FILE = "edgeagent.toml"
PREFIX = "EDGEAGENT_"
NOT_SETTINGS = {"EDGEAGENT_DIR"}  # says which folder, before there are settings
FILE_MAX = 256 * 1024  # bytes
PASSWORD_GOES = (
    "put the password alone into a file of mode 600 and name that with link.password_file (EDGEAGENT_LINK_PASSWORD_FILE), "
    "and the user with link.user"
)
BEYOND = 1 << 53  # no setting makes sense above it, and files and clocks can't hold much more


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with where each came from: "flag", "EDGEAGENT_...", "file" or "default"."""

    settings: Settings
    origins: Mapping[str, str]
    path: Path

    @property
    def folder(self) -> Path:
        """The folder of the settings file; relative paths in it start here."""
        return self.path.parent

    def resolve(self, path: str) -> Path:
        return self.folder / path

    @property
    def state(self) -> Path:
        return self.resolve(self.settings.device.dir)


def load(path: Path, *, environment: Mapping[str, str], flags: Mapping[str, str]) -> Loaded:
    """Return the settings of the file `path` under environment and flags ("section.key" -> text).

    Raises MissingFile, UnknownKey or ConfigError, which name the place.
    """
    try:
        with open_regular(path) as file:
            raw = file.read(FILE_MAX + 1)
    except FileNotFoundError:
        fix = "edgeagent init makes it; --dir or EDGEAGENT_DIR names its folder"
        raise MissingFile(path=path, what="the settings file", fix=fix) from None
    except OSError as e:
        raise _unreadable(path, e) from None
    if len(raw) > FILE_MAX:
        raise ConfigError(reason=f"{path}: more than {FILE_MAX} bytes are too many for a settings file")
    try:
        table = parse(raw.decode())
    except UnicodeDecodeError:
        raise ConfigError(reason=f"{path}: it is no text, and a settings file is TOML") from None
    except ValueError as e:  # not TOML
        raise ConfigError(reason=f"{path}: {e}") from None
    return build(table, where=str(path), path=path, environment=environment, flags=flags)


def _unreadable(path: Path, error: OSError) -> ConfigError:
    """Return the error for settings that can't be read; one who may not read them is told who may."""
    why, owner = access.shut(path) if isinstance(error, PermissionError) else ("", "")
    named = ConfigError(reason=f"{path}: {error.strerror}" + (f": {why}; nothing of this device may be seen" if why else ""))
    if owner:
        named.hint = f"sudo {'' if owner == 'root' else f'-u {owner} '}edgeagent status --config {path.absolute()}"
    return named


def parse(text: str) -> dict[str, Any]:
    """Return the table that TOML text holds. Raises tomllib.TOMLDecodeError, a ValueError."""
    return tomllib.loads(text)


def build(
    table: Mapping[str, Any], *, where: str, path: Path, environment: Mapping[str, str], flags: Mapping[str, str]
) -> Loaded:
    """Return the settings that a parsed TOML table, the environment and flags give together."""
    _known(table, [*SECTIONS, "model"], f"{where}: ")
    over = {**_from_environment(environment), **{k: (v, "flag") for k, v in flags.items()}}
    for key in flags:
        section, _, name = key.partition(".")
        _known([section], SECTIONS, "flag ")
        _known([name], [f.name for f in fields(SECTIONS[section])], f"flag {section}.")
    origins: dict[str, str] = {}
    made: dict[str, Any] = {}
    for section, cls in SECTIONS.items():
        given = _table(table.get(section, {}), f"{where}: [{section}]")
        made[section] = _section(cls, section, section, given, over, where, origins)
    models = _models(table.get("model", []), made, over, where, origins)
    settings = Settings(**made, models=models)
    _check(settings, where)
    return Loaded(settings, origins, path)


def parse_value(f: Field[Any], value: Any, where: str) -> Any:
    """Return `value` as the setting `f` holds it: units resolved, type and range checked. Raises ConfigError."""
    kind = str(f.type)
    try:
        if f.metadata["unit"] == "seconds":
            value = units.seconds(value)
        elif f.metadata["unit"] == "bytes":
            value = units.size(value)
        elif f.metadata["unit"] == "budget":
            value = units.budget(value)
        elif f.metadata["unit"] == "words":
            value = units.words(value)
        elif kind == "bool":
            value = _truth(value)
        elif kind == "str":
            if not isinstance(value, str) or not value.isprintable():
                raise ValueError(f"{redacted(value) if isinstance(value, str) else value!r} is not a line of text")
        else:
            value = _number(kind, value)
    except (ValueError, TypeError, OverflowError) as e:
        raise ConfigError(reason=f"{where}: {e}") from None
    if isinstance(value, tuple):
        return value
    if not isinstance(value, str) and abs(value) > BEYOND:
        raise ConfigError(reason=f"{where}: that is beyond all measure")
    choices, least, most = f.metadata["choices"], f.metadata["least"], f.metadata["most"]
    if choices and value not in choices:
        raise ConfigError(reason=f"{where}: {value!r} is not one of {', '.join(choices)}")
    if (least is not None and value < least) or (most is not None and value > most):
        bounds = " and ".join(s for s in (f"at least {least:g}" if least is not None else "", f"at most {most:g}" if most else "") if s)
        raise ConfigError(reason=f"{where}: {value:g} is out of range; it must be {bounds}")
    return value


def _truth(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false")
    return value


def _number(kind: str, value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number belongs here, not true or false")
    if isinstance(value, str):
        try:
            value = float(value) if kind == "float" else int(value)
        except ValueError:
            from edgecommon.arguments import shown  # with all of argparse: not in the memory of an agent that runs

            raise ValueError(f"{shown(redacted(value))} is not a {'' if kind == 'float' else 'whole '}number") from None
    if not isinstance(value, (int, float)) or value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{value!r} is not a number")
    if kind == "int" and value != int(value):
        raise ValueError(f"{value!r} is not a whole number")
    return int(value) if kind == "int" else float(value)


def _section(
    cls: type[Any], section: str, label: str, given: Mapping[str, Any], over: Mapping[str, tuple[str, str]], where: str,
    origins: dict[str, str], base: Any = None,
) -> Any:  # fmt: skip
    """Return one dataclass. base: the section that it overrides (a model's own [train] over the common one)."""
    _known(given, [f.name for f in fields(cls)], f"{where}: {label}.")
    values = {}
    for f in fields(cls):
        key = f"{section}.{f.name}"
        if key in over:
            text, origin = over[key]
            values[f.name] = parse_value(f, text, f"{origin} for {key}" if origin == "flag" else origin)
        elif f.name in given:
            origin = "file"
            values[f.name] = parse_value(f, given[f.name], f"{where}: {label}.{f.name}")
        elif base is not None:
            values[f.name] = getattr(base, f.name)
            continue
        else:
            origin = "default"
            values[f.name] = f.default
        if base is None or origin == "file":
            origins[f"{label}.{f.name}"] = origin
    return cls(**values)


def _models(
    raw: Any, made: Mapping[str, Any], over: Mapping[str, tuple[str, str]], where: str, origins: dict[str, str]
) -> tuple[ModelSettings, ...]:
    if isinstance(raw, dict):  # [model.NAME]
        rows = [{"name": name, **_table(row, f"{where}: [model.{name}]")} for name, row in raw.items()]
    elif isinstance(raw, list):  # [[model]]
        rows = [_table(row, f"{where}: [[model]]") for row in raw]
    else:
        raise ConfigError(reason=f"{where}: model is a table [model.NAME] or a list of tables [[model]]")
    out: list[ModelSettings] = []
    for row in rows:
        _known(row, ["name", *PER_MODEL], f"{where}: model.")
        if "name" not in row:
            raise ConfigError(reason=f"{where}: a [[model]] has no name")
        name = _name("model name", row["name"], where)
        if name in [m.name for m in out]:
            raise ConfigError(reason=f"{where}: the model {name!r} is there twice")
        own = {
            s: _section(
                SECTIONS[s], s, f"model.{name}.{s}", _table(row.get(s, {}), f"{where}: model {name}: {s}"), over, where, origins,
                base=made[s],
            )
            for s in PER_MODEL
        }  # fmt: skip
        out.append(ModelSettings(name, **own, profile=made["link"].profile))
    return tuple(out)


def _check(s: Settings, where: str) -> None:
    """Refuse settings that don't go together, and a secret where others see it."""
    check_broker(s.link.broker)
    _name("device.name", s.device.name, where)
    _name("device.fleet", s.device.fleet, where)
    if s.device.claim.startswith(f"{PREFIX_OF_TOKEN}:"):  # not repeated: settings are read by more people than the token is for
        raise ConfigError(reason=f"{where}: device.claim names the file that holds the token, and never the token itself")
    if len(s.device.serial) > SERIAL_MAX or not is_plain(s.device.serial):
        raise ConfigError(reason=f"{where}: device.serial is longer than {SERIAL_MAX} characters")
    if not s.models:
        raise ConfigError(reason=f"{where}: there is no [[model]]")
    for what, low, high in (
        ("link.reconnect_min and link.reconnect_max", s.link.reconnect_min, s.link.reconnect_max),
        ("link.resend and link.resend_max", s.link.resend, s.link.resend_max),
    ):
        if low > high:
            raise ConfigError(reason=f"{where}: {what} are the wrong way round")
    for m in s.models:
        try:
            channels_of(m.card.channels)
            m.privacy.rules()
        except (ConfigError, Malformed) as e:
            raise ConfigError(reason=f"{where}: {e.message}") from None
        try:
            units.windows(m.budget.window)
        except ValueError as e:
            raise ConfigError(reason=f"{where}: budget.window: {e}") from None
        if m.budget.flash_bytes_a_day != s.budget.flash_bytes_a_day:
            raise ConfigError(reason=f"{where}: budget.flash_bytes_a_day is the whole board's; {m.name} can't have one of its own")
        if m.update.max_bytes * 2 > s.outbox.max_bytes:
            raise ConfigError(reason=f"{where}: outbox.max_bytes must hold two updates of {m.name}, {m.update.max_bytes} bytes each")


def check_broker(url: str) -> None:
    """Raise BadArgument for a broker's URL with a password: settings, command lines and logs are seen by others."""
    if holds_password(url):
        reason = f"link.broker: {redacted(url)!r} holds a password, and a URL is no place for one"
        raise BadArgument(reason=reason, fix=PASSWORD_GOES)


def _name(what: str, value: Any, where: str) -> str:
    try:
        return check_name(what, value) if what == "device.fleet" else check_own_name(what, value)
    except Malformed as e:
        raise ConfigError(reason=f"{where}: {e.message}") from None


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(reason=f"{where} is not a table")
    return value


def _known(given: Iterable[str], names: Iterable[str], where: str) -> None:
    names = list(names)
    for key in given:
        if key not in names:
            import difflib  # for those who mistype

            near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            raise UnknownKey(where=where.rstrip(": ."), key=key, suggestion=f" (did you mean {near[0]!r}?)" if near else "")


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    names = {f"{PREFIX}{s}_{f.name}".upper(): f"{s}.{f.name}" for s, cls in SECTIONS.items() for f in fields(cls)}
    mine = [name for name in environment if name.startswith(PREFIX) and name not in NOT_SETTINGS]
    _known(mine, names, "environment")
    return {names[name]: (environment[name], name) for name in mine}
