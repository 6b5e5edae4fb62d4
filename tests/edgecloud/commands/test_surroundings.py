"""Whatever is wrong around a command is one error by name with what to do next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecloud import cli
from modelwire.errors import BadArgument
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice


@pytest.mark.parametrize(
    "words",
    [
        ["devices", "list", "--db", "a" * 300],
        ["doctor", "--db", "nowhere/fleet.db"],
        ["doctor", "--broker", "mqtt://host..example"],
        ["annotate", "pi-7", "\udcff"],
        ["materialise", "pi-7@1", "-o", "fleet.db/x.npz"],
        ["ingest", "--once", "--key", "."],
        ["devices", "list", "--db", "."],
        ["restore", ".", "--db", "new.db"],
    ],
    ids=lambda words: " ".join(words)[:40].encode("ascii", "replace").decode(),
)
def test_whatever_is_wrong_with_the_surroundings_is_one_error_by_name(
    tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    store = make_registry(tmp_path / "fleet.db", base)
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train())
    store.close()
    monkeypatch.chdir(tmp_path)
    code = cli.main([*words, "--json"])
    out, err = capsys.readouterr()
    if words[0] == "doctor":
        assert code == 1 and json.loads(out)["ok"] is False
        return
    said = json.loads(err)
    assert code == said["code"] == BadArgument.code and said["hint"] and "restore BACKUP" not in said["hint"]
    assert not (tmp_path / "new.db").exists() and not (tmp_path / "fleet.key").exists()
