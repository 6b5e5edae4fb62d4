"""Names, keys, files and settings: the small pieces that the commands stand on."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud import settings
from edgecloud.intake.mqtt import Broker, parse_broker
from edgecloud.keys import load_key, make_keys, read_public
from edgecloud.versions import naming
from edgecommon.files import write_named
from modelwire.errors import BadArgument, Malformed, MissingFile

word = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


@given(device=word, model=st.none() | word, version=st.none() | st.just("latest") | st.just("base") | st.integers(0, 10**18 - 1))
def test_a_name_comes_back_from_its_text(device, model, version):
    name = naming.Name(device, model, version)
    assert naming.parse(str(name)) == name


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_an_error_by_name(text):
    with contextlib.suppress(Malformed):
        assert str(naming.parse(text)).split("@")[0] == text.split("@")[0]


def test_keys_are_made_once_and_kept(tmp_path):
    first = make_keys(tmp_path)
    assert make_keys(tmp_path).public == first.public == load_key(tmp_path / "fleet.key").public
    assert read_public(str(tmp_path / "fleet.pub")) == read_public(first.public.hex()) == first.public
    assert stat.S_IMODE((tmp_path / "fleet.key").stat().st_mode) == 0o600


def test_a_key_that_others_may_read_is_not_used(tmp_path):
    make_keys(tmp_path)
    (tmp_path / "fleet.key").chmod(0o604)
    with pytest.raises(BadArgument, match="others than its owner"):
        load_key(tmp_path / "fleet.key")
    with pytest.raises(MissingFile):
        load_key(tmp_path / "none.key")
    (tmp_path / "bad.key").write_text("nonsense")
    (tmp_path / "bad.key").chmod(0o600)
    with pytest.raises(Malformed, match="64 hexadecimal digits"):
        load_key(tmp_path / "bad.key")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    write_named(path, b"one")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadArgument, match="No space left"):
        write_named(path, b"two")
    monkeypatch.undo()
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(BadArgument, match="there already"):
        write_named(path, b"two", replace=False)
    write_named(path, b"two")
    assert path.read_bytes() == b"two"


def test_what_is_no_file_is_never_replaced_by_one(tmp_path):
    """A rename puts a file where a device such as /dev/null stands, for whoever may write there."""
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path(), Path("/")):
        with pytest.raises(BadArgument, match="is no file that could be written"):
            write_named(place, b"bytes")
    assert (tmp_path / "pipe").is_fifo() and [p.name for p in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("mqtt://host", Broker("host", 1883)),
        ("host:2000", Broker("host", 2000)),
        ("mqtts://me:p%40ss@host", Broker("host", 8883, "me", "p@ss", True)),
        ("mqtt://[::1]:1884/", Broker("::1", 1884)),
    ],
)
def test_a_broker_is_read_from_its_url(url, broker):
    assert parse_broker(url) == broker


@pytest.mark.parametrize("url", ["http://host", "mqtt://", "mqtt://host:port", "mqtt://host/path", "", "mqtt://host:99999"])
def test_what_is_no_broker_is_said_so(url):
    with pytest.raises(BadArgument):
        parse_broker(url)


def test_the_password_comes_from_a_file(tmp_path):
    (tmp_path / "secret").write_text("hush\n")
    assert parse_broker("mqtt://me@host", password_file=tmp_path / "secret").password == "hush"
    with pytest.raises(BadArgument):
        parse_broker("mqtt://me@host", password_file=tmp_path / "none")


def test_a_flag_wins_over_the_environment_and_that_over_the_default():
    assert settings.from_environment("BROKER", "default", {}) == "default"
    assert settings.from_environment("BROKER", "default", {"EDGECLOUD_BROKER": ""}) == "default"
    assert settings.from_environment("BROKER", "default", {"EDGECLOUD_BROKER": "set"}) == "set"
    assert str(settings.registry_path("flag.db")) == "flag.db"


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1h"])
def test_a_time_is_a_number_of_seconds_above_zero(text):
    with pytest.raises(BadArgument):
        settings.seconds(text)


def test_log_lines_are_one_json_object_each(capsys):
    settings.start_log("json", "info")
    logger = logging.getLogger("edgecloud.test")
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("it failed: %s", 'with "quotes"\nand lines')
    logger.debug("not shown")
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert said["level"] == "error" and said["message"].startswith("it failed") and "ValueError: why" in said["exception"]
    settings.start_log("text", "warning")
    logger.info("not shown")
    logger.warning("shown")
    assert capsys.readouterr().err.strip().endswith("WARNING edgecloud.test shown")
