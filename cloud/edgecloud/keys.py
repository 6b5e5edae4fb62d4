"""The fleet's keys as files beside the registry: four that are secret, and fleet.pub, which every board is given.

A secret one is a line, as docs/protocol.md has it, or is kept by a passphrase: its kind, its public key, and an encrypted PKCS #8 that
`openssl pkey` reads too.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgecommon.files import NotPrivateError, read_secret, write_named
from modelwire.errors import BadArgument, Malformed, MissingFile, WrongKeyKind
from modelwire.names import ALL
from modelwire.wire import records, trust
from modelwire.wire.keys import TEXT_MAX, KeyKind, read_key, write_fleet, write_key
from modelwire.wire.records import Trust
from modelwire.wire.signing import FLEET_ID_BYTES, KEY_BYTES, Fleet, PrivateKey, Role, Signer

ROOT, RECEIPT, COMMAND, DIRECTOR, PUBLIC = "root.key", "receipt.key", "command.key", "director.key", "fleet.pub"
SECRET = {  # and their kinds
    ROOT: KeyKind.ROOT_PRIVATE, RECEIPT: KeyKind.RECEIPT_PRIVATE, COMMAND: KeyKind.COMMAND_PRIVATE, DIRECTOR: KeyKind.DIRECTOR_PRIVATE,
}  # fmt: skip
PUBLIC_OF = {
    KeyKind.ROOT_PRIVATE: KeyKind.ROOT, KeyKind.RECEIPT_PRIVATE: KeyKind.RECEIPT, KeyKind.COMMAND_PRIVATE: KeyKind.COMMAND,
    KeyKind.DIRECTOR_PRIVATE: KeyKind.DIRECTOR,
}  # fmt: skip
Passphrase = Callable[[object], bytes]  # gives the passphrase of the file that it is told
UNATTENDED = (RECEIPT,)  # a service opens it with nobody there to type


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What a file with a private key tells without its passphrase."""

    path: Path
    kind: KeyKind  # of the private key
    public: bytes  # as the file says it; proven when the key is taken out
    seed: bytes = b""  # the private key; empty where a passphrase keeps it
    pem: bytes = b""  # the private key as the passphrase keeps it


@dataclass(frozen=True, slots=True)
class FleetKeys:
    """All keys of a fleet, as `edgecloud init` makes them."""

    fleet: Fleet
    root: PrivateKey
    receipt: PrivateKey
    command: PrivateKey
    director: PrivateKey

    def trust(self, fleet: str, now: int) -> bytes:
        """Return the first trust record: these keys speak from now on, without an end. fleet: its name."""
        keys = (self.root.public, self.receipt.public, self.command.public, self.director.public)
        return records.encode(Trust(fleet, ALL, ALL, now, 1, now, 0, 0, *keys), self.root, self.fleet.id)


@contextmanager
def made_keys(folder: Path, passphrase: bytes = b"") -> Iterator[FleetKeys]:
    """Give new keys of a fleet, written into a folder: all of them, or none when what is done with them fails.

    passphrase: keeps all but the ones that a service opens. Raises BadArgument when one of the files is there already: it is neither
    overwritten nor used.
    """
    there = [name for name in (*SECRET, PUBLIC) if (folder / name).exists()]
    if there:
        raise BadArgument(
            reason=f"{', '.join(str(folder / name) for name in there)}: there already, and keys are never overwritten",
            fix="keys of another fleet belong to it: move them away, or make the registry in another folder with --db",
        )
    seeds = {name: secrets.token_bytes(KEY_BYTES) for name in SECRET}
    private = {name: PrivateKey(seed) for name, seed in seeds.items()}
    fleet = Fleet(private[ROOT].public, secrets.token_bytes(FLEET_ID_BYTES))
    written: list[Path] = []
    try:
        for name, kind in SECRET.items():
            text = key_text(kind, seeds[name], b"" if name in UNATTENDED else passphrase)
            write_named(folder / name, text.encode(), mode=0o600, replace=False)
            written.append(folder / name)
        write_named(folder / PUBLIC, (write_fleet(fleet) + "\n").encode(), mode=0o644, replace=False)
        written.append(folder / PUBLIC)
        yield FleetKeys(fleet, private[ROOT], private[RECEIPT], private[COMMAND], private[DIRECTOR])
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def load_key(path: Path, kind: KeyKind, passphrase: Passphrase | None = None) -> PrivateKey:
    """Return the private key of a kind in a file.

    passphrase: asked when one keeps the key. Raises WrongKeyKind, Malformed, BadArgument when others than its owner may read it, or the
    passphrase is not the one.
    """
    return open_key(read_key_file(path, kind), passphrase)


def open_key(file: KeyFile, passphrase: Passphrase | None = None) -> PrivateKey:
    """Return the private key in a file that was read. Raises as `load_key`."""
    return PrivateKey(seed_in(file, passphrase))


def seed_in(file: KeyFile, passphrase: Passphrase | None = None) -> bytes:
    """Return the 32 secret bytes in a file that was read. Raises as `load_key`."""
    if file.seed:
        return file.seed
    if passphrase is None:
        raise BadArgument(reason=f"{file.path} is kept by a passphrase", fix=f"edgecloud keys unprotect {file.path}")
    seed = _take_out(file.pem, passphrase(file.path), file.path)
    if PrivateKey(seed).public != file.public:
        raise Malformed(what=str(file.path), reason="the key that its passphrase keeps is not the one that it names in front")
    return seed


def read_key_file(path: Path, *kinds: KeyKind) -> KeyFile:
    """Return what a file with a private key of one of these kinds, or of any, tells without its passphrase. Raises as `load_key`."""
    kinds = kinds or tuple(PUBLIC_OF)
    try:
        data, fault = read_secret(path, TEXT_MAX)
        text = data.decode("ascii")
    except FileNotFoundError:
        raise MissingFile(path=path, what=kinds[0].title if len(kinds) == 1 else "a private key") from None
    except NotPrivateError as error:
        raise BadArgument(reason=str(error), fix=error.fix) from None
    except (UnicodeDecodeError, OSError) as error:
        raise BadArgument(reason=f"{path}: {error}", fix=f"check who owns it: ls -l {path}") from None
    lines = text.strip().split("\n")
    kind = next((k for k in kinds if k.prefix == lines[0].partition(":")[0]), kinds[0])
    if len(kinds) > 1 and not lines[0].startswith(f"{kind.prefix}:"):
        wanted = " or ".join(k.prefix for k in kinds)
        raise WrongKeyKind(where=str(path), got="it is another kind of file", needed=f"a private key ({wanted})")
    if lines[0] == f"{kind.prefix}:{_KEPT}" and len(lines) > 2:
        public = read_key(lines[1], PUBLIC_OF[kind], str(path))
        file = KeyFile(path, kind, public, pem="\n".join(lines[2:]).encode())
    else:
        seed = read_key(text, kind, str(path))  # first: of a key that every board has, the mode is not the matter
        file = KeyFile(path, kind, PrivateKey(seed).public, seed)
    if fault is not None:
        raise BadArgument(reason=str(fault), fix=fault.fix)
    return file


def give_to_owner(path: Path, owner: os.stat_result) -> None:
    """Let a new key file belong to whom the one before belongs: root changes the key that a service must read."""
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)


def key_text(kind: KeyKind, seed: bytes, passphrase: bytes = b"") -> str:
    """Return a private key as its file holds it, kept by a passphrase where one is given."""
    if not passphrase:
        return write_key(kind, seed) + "\n"
    public = write_key(PUBLIC_OF[kind], PrivateKey(seed).public)
    return f"{kind.prefix}:{_KEPT}\n{public}\n{_put_in(seed, passphrase)}"


def ssh_text(seed: bytes) -> str:
    """Return a private key as OpenSSH writes one without a passphrase."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Ed25519PrivateKey.from_private_bytes(seed).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


_KEPT = " kept by a passphrase"  # no digits: a release that knows no passphrase says what is wrong with the line

# PKCS #8 with PBES2 (RFC 8018): scrypt (RFC 7914), then AES-256-CBC. `cryptography` itself would write 2,048 rounds of PBKDF2, which a
# graphics card tries a million times a second. 16 MiB and five passes are what OWASP asks for and the most memory that every OpenSSL
# reads (its limit is 32 MiB); 0.2 s on a desk.
_COST, _BLOCK, _PASSES, _SALT = 1 << 14, 8, 5, 16
_BEFORE_SALT = bytes.fromhex("30819b305706092a864886f70d01050d304a302906092b06010401da47040b301c0410")
_BEFORE_IV = bytes.fromhex("02024000020108020105301d060960864801650304012a0410")
_BEFORE_KEY = bytes.fromhex("0440")


def _put_in(seed: bytes, passphrase: bytes) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    plain = Ed25519PrivateKey.from_private_bytes(seed).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    pad = 16 - len(plain) % 16
    salt, iv = secrets.token_bytes(_SALT), secrets.token_bytes(16)
    key = Scrypt(salt, 32, _COST, _BLOCK, _PASSES).derive(passphrase)
    seal = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    kept = seal.update(plain + bytes([pad]) * pad) + seal.finalize()
    der = base64.b64encode(_BEFORE_SALT + salt + _BEFORE_IV + iv + _BEFORE_KEY + kept).decode()
    return "\n".join([_PEM[0], *(der[i : i + 64] for i in range(0, len(der), 64)), _PEM[1], ""])


def _take_out(pem: bytes, passphrase: bytes, path: Path) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    lines = pem.decode("ascii").split("\n")
    try:
        if (lines[0], lines[-1]) != _PEM:
            raise ValueError
        der = base64.b64decode("".join(lines[1:-1]), validate=True)
        salt, iv = len(_BEFORE_SALT), len(_BEFORE_SALT) + _SALT + len(_BEFORE_IV)
        # Nothing but what we write is tried: a cost out of a file could be one that takes all memory.
        if der[:salt] != _BEFORE_SALT or der[salt + _SALT : iv] != _BEFORE_IV or der[iv + 16 : -64] != _BEFORE_KEY:
            raise ValueError
    except ValueError:
        raise Malformed(what=str(path), reason="it is no private key as this program keeps one by a passphrase") from None
    try:
        key = load_der_private_key(der, passphrase)
    except (ValueError, UnsupportedAlgorithm):  # what was damaged may come out as anything
        raise BadArgument(reason=f"the passphrase does not open {path}", fix="try again, or name another --passphrase-file") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Malformed(what=str(path), reason="what its passphrase keeps is no Ed25519 key")
    return key.private_bytes_raw()


_PEM = ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "-----END ENCRYPTED PRIVATE KEY-----")


def require_speaks(key: Signer | KeyFile, role: Role, held: trust.Trusted, where: object) -> None:
    """Raise BadArgument unless the newest trust record names this key for a role, receipt or command."""
    if key.public not in named(held, role):
        raise BadArgument(
            reason=f"{where} is none of the {role.name.lower()} keys that the fleet's trust record {held.number} names",
            fix="name the right one with --key",
        )


def named(held: trust.Trusted, role: Role) -> tuple[bytes, ...]:
    """Return the public keys that the newest trust record names for a role."""
    newest = held.newest
    if newest is None:
        return ()
    listed = {Role.ROOT: newest.root, Role.RECEIPT: newest.receipt, Role.COMMAND: newest.command, Role.DIRECTOR: newest.director}[role]
    return tuple(listed[i : i + KEY_BYTES] for i in range(0, len(listed), KEY_BYTES))


def trusted(fleet: Fleet, given: Sequence[bytes]) -> trust.Trusted:
    """Return what a fleet's trust records come to, oldest first. Raises BadSignature, WrongFleet or Malformed where one does not follow."""
    out = trust.Trusted(fleet)
    for record in given:
        out = out.take(records.parse(record))
    return out


def read_device_key(text: str) -> bytes:
    """Return a device's public key from edge-device-pub:..., or from a file that holds that line. Raises WrongKeyKind or Malformed."""
    path = Path(text)
    if os.sep not in text and path.suffix != ".pub" and ":" in text:
        return read_key(text, KeyKind.DEVICE, "the device's key")
    if not path.is_file():
        if os.sep in text or path.suffix == ".pub":
            raise MissingFile(path=path, what=KeyKind.DEVICE.title)
        return read_key(text, KeyKind.DEVICE, "the device's key")
    with path.open("rb") as file:
        return read_key(file.read(TEXT_MAX).decode("ascii", errors="replace"), KeyKind.DEVICE, str(path))
