"""Settings: strict, with units, and each knows where it came from."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.settings import reading, template, units
from edgeagent.settings.reading import Loaded
from edgeagent.settings.tree import SECTIONS, Settings, keys
from modelwire.errors import ConfigError, MissingFile, UnknownKey

LEAST = '[device]\nname = "pi-7"\nfleet = "home"\n[[model]]\nname = "digits"\n'


def read(text: str, *, environment: dict[str, str] | None = None, flags: dict[str, str] | None = None) -> Loaded:
    return reading.build(
        reading.parse(text), where="t.toml", path=Path("t.toml"), environment=environment or {}, flags=flags or {}
    )


def test_names_and_one_model_are_enough() -> None:
    s = read(LEAST).settings
    assert (s.link, s.train) == (Settings().link, Settings().train)
    assert s.model("digits").train == s.train


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[link]\nressend = '30s'\n", r"t.toml: link: there is no setting 'ressend' \(did you mean 'resend'\?\)"),
        ("[lnk]\nresend = '30s'\n", r"t.toml: there is no setting 'lnk' \(did you mean 'link'\?\)"),
        ("[train]\nzzzz = 1\n", r"t.toml: train: there is no setting 'zzzz'$"),
    ],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(text: str, said: str) -> None:
    with pytest.raises(UnknownKey, match=said):
        read(text + LEAST)


def test_an_unknown_variable_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(UnknownKey, match="did you mean 'EDGEAGENT_LINK_RESEND'"):
        read(LEAST, environment={"EDGEAGENT_LINK_RESENT": "1s"})
    assert read(LEAST, environment={"EDGEAGENT_DIR": "x", "HOME": "y"}).settings.device.name == "pi-7"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[link]\nresend = '30 parsecs'", "'parsecs' is not a unit of time"),
        ("[link]\nresend = true", "true and false are not quantities"),
        ("[link]\nresend = -1", "negative"),
        ("[link]\nresend = '2h'\nresend_max = '1h'", "the wrong way round"),
        ("[link]\nwindow = 9", "out of range; it must be at least 1 and at most 8"),
        ("[link]\nwindow = 2.5", "not a whole number"), ("[link]\nwindow = 'abc'", "'abc' is not a whole number"),
        ("[train]\nheld_out = 'abc'", "'abc' is not a number"),
        ("[link]\nwindow = '4'", None),
        ("[link]\nprotocol = '6'", "'6' is not one of auto, 5, 3.1.1"),
        ("[link]\nbroker = 1883", "is not a line of text"),
        ("[link]\npart_bytes = '1MiB'", "out of range"),
        ("[train]\nheld_out = 1.0", "at most 0.9"),
        ("[train]\nlearning_rate = nan", "not a number"),
        ("[update]\nmax_bytes = '12 MiB'", "must hold two updates of digits"),
        ("[log]\nlevel = 'loud'", "is not one of debug"),
        ("[[model]]\nname = 'digits'", "is there twice"),
        ("[[model]]\nfile = 'x'", "no setting 'file'"),
        ("[[model]]\ntrain = 3\nname = 'b'", "is not a table"),
        ("link = 3", r"\[link\] is not a table"),
    ],
)
def test_a_wrong_value_is_refused_and_its_place_named(line: str, said: str | None) -> None:
    text = f"{line}\n{LEAST}"
    if said is None:
        assert read(text).settings.link.window == 4
        return
    with pytest.raises(ConfigError, match=said) as e:
        read(text)
    assert "t.toml" in e.value.message


def test_a_name_that_could_not_stand_in_a_topic_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"t\.toml: device\.name: 'A B' is not 1 to 64"):
        read("[device]\nname = 'A B'\nfleet = 'f'\n[[model]]\nname = 'digits'\n")


def test_nobody_is_called_as_what_is_said_to_all_is_addressed() -> None:
    for text in (LEAST.replace('"pi-7"', '"all"'), LEAST.replace('"digits"', '"all"')):
        with pytest.raises(ConfigError, match="stands for all of them"):
            read(text)
    assert read(LEAST.replace('"home"', '"all"')).settings.device.fleet == "all", "of a fleet it is a name like any other"


def test_a_token_stands_in_a_file_of_its_own_and_never_in_the_settings() -> None:
    token = f"edge-claim:{'ab' * 48}"
    for text, flags in ((LEAST, {"device.claim": token}), (LEAST.replace("[device]", f"[device]\nclaim = '{token}'"), {})):
        with pytest.raises(ConfigError, match="never the token itself") as refused:
            read(text, flags=flags)
        assert "abab" not in refused.value.message


def test_a_serial_number_is_no_longer_than_a_claim_lists_it() -> None:
    assert read(LEAST, flags={"device.serial": "x" * 64}).settings.device.serial == "x" * 64
    for serial in ("x" * 65, "x\u00a0"):
        with pytest.raises(ConfigError, match=r"device\.serial"):
            read(LEAST, flags={"device.serial": serial})


def test_without_a_model_or_a_name_there_is_nothing_to_do() -> None:
    with pytest.raises(ConfigError, match="no \\[\\[model\\]\\]"):
        read('[device]\nname = "a"\nfleet = "f"\n')
    with pytest.raises(ConfigError, match=r"device\.name"):
        read('[[model]]\nname = "digits"\n')


def test_flag_goes_before_environment_before_file_before_default() -> None:
    text = '[link]\nresend = "40s"\nwindow = 5\n' + LEAST
    loaded = read(text, environment={"EDGEAGENT_LINK_RESEND": "50s"}, flags={"link.resend": "1min"})
    assert (loaded.settings.link.resend, loaded.origins["link.resend"]) == (60.0, "flag")
    loaded = read(text, environment={"EDGEAGENT_LINK_RESEND": "50s"})
    assert (loaded.settings.link.resend, loaded.origins["link.resend"]) == (50.0, "EDGEAGENT_LINK_RESEND")
    assert (loaded.settings.link.window, loaded.origins["link.window"]) == (5, "file")
    assert (loaded.settings.link.keepalive, loaded.origins["link.keepalive"]) == (60.0, "default")
    with pytest.raises(UnknownKey, match="flag link: there is no setting 'ressend'"):
        read(text, flags={"link.ressend": "1s"})


@pytest.mark.parametrize(
    "models",
    [
        "[[model]]\nname = 'a'\n[[model]]\nname = 'b'\n[model.train]\nepochs = 9\n",
        "[model.a]\n[model.b]\ntrain = {epochs = 9}\n",
    ],
)
def test_a_models_own_settings_go_before_the_common_ones(models: str) -> None:
    text = "[device]\nname='p'\nfleet='f'\n[train]\nepochs = 3\nlearning_rate = 0.5\n" + models
    s = read(text).settings
    assert [m.name for m in s.models] == ["a", "b"]
    assert [(m.train.epochs, m.train.learning_rate) for m in s.models] == [(3, 0.5), (9, 0.5)]
    overridden = read(text, flags={"train.epochs": "1"}).settings
    assert [m.train.epochs for m in overridden.models] == [1, 1], "a flag goes before any file"


def test_the_written_file_reads_back_as_the_defaults_and_names_every_setting() -> None:
    text = template.render({"device.name": "pi-7", "device.fleet": "home"}, ["digits"])
    loaded = read(text)
    assert loaded.settings == Settings(device=loaded.settings.device, models=loaded.settings.models)
    for key in keys():
        assert f"{key.split('.')[1]} = " in text
    uncommented = "\n".join(line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in text.splitlines())
    again = read(uncommented.replace('name = ""', "").replace('fleet = ""', ""))
    assert again.settings.link == Settings().link, "what is commented out is the default, and can be read"


def test_every_setting_says_what_it_is_for() -> None:
    for cls in SECTIONS.values():
        assert cls.__doc__
        for f in fields(cls):
            assert f.metadata["doc"].endswith((".", "_ -")), f.name


def test_a_file_that_is_not_there_or_not_toml_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        reading.load(tmp_path / "no.toml", environment={}, flags={})
    for data in (b"[link", b"\xff\xfe", b"a = 1\n" * 100_000):
        (tmp_path / "bad.toml").write_bytes(data)
        with pytest.raises(ConfigError, match=r"bad\.toml"):
            reading.load(tmp_path / "bad.toml", environment={}, flags={})


@given(st.integers(0, 10**7))
def test_whole_seconds_read_back_as_they_were_said(value: int) -> None:
    assert units.seconds(units.say_seconds(float(value))) == value


@given(st.integers(0, 1 << 40))
def test_sizes_read_back_as_they_were_said(value: int) -> None:
    assert units.size(units.say_size(value)) == value


@pytest.mark.parametrize(
    ("text", "value"), [("30s", 30.0), ("6h", 21600.0), ("500ms", 0.5), ("1.5 min", 90.0), (7, 7.0), ("7d", 604800.0), ("12", 12.0)]
)
def test_durations(text: Any, value: float) -> None:
    assert units.seconds(text) == value


@pytest.mark.parametrize(("text", "value"), [("4KiB", 4096), ("2 MiB", 1 << 21), ("1.5KiB", 1536), (100, 100), ("3 kB", 3000)])
def test_sizes(text: Any, value: int) -> None:
    assert units.size(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("4 KiB", 4096), ("512B", 512), (700, 700), ("1 part", 96 * 1024), ("2parts", 192 * 1024), ("3 units", 15_000)]
)
def test_budgets_are_sizes_parts_or_metering_units(text: str | int, value: int) -> None:
    assert units.budget(text) == value


@pytest.mark.parametrize("text", ["1.5 parts", "half a part", "-1 unit", "unit", "3 Units"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.budget(text)



@pytest.mark.parametrize("text", ["", "KiB", "1 2", "1.00001KiB", "-1", "1e3", "0x10", "4 kib", "\u0664s"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a number with a unit|not a unit of size|not a whole number"):
        units.size(text)
    with pytest.raises(ValueError, match=r"not a number with a unit|not a unit of time"):
        units.seconds(text)
