"""A CA's folder over the years: issued, renewed, superseded, revoked, replaced; killed in the middle, damaged, asked for too much."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgecloud.certificates import CENTRE, CertificateFolder, Holder, building, public_key_of_request
from edgecloud.certificates.authority import DAY
from edgecommon import files
from edgecommon.certificates import check_chain, name_of, read_certificates
from modelwire.errors import BadArgument, CertificateRefused, Malformed, MissingFile, ModelWireError, StateBusy

NOW = 1_800_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    CertificateFolder.create(tmp_path / "ca", "orchard", NOW)
    return tmp_path / "ca"


def issue(folder: Path, name: str = "pi-7", now: int = NOW, key: ec.EllipticCurvePrivateKey | None = None, **more: int) -> str:
    with CertificateFolder.open(folder) as ca:
        return ca.issue(name, Holder.DEVICE, (key or building.new_key()).public_key(), now, **more).serial


def request(name: str = "pi-7", key: object = None, *names: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one) for one in (name, *names)])
    key = key or building.new_key()
    hash_ = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hash_)  # type: ignore[arg-type]
    return made.public_bytes(serialization.Encoding.PEM)


def revoked(folder: Path) -> set[str]:
    """Return the serials in the lists, each proven to be signed by the CA that it is of."""
    out = set()
    texts = (folder / "crl.pem").read_text().split("-----END X509 CRL-----\n")[:-1]
    cas = {one.subject: one for one in read_certificates((folder / "ca.pem").read_bytes(), "ca")}
    assert len(texts) == len(cas)
    for text in texts:
        crl = x509.load_pem_x509_crl((text + "-----END X509 CRL-----\n").encode())
        assert crl.is_signature_valid(cas[crl.issuer].public_key())  # type: ignore[arg-type]
        out |= {f"{one.serial_number:x}" for one in crl}
    return out


def test_a_new_ca_is_its_owners_alone_and_is_never_overwritten(folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in ("ca-1.key", "ledger.json")} == {0o600}
    before = (folder / "ca-1.key").read_bytes()
    with pytest.raises(BadArgument, match="never overwritten"):
        CertificateFolder.create(folder, "orchard", NOW)
    assert (folder / "ca-1.key").read_bytes() == before
    for loose, fix in ((folder, "chmod 700"), (folder / "ca-1.key", "chmod 600"), (folder / "ledger.json", "chmod 600")):
        mode = stat.S_IMODE(loose.stat().st_mode)
        loose.chmod(0o755)
        with pytest.raises(BadArgument) as refused:
            issue(folder)
        assert fix in refused.value.next_step
        loose.chmod(mode)
    with pytest.raises(MissingFile), CertificateFolder.open(folder / "none"):
        pass
    with CertificateFolder.open(folder), pytest.raises(StateBusy):
        issue(folder)


def test_a_board_gets_a_clients_certificate_a_broker_a_servers_and_neither_is_good_as_the_other(folder: Path) -> None:
    with CertificateFolder.open(folder) as ca:
        board = ca.issue("pi-7", Holder.DEVICE, building.new_key().public_key(), NOW)
        server = ca.issue("broker.example", Holder.SERVER, building.new_key().public_key(), NOW, hosts=("broker.example", "192.0.2.10"))
        ca.issue(CENTRE, Holder.CENTRE, building.new_key().public_key(), NOW)
    roots = read_certificates((folder / "ca.pem").read_bytes(), "ca")
    for one, use, path in (
        (board, ExtendedKeyUsageOID.CLIENT_AUTH, "issued/pi-7.pem"),
        (server, ExtendedKeyUsageOID.SERVER_AUTH, "servers/broker.example.pem"),
    ):  # fmt: skip
        read = read_certificates((folder / path).read_bytes(), path)
        check_chain(read, roots, path)
        assert list(read[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [use]
        assert name_of(read[0]) == one.name and not read[0].extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = read[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert (folder / "issued" / f"{CENTRE}.pem").is_file()


@pytest.mark.parametrize("name", ["", "CENTRE", "Pi-7", "all", "a/b", "../x", "pi 7", "+", "#", "pi-7\nuser CENTRE", "x" * 65, "é"])
def test_a_name_that_no_device_has_gets_nothing(folder: Path, name: str) -> None:
    with pytest.raises((Malformed, BadArgument)):
        issue(folder, name)
    with CertificateFolder.open(folder, readonly=True) as ca:
        assert ca.ledger.issues == ()


@pytest.mark.parametrize("hosts", [(), ("*.example",), ("a_b",), ("a\nb",), ("UP",), ("../x",), ("",), tuple(f"h{n}" for n in range(21))])
def test_a_server_has_names_of_hosts_alone(folder: Path, hosts: tuple[str, ...]) -> None:
    with CertificateFolder.open(folder) as ca, pytest.raises(BadArgument):
        ca.issue(hosts[0] if hosts else "h", Holder.SERVER, building.new_key().public_key(), NOW, hosts=hosts)


def test_of_a_request_the_key_alone_is_taken_and_only_a_good_one() -> None:
    key = building.new_key()
    assert building.key_digest(public_key_of_request(request(key=key), "pi-7", "x")) == building.key_digest(key.public_key())
    public_key_of_request(request(key=ed25519.Ed25519PrivateKey.generate()), "pi-7", "x")
    whole = request()
    der = x509.load_pem_x509_csr(whole).public_bytes(serialization.Encoding.DER)
    changed = bytearray(der)
    changed[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(changed)).public_bytes(serialization.Encoding.PEM)
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    for bad, why in (
        (b"", "no request"), (b"-----BEGIN", "no request"), (whole[:200], "no request"), (bytes(1000), "no request"),
        (request("pi-9"), "asks for 'pi-9'"), (request("pi-7", None, "pi-9"), "asks for ''"), (forged, "not signed by the key"),
        (request(key=small), "too weak"), (request(key=ec.generate_private_key(ec.SECP192R1())), "too weak"),
    ):  # fmt: skip
        with pytest.raises(CertificateRefused, match=why) as refused:
            public_key_of_request(bad, "pi-7", "pi-7.csr")
        assert "edgeagent certificate request" in refused.value.next_step


def test_no_byte_of_a_request_that_is_signed_can_be_changed() -> None:
    read = x509.load_pem_x509_csr(request())
    der, signed = read.public_bytes(serialization.Encoding.DER), read.tbs_certrequest_bytes
    begins = der.index(signed)  # behind it stands the signature, whose padding says nothing
    for at in range(begins, begins + len(signed)):
        changed = bytearray(der)
        changed[at] ^= 0x04
        text = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.b64encode(changed) + b"\n-----END CERTIFICATE REQUEST-----\n"
        with pytest.raises(CertificateRefused):
            public_key_of_request(text, "pi-7", "x")


def test_renewing_keeps_the_key_waits_for_two_thirds_and_done_twice_does_nothing(folder: Path) -> None:
    first = issue(folder, days=90)
    for when, count in ((NOW + 59 * DAY, 0), (NOW + 61 * DAY, 1), (NOW + 61 * DAY, 0), (NOW + 62 * DAY, 0)):
        with CertificateFolder.open(folder) as ca:
            assert len(ca.renew(when).renewed) == count
    with CertificateFolder.open(folder, readonly=True) as ca:
        old, new = ca.ledger.issues
    assert old.serial == first != new.serial and old.key == new.key and new.until == NOW + 151 * DAY
    assert (folder / "issued" / "pi-7.pem").read_text() == new.certificate
    assert revoked(folder) == set(), "the same key has the same rights by either"


def test_what_ended_within_the_grace_is_renewed_unless_its_device_is_out(folder: Path) -> None:
    for name in ("pi-7", "pi-8", "pi-9"):
        issue(folder, name, days=90)
    with CertificateFolder.open(folder) as ca:
        ca.revoke("pi-9", NOW + 1)
    with CertificateFolder.open(folder) as ca:
        late = ca.renew(NOW + 121 * DAY)
        assert late.renewed == () and {name for name, _ in late.left} == {"pi-7", "pi-8"}
        done = ca.renew(NOW + 119 * DAY, out=lambda name: "revoked" if name == "pi-8" else "")
    assert [one.name for one in done.renewed] == ["pi-7"] and done.left == (("pi-8", "revoked"),)
    assert not (folder / "issued" / "pi-9.pem").exists()


def test_another_key_supersedes_the_one_before_by_time_or_at_once(folder: Path) -> None:
    first, second = issue(folder), issue(folder, now=NOW + DAY)
    assert revoked(folder) == set()
    for when, gone in ((NOW + 7 * DAY, set()), (NOW + 8 * DAY, {first})):
        with CertificateFolder.open(folder) as ca:
            ca.renew(when)
        assert revoked(folder) == gone
    third = issue(folder, now=NOW + 9 * DAY, overlap=0)
    assert revoked(folder) == {first, second} and third not in revoked(folder)


def test_a_revoked_key_is_never_issued_for_again_and_one_key_is_of_one_name(folder: Path) -> None:
    key = building.new_key()
    serial = issue(folder, key=key)
    with pytest.raises(BadArgument, match="is pi-7's"):
        issue(folder, "pi-8", key=key)
    with CertificateFolder.open(folder) as ca:
        assert [one.serial for one in ca.revoke("pi-7", NOW + 5)] == [serial]
        assert ca.revoke("pi-7", NOW + 6) == []
        assert ca.renew(NOW + 300 * DAY).renewed == ()
        with pytest.raises(BadArgument, match="no certificate was issued"):
            ca.revoke("pi-77", NOW)
    for name in ("pi-7", "pi-8"):
        with pytest.raises(BadArgument, match="was revoked"):
            issue(folder, name, key=key)
    assert issue(folder) not in revoked(folder) == {serial}


def test_each_list_is_later_than_the_one_before_and_none_is_of_the_future(folder: Path) -> None:
    before = None
    for n in range(5):
        issue(folder, f"pi-{n}")
        with CertificateFolder.open(folder) as ca:
            ca.revoke(f"pi-{n}", NOW)  # all in one second
        crl = x509.load_pem_x509_crl((folder / "crl.pem").read_bytes())
        at = crl.last_update_utc.timestamp()
        assert at < NOW and (before is None or at > before)
        before = at
    assert crl.next_update_utc is not None and crl.next_update_utc.timestamp() > NOW + 3000 * DAY, "an outdated list lets nobody in"


def test_a_kill_in_the_middle_leaves_the_old_state_or_the_new_one_and_the_next_command_mends_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    serial, left = issue(folder), 0
    whole = files.write
    reached = set()
    for kill_at in range(1, 8):
        left = kill_at

        def write(path: Path, data: bytes, **how: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            whole(path, data, **how)  # type: ignore[arg-type]

        name = f"pi-{kill_at}0"
        monkeypatch.setattr(files, "write", write)
        try:
            issue(folder, name)
            with CertificateFolder.open(folder) as ca:
                ca.revoke(name, NOW + kill_at)
        except Killed:
            reached.add(kill_at)
        monkeypatch.setattr(files, "write", whole)
        with CertificateFolder.open(folder) as ca:
            held = [one for one in ca.ledger.issues if one.name == name]
            gone = {one.serial for one in ca.ledger.issues if one.revoked}
        assert revoked(folder) == gone and serial not in gone
        assert (folder / "issued" / f"{name}.pem").exists() is any(not one.revoked for one in held)
        assert (folder / "issued" / "pi-7.pem").exists()
    assert len(reached) >= 4


def test_a_damaged_ledger_is_named_and_nothing_is_done(folder: Path) -> None:
    issue(folder)
    path = folder / "ledger.json"
    good = path.read_bytes()
    document = json.loads(good)
    broken = [b"", b"{}", b"[]", b"null", good[: len(good) // 2], b"[" * 100_000, good.replace(b'"version": 1', b'"version": 2')]
    twice = {"issues": document["issues"] * 2}
    for change in ({"authorities": []}, {"issues": [{}]}, twice, {"retired": ["x"]}, {"fleet": 7}, {"more": 1}):
        broken.append(json.dumps({**document, **change}).encode())
    for data in broken:
        path.write_bytes(data)
        with pytest.raises(BadArgument, match=r"ledger\.json"):
            issue(folder, "pi-8")
        assert path.read_bytes() == data
    path.write_bytes(good)
    assert issue(folder, "pi-8")


def test_a_foreign_or_broken_key_signs_nothing(folder: Path) -> None:
    path = folder / "ca-1.key"
    for data in (b"", b"no key", building.key_text(building.new_key())):
        path.write_bytes(data)
        with pytest.raises(BadArgument, match=r"ca-1\.key"):
            issue(folder)
    os.unlink(path)
    with pytest.raises(MissingFile, match="private key"):
        issue(folder)


def test_another_ca_is_believed_by_who_knows_the_first_alone_until_it_is_retired(folder: Path) -> None:
    issue(folder)
    first = read_certificates((folder / "ca.pem").read_bytes(), "ca")
    with CertificateFolder.open(folder) as ca:
        assert ca.rotate(NOW + DAY) == 2
        assert len(read_certificates((folder / "ca.pem").read_bytes(), "ca")) == 2
        with pytest.raises(BadArgument, match="pi-7"):
            ca.retire(NOW + DAY)
        assert [one.authority for one in ca.renew(NOW + DAY).renewed] == [2]
        assert ca.renew(NOW + DAY).renewed == ()
        chain = read_certificates((folder / "issued" / "pi-7.pem").read_bytes(), "x")
        check_chain(chain, first, "x")
        with pytest.raises(CertificateRefused):
            check_chain(chain[:1], first, "x")
        assert ca.rotate(NOW + 2 * DAY) == 3
        ca.renew(NOW + 2 * DAY)
        check_chain(read_certificates((folder / "issued" / "pi-7.pem").read_bytes(), "x"), first, "x")
        assert ca.retire(NOW + 2 * DAY) == [1, 2] and ca.retire(NOW + 2 * DAY) == []
    (last,) = read_certificates((folder / "ca.pem").read_bytes(), "ca")
    check_chain(chain[:1] + chain[1:], first, "x")
    check_chain(read_certificates((folder / "issued" / "pi-7.pem").read_bytes(), "x"), [last], "x")
    assert revoked(folder) == set()


def test_no_certificate_outlives_its_ca_and_after_its_end_none_is_issued(tmp_path: Path) -> None:
    with CertificateFolder.open(CertificateFolder.create(tmp_path / "ca", "orchard", NOW, years=1).folder) as ca:
        key = building.new_key().public_key()
        assert ca.issue("pi-7", Holder.DEVICE, key, NOW + 100 * DAY, days=3650).until == NOW + 365 * DAY
        with pytest.raises(BadArgument, match="over"):
            ca.issue("pi-7", Holder.DEVICE, key, NOW + 366 * DAY)
        for days in (0, -1, 4000):
            with pytest.raises(BadArgument, match="days"):
                ca.issue("pi-7", Holder.DEVICE, key, NOW, days=days)


def test_a_ca_of_many_boards_is_read_and_renewed_whole(folder: Path) -> None:
    with CertificateFolder.open(folder) as ca:
        for n in range(60):
            ca.issue(f"pi-{n}", Holder.DEVICE, building.new_key().public_key(), NOW, days=90)
        assert len(ca.renew(NOW + 80 * DAY).renewed) == 60
    with CertificateFolder.open(folder, readonly=True) as ca:
        assert len(ca.ledger.issues) == 120 and len(ca.ledger.all_newest()) == 60


def test_what_keeps_a_ca_from_being_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    for where in (tmp_path / "open", tmp_path / "none" / "ca"):
        with pytest.raises(ModelWireError) as refused:
            CertificateFolder.create(where, "orchard", NOW)
        assert refused.value.next_step
    with pytest.raises(Malformed):
        CertificateFolder.create(tmp_path / "ca", "Or Chard", NOW)
