"""A proof is taken for what it is by the one file that a regulator runs, and anything else is not."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from edgecloud.keeping import erasing
from edgecloud.proving import assembling, making, telling
from edgecloud.proving.verifier import MODULES, proofs
from edgecloud.proving.verifier.encoding import NotProven, unzipped, zipped
from edgecloud.proving.verifier.evidence import check, main
from edgecloud.proving.verifier.placing import weight_places
from edgecloud.versions.materialise import LoadedBases
from modelwire.errors import BadArgument, ModelWireError, NotServed, RegistryDamaged, UnknownVersion
from modelwire.tflite.file import parse_trainable
from modelwire.update.sections import Kind
from modelwire.wire.keys import write_fleet
from tests.edgecloud import rollouts
from tests.edgecloud.centre import Centre, add_base, damage, make_registry, sign
from tests.edgecloud.device import Base, ScriptedDevice
from tests.edgecloud.keeping.thinned import number as next_number
from tests.keys import COMMAND
from tests.stock import ROOT, STOCK

from .fleets import Fleet, float16_file, make_thinned
from .forging import Forgery, forgeries

NAMES = ("float32", "exact", "float16", "mixed", "large", "int8-softmax", "int8-two-outputs", "int8-wide", "recipes", "replaced")


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, in a folder where nothing of the project is found."""
    path = Path(tmp_path_factory.mktemp("regulator")) / "verify_proof.py"
    path.write_text(assembling.verify_proof_py())
    return path


def last(fleet: Fleet, name: str) -> bytes:
    head = fleet.store.versions.newest(fleet.lineage(name).id, 1)[0]
    return making.proof_of(fleet.store, head, LoadedBases(fleet.store))


@pytest.mark.parametrize("name", NAMES)
def test_a_proof_of_each_kind_of_model_holds_the_file_that_its_device_serves(fleet: Fleet, name: str) -> None:
    proof, device = last(fleet, name), fleet.devices[name]
    facts = check(proof, fleet.key, f"{name}/digits@{device.version}")
    files = unzipped(proof)
    assert files["model.tflite"] == device.served() and facts["holds"] == "file" and facts["root"] == device.state.root.hex()
    assert proof == last(fleet, name), "the same version gives other bytes the second time"
    assert facts["path"] == device.version and facts["says"][0].startswith(f"{name}/digits@{device.version} is a ")


def test_every_tensor_is_proven_alone(fleet: Fleet) -> None:
    bases = LoadedBases(fleet.store)
    for name in ("mixed", "float16", "int8-two-outputs"):
        version = fleet.version(name, 2)
        for n, spec in enumerate(bases[version.base].manifest.schema.tensors):
            proof = making.proof_of(fleet.store, version, bases, tensor=spec.name)
            assert check(proof, fleet.key)["holds"] == "tensor" and f"tensor-{n}.bin" in unzipped(proof)
    with pytest.raises(BadArgument, match="no tensor 'x'"):
        making.proof_of(fleet.store, version, bases, tensor="x")


def test_the_program_runs_alone_and_says_what_is_proven(fleet: Fleet, verifier: Path) -> None:
    folder = verifier.parent
    (folder / "proof.zip").write_bytes(last(fleet, "replaced"))
    (folder / "fleet.pub").write_text(write_fleet(fleet.store.identity) + "\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-I", str(verifier), *arguments]
        return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)

    good = run("proof.zip", "--fleet", "fleet.pub", "--name", "replaced/digits@4", "--out", "model.tflite")
    assert good.returncode == 0 and good.stderr == "" and good.stdout.startswith("PROVEN.\nreplaced/digits@4 is a delta of epoch 1")
    assert (folder / "model.tflite").read_bytes() == fleet.devices["replaced"].served()
    other = run("proof.zip", "--fleet", "fleet.pub", "--name", "replaced/digits@3")
    assert (other.returncode, other.stdout) == (1, "") and "it is of replaced/digits@4, and not of replaced/digits@3" in other.stderr
    assert run("proof.zip", "--fleet", "nowhere").returncode == run("nowhere", "--fleet", "fleet.pub").returncode == 2
    (folder / "bad.zip").write_bytes(last(fleet, "replaced")[:-1])
    bad = run("bad.zip", "--fleet", "fleet.pub")
    assert (bad.returncode, bad.stderr) == (1, "NOT PROVEN. the zip: it is damaged, or not written as a proof is\n")


def test_the_program_is_one_file_of_the_standard_library_numpy_and_cryptography(verifier: Path) -> None:
    tree = ast.parse(verifier.read_text())
    roots = {one.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names}
    roots |= {str(node.module).partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert roots - set(sys.stdlib_module_names) == {"numpy", "cryptography"} and not any(
        isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree)
    )
    defined = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assert len(defined) == len(set(defined)), "a name stands in two of its modules"
    assert len(MODULES) == len(set(MODULES))
    for word in ("lz4", "zlib.decompress", "exec(", "eval(", "pickle", "subprocess"):
        assert word not in verifier.read_text()


@pytest.mark.parametrize(("name", "start"), [("float32", 0), ("replaced", 1), ("int8-softmax", 2), ("recipes", 3)])
def test_no_altered_proof_is_taken(fleet: Fleet, name: str, start: int) -> None:
    proof, others = last(fleet, name), [last(fleet, "exact"), last(fleet, "float32" if name != "float32" else "replaced")]
    assert _taken(islice(forgeries(proof, others, fleet.key, start), start, None), fleet, 4) == []


def test_a_proof_of_another_release_and_of_another_fleet_is_named(fleet: Fleet) -> None:
    files = unzipped(last(fleet, "exact"))
    later = zipped({**files, "index.json": files["index.json"].replace(b"edge proof 1", b"edge proof 2")})
    with pytest.raises(NotProven, match="'edge proof 2' is a proof of another release; this program reads 'edge proof 1'"):
        check(later, fleet.key)
    with pytest.raises(NotProven, match="is signed by no key that may say it"):
        check(zipped(files), bytes(32) + fleet.key[32:])
    with pytest.raises(NotProven, match="its record is of the fleet 0001"):
        check(zipped(files), fleet.key[:32] + bytes(16))


def test_a_proof_without_weights_is_taken_for_its_header_alone_when_that_is_asked_for(fleet: Fleet) -> None:
    files = unzipped(last(fleet, "exact"))
    less = {name: files[name] for name in proofs.ALWAYS}
    bare = zipped({**less, proofs.INDEX: proofs.to_index(proofs.prove(less, fleet.key))})
    with pytest.raises(NotProven, match="weights: the proof holds none"):
        check(bare, fleet.key)
    assert check(bare, fleet.key, header_alone=True)["holds"] == "header"


def test_a_version_whose_content_is_gone_is_proven_by_its_header_and_the_operators_word(tmp_path: Path) -> None:
    fleet = make_thinned(tmp_path)
    bases = LoadedBases(fleet.store)
    for number in range(1, 8):
        proof = making.proof_of(fleet.store, fleet.version("thinned", number), bases)
        facts = check(proof, fleet.key, f"thinned/digits@{number}")
        assert (facts["holds"], facts["thinned"], facts["path"]) == (("header", True) if number < 6 else ("file", False)) + (number,)
    gone = making.proof_of(fleet.store, fleet.version("thinned", 3), bases)
    assert any("Its content is gone, as the log says" in sentence for sentence in check(gone, fleet.key)["says"])
    with pytest.raises(BadArgument, match="the content of thinned/digits@3 is gone"):
        making.proof_of(fleet.store, fleet.version("thinned", 3), bases, tensor="output_kernel")
    others = [making.proof_of(fleet.store, fleet.version("beside", number), bases) for number in (3, 7)]
    assert _taken(forgeries(gone, others, fleet.key, 1), fleet) == []
    evidence = "".join(line + "\n" for line in telling.evidence_lines(fleet.store, "thinned"))
    assert check(evidence.encode(), fleet.key)["versions"] == 7


def test_a_device_that_was_erased_leaves_digests_in_the_proofs_of_others(tmp_path: Path) -> None:
    fleet = make_thinned(tmp_path)
    erasing.begin(fleet.store, COMMAND, "beside", next_number(fleet.store), 1)
    erasing.resume(fleet.store)
    sign(fleet.store)
    proof = making.proof_of(fleet.store, fleet.version("thinned", 7), LoadedBases(fleet.store))
    assert check(proof, fleet.key)["holds"] == "file"
    evidence = "".join(line + "\n" for line in telling.evidence_lines(fleet.store, "thinned"))
    assert check(evidence.encode(), fleet.key)["versions"] == 7 and "beside" not in evidence
    with pytest.raises(UnknownVersion):
        list(telling.evidence_lines(fleet.store, "beside"))


def test_rollouts_leave_digests_in_proofs(tmp_path: Path, base: Base) -> None:
    fleet = make_thinned(tmp_path)
    if fleet.store.bases.get(base.manifest.commit) is None:
        add_base(fleet.store, base, "another")
    rollouts.deploy(fleet.store, base, named=("thinned", "beside"))
    sign(fleet.store)
    proof = making.proof_of(fleet.store, fleet.version("thinned", 7), LoadedBases(fleet.store))
    assert check(proof, fleet.key)["holds"] == "file"
    evidence = "".join(line + "\n" for line in telling.evidence_lines(fleet.store, "thinned"))
    assert check(evidence.encode(), fleet.key)["versions"] == 7 and "beside" not in evidence


def _taken(forged: Iterator[Forgery], fleet: Fleet, step: int = 3) -> list[str]:
    taken = []
    for what, data in islice(forged, 0, None, step):
        try:
            check(data, fleet.key)
            taken.append(what)
        except NotProven:
            continue
    return taken


def test_a_revoked_key_is_told_and_what_came_before_stands(fleet: Fleet) -> None:
    proof = making.proof_of(fleet.store, fleet.version("replaced", 3), LoadedBases(fleet.store))
    assert any("revoked the key later" in sentence for sentence in check(proof, fleet.key)["says"])
    assert not any("revoked" in sentence for sentence in check(last(fleet, "replaced"), fleet.key)["says"])


def test_places_of_weights_are_read_from_every_file_as_the_project_reads_them() -> None:
    files = [path.read_bytes() for folder in (ROOT / "tests/models", STOCK) for path in sorted(folder.glob("*.tflite"))]
    seen = 0
    for file in (*files, float16_file()):
        try:
            parsed = parse_trainable(file)
        except ModelWireError:
            continue
        rows = [(v.name, int(v.dtype), v.shape) for v in parsed.variables]
        assert weight_places(file, rows) == [(v.offset, v.nbytes) for v in parsed.variables]
        seen += 1
    assert seen > 10


def test_what_is_not_served_not_judged_or_not_signed_is_not_proven(tmp_path: Path) -> None:
    centre = Centre(make_registry(tmp_path / "fleet.db", base := Base.of()))
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train())
    lineage = centre.store.lineages.get("pi-7", "digits")
    assert lineage is not None

    def proof(number: int) -> bytes:
        version = centre.store.versions.numbered(lineage.id, number)
        assert version is not None
        return making.proof_of(centre.store, version, LoadedBases(centre.store))

    with pytest.raises(BadArgument, match="pi-7/digits@1 is not judged yet"):
        proof(1)
    centre.deliver(device, device.seal(Kind.SNAPSHOT, device.state.snapshot(), fingerprint=(1, 2)))
    centre.rebuild()
    with pytest.raises(NotServed):
        proof(2)
    assert proof(1)
    signed = centre.store.log.signed()
    assert signed is not None
    damage(centre.store, "DELETE FROM log_end")
    with pytest.raises(BadArgument, match="the log is not signed yet"):
        proof(1)
    damage(centre.store, "INSERT INTO log_end VALUES (1, ?, ?, ?)", signed.number, signed.link, bytes(64))
    with pytest.raises(RegistryDamaged, match="the end of the log is not what a receipt key"):
        proof(1)


def test_what_a_forger_writes_is_never_obeyed_by_a_terminal(fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = unzipped(last(fleet, "exact"))
    (tmp_path / "bad.zip").write_bytes(zipped({**files, "\x1b]0;PROVEN\x07\x1b[2J\nPROVEN.": b""}))
    (tmp_path / "fleet.pub").write_text(write_fleet(fleet.store.identity))
    assert main([str(tmp_path / "bad.zip"), "--fleet", str(tmp_path / "fleet.pub")]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "\x1b" not in said.err and said.err.count("\n") == 1


def test_the_module_says_the_same_as_the_program(fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "proof.zip").write_bytes(last(fleet, "exact"))
    (tmp_path / "fleet.pub").write_text(write_fleet(fleet.store.identity))
    assert main([str(tmp_path / "proof.zip"), "--fleet", str(tmp_path / "fleet.pub"), "--json"]) == 0
    assert '"name":"exact/digits@4"' in capsys.readouterr().out
    (tmp_path / "fleet.pub").write_text("edge-fleet-pub:00")
    assert main([str(tmp_path / "proof.zip"), "--fleet", str(tmp_path / "fleet.pub")]) == 2
