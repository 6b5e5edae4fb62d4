"""`edgeagent certificate`: the key that never leaves this device, the request for a certificate, and the certificate put in its place."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from edgeagent.link import certificate, installing
from edgeagent.settings.reading import Loaded
from edgecommon import files
from edgecommon.arguments import rule
from edgecommon.certificates import Life, day, key_fingerprint, read_file
from edgecommon.printing import Answer, lines_of
from modelwire.errors import BadArgument

from .answer import add_folder, load

NAME = "certificate"
HELP = "Ask for this device's certificate for the broker, put one in place, or show it. Works while the agent runs, which takes it at once."
EXAMPLES = (
    "edgeagent certificate request -o pi-7.csr",
    "edgeagent certificate install pi-7.pem",
    "edgeagent certificate install pi-7.pem --ca ca.pem",
    "edgeagent certificate show --json",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("request", "install", "show"), help="what to do")
    parser.add_argument("file", nargs="?", metavar="FILE", help="the certificate to put in place, as edgecloud ca wrote it")
    parser.add_argument("-o", "--out", metavar="FILE", help="where the request goes (default: DEVICE.csr)")
    parser.add_argument("--ca", metavar="FILE", help="put this ca.pem in the place of link.tls_ca, too: after the CA was rotated")
    add_folder(parser)
    rule(parser, _sense)


def _sense(args: argparse.Namespace) -> str:
    if args.action == "install" and not args.file:
        return "certificate install takes a FILE"
    if args.action != "install" and (args.file or args.ca):
        return f"{'FILE' if args.file else '--ca'} does nothing beside {args.action}"
    return f"--out does nothing beside {args.action}" if args.out and args.action != "request" else ""


def run(args: argparse.Namespace) -> Answer:
    loaded = load(args)
    link = loaded.settings.link
    if not link.tls_key or not link.tls_cert or not link.tls_ca:
        fix = 'link.tls_ca = "ca.pem", link.tls_cert = "tls.pem" and link.tls_key = "tls.key"'
        raise BadArgument(reason=f"{loaded.path} does not say where the files for TLS are", fix=f"write {fix} there")
    if args.action == "request":
        return _request(loaded, args.out)
    return _install(loaded, args.file, args.ca) if args.action == "install" else _show(loaded)


def _request(loaded: Loaded, out: str | None) -> Answer:
    """Write a request for a certificate; the key is made when there is none, and stays here."""
    device, path = loaded.settings.device.name, loaded.folder / loaded.settings.link.tls_key
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        files.write_named(path, made.private_bytes(*plain), mode=0o600, replace=False)
    key = installing.private_key(path)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)]))
    request = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    target = Path(out or f"{device}.csr")
    files.write_named(target, request.public_bytes(serialization.Encoding.PEM))
    fingerprint = key_fingerprint(key.public_key())
    document = {"device": device, "request": str(target), "key": str(path), "fingerprint": fingerprint}
    lines = [f"wrote {target}; its key is {path}, and stays here", "", f"    of the key    {fingerprint}", ""]
    lines += ["on the centre, which prints the same fingerprint:", f"  edgecloud ca issue {device} --request {target.name}"]
    return Answer(document, lines_of([*lines, "then here:", f"  edgeagent certificate install {device}.pem"]))


def _install(loaded: Loaded, given: str, ca: str | None) -> Answer:
    """Put a certificate where the settings say, if it is this device's, for its key, by its CA. Raises CertificateRefused."""
    link, device, now = loaded.settings.link, loaded.settings.device.name, time.time()
    data = read_file(Path(given), "the certificate")
    bundle = read_file(Path(ca) if ca else loaded.folder / link.tls_ca, "the certificates of the CA")
    life = installing.checked(data, bundle, device, loaded.folder / link.tls_key, given, now)
    if ca:  # first: with the new bundle the old certificate is as good as before
        files.write_named(loaded.folder / link.tls_ca, bundle)
    files.write_named(loaded.folder / link.tls_cert, data)
    return _told(loaded, device, life, f"{loaded.folder / link.tls_cert}: in place, ")


def _show(loaded: Loaded) -> Answer:
    life = certificate.own_life(loaded.settings.link, loaded.folder)
    if life is None:
        raise BadArgument(reason=f"{loaded.settings.link.broker} is spoken to without TLS", fix="set link.broker to mqtts://HOST[:PORT]")
    return _told(loaded, loaded.settings.device.name, life, "")


def _told(loaded: Loaded, device: str, life: Life, before: str) -> Answer:
    now, path = time.time(), loaded.folder / loaded.settings.link.tls_cert
    document = {
        "device": device, "certificate": str(path), "since": life.since, "until": life.until, "renew_from": life.renew_from,
        "state": life.word(now),
    }  # fmt: skip
    return Answer(document, lines_of([f"{before}certificate of {device} {life.told(now)}; to be renewed from {day(life.renew_from)} on"]))
