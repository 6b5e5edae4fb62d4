"""`edgecloud variants`: what the root key vouches for is what the base is; a thing sealed twice is one; what can't be is named."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgecloud.registry import open_registry
from edgecloud.rollouts import statements
from modelwire import merkle
from modelwire.deploying import variants
from modelwire.errors import BadSignature
from modelwire.update.manifest import parse_manifest
from modelwire.wire.signing import PrivateKey
from tests.edgecloud.centre import damage
from tests.edgecloud.desk import Desk
from tests.edgecloud.searching.fleet import other_base

from .fleet import fleet, variant


@pytest.fixture
def desk3(desk: Desk) -> Desk:
    fleet(desk, 3).close()
    return desk


def test_a_variant_is_sealed_by_the_root_key_and_says_what_its_base_is(desk3: Desk) -> None:
    said = variant(desk3, "--ram", "48MiB", "--runtime", "litert", "--type-id", "RXSWIN 7", "--parent", "digits", "--parent", "pi-01@1")
    made = other_base()
    assert (said["variant"], said["model"], said["number"], said["new"], said["ram"]) == ("tall", "digits", 1, True, 48 << 20)
    store = open_registry(desk3.folder / "fleet.db", readonly=True)
    row = store.rollouts.variant(made.manifest.commit)
    assert row is not None
    read = variants.read(row.statement, store.identity.root, store.identity.id)
    read.require_manifest(made.manifest)
    base = store.bases.named("digits")
    first = store.versions.numbered(1, 1)
    assert base is not None and first is not None and read.parents == (base.commit, first.commit)
    assert read == statements.variant_of(store, row) and read.type_id == "RXSWIN 7" and not read.exact
    with pytest.raises(BadSignature):
        variants.read(row.statement, PrivateKey(bytes(32)).public, store.identity.id)
    store.close()


def test_what_is_sealed_already_stays_and_what_differs_is_sealed_anew_under_a_higher_number(desk3: Desk) -> None:
    first = variant(desk3)
    (desk3.folder / "root.key").rename(desk3.folder / "elsewhere.key")  # it is not even asked for
    again = variant(desk3)
    assert (again["new"], again["number"], again["sealed_at"]) == (False, 1, first["sealed_at"])
    assert desk3.error("variants", "add", "tall", "--model", "digits", "--ram", "1MiB")["error"] == "MissingFile"
    assert variant(desk3, "--ram", "1MiB", "--root-key", "elsewhere.key")["number"] == 2
    listed = desk3.json("variants")
    assert [(one["variant"], one["number"], one["speaks"]) for one in listed["variants"]] == [("tall", 2, True)]  # type: ignore[attr-defined]


def test_a_merge_s_parents_come_by_themselves(desk3: Desk) -> None:
    desk3.ok("merge", "--devices", "pi-01,pi-02,pi-03", "--rule", "mean", "-o", "merged.tflite")
    desk3.ok("bases", "add", "merged.tflite", "--no-rehearse")
    said = desk3.json("variants", "add", "merged", "--model", "digits")
    store = open_registry(desk3.folder / "fleet.db", readonly=True)
    versions = [store.versions.numbered(lineage.id, 1) for lineage in store.lineages.all()]
    base = store.bases.named("digits")
    assert base is not None
    assert said["parents"] == [base.commit.hex(), *(one.commit.hex() for one in versions if one is not None)]
    store.close()


def test_what_can_not_be_a_variant_is_named(desk3: Desk) -> None:
    for words, error in (
        (("none", "--model", "digits"), "UnknownVersion"), (("tall", "--model", "Digits"), "Malformed"),
        (("tall", "--model", "digits", "--name", "../x"), "Malformed"),
        (("tall", "--model", "digits", "--parent", "pi-09"), "UnknownVersion"),
        (("tall", "--model", "digits", "--ram", "much"), "Usage"), (("tall", "--model", "digits", "--runtime", "a\x1bb"), "Usage"),
        (("tall", "--model", "digits", "--root-key", "command.key"), "WrongKeyKind"), (("tall",), "Usage"),
    ):  # fmt: skip
        assert desk3.error("variants", "add", *words)["error"] == error, words
    assert "bases add model.tflite" in str(desk3.error("variants", "add", "model.tflite", "--model", "digits")["hint"])
    variant(desk3)
    assert "belongs to one model" in str(desk3.error("variants", "add", "tall", "--model", "faces")["message"])
    assert "another variant is called" in str(desk3.error("variants", "add", "digits", "--model", "digits", "--name", "tall")["message"])
    assert desk3.error("variants", "show", "none")["error"] == "UnknownVersion"


def test_a_root_key_that_speaks_no_more_is_told_and_the_variant_can_be_sealed_anew(desk3: Desk) -> None:
    variant(desk3)
    desk3.ok("trust", "rotate", "root")
    assert desk3.json("variants", "show", "tall")["speaks"] is False
    said = desk3.error("deploy", "tall", "--all", "--phase", "1", "--phase", "all", "--plan")
    assert "speaks no more" in str(said["message"]) and "variants add" in str(said["hint"])
    assert variant(desk3)["number"] == 2
    assert desk3.json("deploy", "tall", "--all", "--phase", "1", "--phase", "all", "--plan")["devices"] == 3


def test_a_statement_under_another_row_is_told_and_deploys_nothing(desk3: Desk) -> None:
    variant(desk3)
    desk3.ok("variants", "add", "digits", "--model", "digits", "--name", "first")
    store = open_registry(desk3.folder / "fleet.db", synchronous="OFF")
    rows = {row.name: row for row in store.rollouts.variants()}
    damage(store, "UPDATE variant SET statement = ? WHERE name = 'tall'", rows["first"].statement)
    store.close()
    said = desk3.json("variants")
    assert [one["variant"] for one in said["variants"]] == ["first"]  # type: ignore[attr-defined]
    assert "about first of digits, and not about tall" in str(said["unproven"]) and "not about tall" in desk3.ok("variants")
    for words in (("variants", "show", "tall"), ("deploy", "tall", "--all", "--phase", "1", "--phase", "all")):
        assert desk3.error(*words)["error"] == "Malformed"


def test_it_is_published_as_the_file_and_the_list_that_proves_its_pieces(desk3: Desk) -> None:
    variant(desk3)
    said = desk3.json("variants", "publish", "tall", "www/bases", "--url", "https://files.example.org/")
    made = other_base()
    name = hashlib.sha256(made.file).hexdigest()
    leaves, file = (Path("www/bases") / f"{name}.{kind}" for kind in ("leaves", "tflite"))
    assert said["files"] == [str(leaves), str(file)] and said["url"] == "https://files.example.org/{file}.tflite"
    assert file.read_bytes() == made.file
    listed = leaves.read_bytes()
    assert merkle.merkle([listed[n : n + 32] for n in range(0, len(listed), 32)]) == parse_manifest(made.manifest.encode()).file_tree
    (desk3.folder / "plain").write_text("")
    assert desk3.error("variants", "publish", "tall", "plain")["error"] == "BadArgument"
