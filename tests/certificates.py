"""Certificates for tests, and a server that shows one: whether who connects believes it is what a test looks at."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """A CA of a test's own."""

    def __init__(self, folder: Path, name: str = "ca", *, subject: str = "") -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]) if subject else _named(name)
        self.file = folder / f"{name}.pem"
        built = _built(self._name, self._name, self._key, -DAY, DAY, ca=True)
        self.file.write_bytes(built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    @classmethod
    def of(cls, folder: Path, ca: Path) -> Authority:
        """Return the fleet's own CA, whose key lies in its folder: it issues here what the commands would not."""
        return cls.holding(folder, ca / "ca.pem", ca / "ca-1.key")

    @classmethod
    def holding(cls, folder: Path, certificate: Path, private: Path) -> Authority:
        """Return who signs by a certificate that is there, whether it may sign or not."""
        made = cls.__new__(cls)
        key = serialization.load_pem_private_key(private.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        made.file = certificate
        made._folder, made._key, made._name = folder, key, x509.load_pem_x509_certificate(made.file.read_bytes()).subject
        return made

    def issue(
        self, host: str, *, since: datetime.timedelta = -DAY, until: datetime.timedelta = DAY,
        self_signed: bool = False, client: bool = False,
    ) -> Issued:  # fmt: skip
        """Return a certificate for a server, or a client of that name, good from `since` to `until`, both from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]) if client else _named("server")
        builder = _built(name, name if self_signed else self._name, key, since, until, ca=False)
        try:
            alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            alternative = x509.DNSName(host)
        builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        made = builder.sign(key if self_signed else self._key, hashes.SHA256())
        out = Issued(self._folder / "server.pem", self._folder / "server.key")
        out.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        out.key.write_bytes(key.private_bytes(*plain))
        out.key.chmod(0o600)
        return out

    @classmethod
    def of_file(cls, folder: Path, other: Authority) -> Authority:
        """Return the same CA, whose certificates and keys go into another folder."""
        made = cls.__new__(cls)
        made.file, made._folder, made._key, made._name = other.file, folder, other._key, other._name
        return made

    def issue_for(self, name: str, key: Path, *, since: datetime.timedelta, until: datetime.timedelta) -> bytes:
        """Return a client's certificate in PEM, for a private key that is there."""
        held = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(held, ec.EllipticCurvePrivateKey)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = _built(subject, self._name, held, since, until, ca=False)
        return built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@contextlib.contextmanager
def server(shown: Issued | None) -> Iterator[int]:
    """Give the port of a server on 127.0.0.1 that shows a certificate; without one it speaks no TLS at all."""
    context = None
    if shown is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(shown.certificate, shown.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listening.accept()
                except OSError:
                    return
                with plain, contextlib.suppress(OSError):
                    if context is None:
                        plain.recv(100)
                        plain.sendall(b"no TLS is spoken here")
                    else:
                        with context.wrap_socket(plain, server_side=True) as secured:
                            secured.recv(100)
                            secured.sendall(bytes.fromhex("20020001"))  # a broker's word on a version of MQTT that it does not know

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} of a test")])


def _built(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime.timedelta, until: datetime.timedelta,
    *, ca: bool,
) -> x509.CertificateBuilder:  # fmt: skip
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now + since).not_valid_after(now + until)
    return builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
