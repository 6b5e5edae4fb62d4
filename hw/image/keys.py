"""`python -m hw.image.keys`: makes the keys of a firmware team that has none yet: a root, and a key that signs bundles.

What the board holds is root.pem alone. Both certificates hold from 2000 to 9999: a board without a battery wakes in another year, and must
take an update then, too. The private keys are of mode 600 and belong on the machine that signs, nowhere else.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KEYS = Path("build/hw/keys")
FIRST = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
LAST = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.timezone.utc)
ROOT, SIGNER = "root", "signer"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hw.image.keys", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", type=Path, default=KEYS, metavar="DIR", help="where they are kept (default: build/hw/keys)")
    args = parser.parse_args(argv)
    made = make(args.to)
    print(f"{'made' if made else 'kept'}: {args.to}/{ROOT}.pem for the boards, {args.to}/{SIGNER}.pem and {SIGNER}.key to sign bundles")
    return 0


def make(folder: Path) -> bool:
    """Make root and signer in a folder, unless they are there; return whether they were made."""
    if (folder / f"{SIGNER}.pem").exists():
        return False
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    root, signer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = certificate("edgeagent bundles: root", root.public_key(), "edgeagent bundles: root", root, authority=True)
    leaf = certificate("edgeagent bundles: signer", signer.public_key(), "edgeagent bundles: root", root, authority=False)
    private(folder / f"{ROOT}.key", root)
    private(folder / f"{SIGNER}.key", signer)
    (folder / f"{ROOT}.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / f"{SIGNER}.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))  # last: it says that all are there
    return True


def certificate(
    name: str, key: ec.EllipticCurvePublicKey, issuer: str, by: ec.EllipticCurvePrivateKey, *, authority: bool
) -> x509.Certificate:
    """Return a certificate that says whose key this is. authority: it may sign other certificates, and no bundle."""
    use = x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder().subject_name(_name(name)).issuer_name(_name(issuer)).public_key(key)
        .serial_number(x509.random_serial_number()).not_valid_before(FIRST).not_valid_after(LAST)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(use, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        .sign(by, hashes.SHA256())
    )  # fmt: skip


def private(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key to a file of mode 600."""
    data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


if __name__ == "__main__":
    sys.exit(main())
