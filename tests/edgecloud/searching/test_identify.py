"""Whose model a file is: every version's own file names it, a changed one its nearest, and a stranger's a named error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecloud.searching import identify
from edgecloud.versions import materialise
from modelwire.errors import Malformed, ModelWireError, NonFinite, WrongBase
from modelwire.tflite.file import parse_trainable, read_weights, write_weights
from tests.edgecloud.centre import Centre, add_base, make_registry
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import Base, ScriptedDevice

from .fleet import drawn, other_base, planted

MODELS = Path(__file__).parents[2] / "models"


def files_of(centre: Centre) -> dict[str, bytes]:
    """Return the file of each version."""
    store, out = centre.store, {}
    bases = materialise.LoadedBases(store)
    for lineage in store.lineages.all():
        for version in store.versions.of(lineage.id):
            state = materialise.rebuild(store, version, bases)
            out[f"{lineage}@{version.version}"] = materialise.file_of(state, bases[version.base])
    return out


def test_each_version_is_named_by_its_file(tmp_path: Path) -> None:
    centre, _ = planted(tmp_path / "fleet.db")
    for name, file in files_of(centre).items():
        found = identify.identify(centre.store, file, name="f")
        assert [str(one) for one in found.owners] == [name] and found.same_file and not found.is_base and found.search is None


def test_a_base_s_own_file_is_that_base(tmp_path: Path) -> None:
    centre, _ = planted(tmp_path / "fleet.db")
    for base, name in ((Base.of(), "digits"), (other_base(), "tall")):
        found = identify.identify(centre.store, base.file, name="f")
        assert found.is_base and found.base == name and found.same_file


def test_a_version_that_was_made_a_base_is_named_as_both(tmp_path: Path) -> None:
    centre, devices = planted(tmp_path / "fleet.db")
    file = devices["pi-1"].served()
    add_base(centre.store, Base(file), "promoted")
    found = identify.identify(centre.store, file, name="f")
    assert (found.base, found.is_base, found.same_file, [str(one) for one in found.owners]) == ("promoted", True, True, ["pi-1/digits@3"])


def test_a_changed_file_is_near_the_version_it_was_made_of(tmp_path: Path) -> None:
    centre, _ = planted(tmp_path / "fleet.db")
    file = files_of(centre)["pi-3/digits@2"]
    weights = {name: w.copy() for name, w in read_weights(parse_trainable(file)).items()}
    first = next(iter(weights))
    weights[first].reshape(-1)[0] += np.float32(1e-3)
    found = identify.identify(centre.store, write_weights(file, weights), name="f")
    assert found.owners == () and found.off_lattice == 1 and found.same_file and found.base == "digits"
    assert found.search is not None and str(found.search.neighbours[0]) == "pi-3/digits@2"


def test_weights_that_two_versions_share_name_both(tmp_path: Path) -> None:
    centre = Centre(make_registry(tmp_path / "fleet.db", Base.of()))
    device = centre.meet(ScriptedDevice(Base.of()))
    centre.deliver(device, device.train(), device.snapshot())
    centre.rebuild()
    found = identify.identify(centre.store, device.served(), name="f")
    assert [str(one) for one in found.owners] == ["pi-7/digits@1", "pi-7/digits@2"]


@pytest.mark.parametrize("model", ["mixed.tflite"])
def test_short_floats_and_other_types_are_found_by_their_weights(tmp_path: Path, model: str) -> None:
    base = Base.of(MODELS / model)
    centre = Centre(make_registry(tmp_path / "fleet.db", base))
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, *(drawn(device, seed) for seed in range(3)))
    assert all(one.ok for one in centre.rebuild())
    for name, file in files_of(centre).items():
        assert [str(one) for one in identify.identify(centre.store, file, name="f").owners] == [name]


def test_a_file_of_no_base_here_and_a_broken_one_are_named_errors(tmp_path: Path) -> None:
    centre, _ = planted(tmp_path / "fleet.db")
    with pytest.raises(WrongBase, match="digits, tall"):
        identify.identify(centre.store, (MODELS / "digits.tflite").read_bytes(), name="f")
    tiny = Base.of().file
    broken = tiny.replace(np.float32(read_weights(parse_trainable(tiny))["output_kernel"].reshape(-1)[0]).tobytes(), b"\0\0\xc0\x7f")
    with pytest.raises(ModelWireError):
        identify.identify(centre.store, broken, name="f")
    rng = np.random.default_rng(3)
    for _ in range(200):
        at = int(rng.integers(0, len(tiny)))
        damaged = tiny[:at] + bytes([int(rng.integers(0, 256))]) + tiny[at + 1 :]
        try:
            identify.identify(centre.store, damaged, name="f")
        except ModelWireError as error:
            assert "f" in error.message
    for file in (b"", b"TFL3", tiny[:100], tiny[: len(tiny) // 2]):
        with pytest.raises(Malformed, match=r"^f: no whole \.tflite: ") as refused:
            identify.identify(centre.store, file, name="f")
        assert refused.value.next_step
    assert issubclass(NonFinite, ModelWireError)


def test_the_command_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    centre, _ = planted(tmp_path / "fleet.db")
    (tmp_path / "found.tflite").write_bytes(files_of(centre)["pi-2/digits@3"])
    (tmp_path / "digits.tflite").write_bytes((MODELS / "digits.tflite").read_bytes())
    centre.store.close()
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, capsys)
    assert "found.tflite is pi-2/digits@3" in desk.ok("identify", "found.tflite", "--db", "fleet.db")
    assert desk.json("identify", "found.tflite", "--db", "fleet.db")["versions"] == ["pi-2/digits@3"]
    assert desk.error("identify", "digits.tflite", "--db", "fleet.db")["error"] == "WrongBase"
    assert desk.error("identify", "none.tflite", "--db", "fleet.db")["error"] == "MissingFile"
