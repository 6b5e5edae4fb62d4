"""Bytes read as the README of the negative vectors says: the whole way, each by the reader that they are for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import cbor, coder, ed25519, keys, limits, links, proof, records, rows, topics
from .apply import rebuild
from .commands import check_taken, read_take
from .container import read_container, read_extension
from .manifest import read_manifest
from .reading import Centre, read_act, read_down
from .replay import replay
from .root import read_root_proof
from .state import State, read_base
from .transfer import Receiver
from .trust import Trust

FLEET = bytes(range(16))
KEY = ed25519.public_key(bytes(range(32)))
With = dict[str, Any]


@contextmanager
def standing_in(values: dict[str, int]) -> Iterator[None]:
    """Let other limits stand in for those of the page."""
    before = {name.upper(): getattr(limits, name.upper()) for name in values}
    try:
        for name, value in values.items():
            setattr(limits, name.upper(), value)
        yield
    finally:
        for name, value in before.items():
            setattr(limits, name, value)


class Judge:
    """Reads the bytes of one folder's vectors; golden gives a golden folder's bases and the state of a version."""

    def __init__(self, folder: Path, golden: Callable[[str, str | None], tuple[State, Iterable[State]]]) -> None:
        """Hold where the files beside the index are, and the golden versions."""
        self.folder = folder
        self.golden = golden
        self.parents: list[tuple[State, Iterable[State]]] = []
        self.readers: dict[str, Callable[[bytes, With], object]] = {
            "cbor": lambda data, held: cbor.decode(data),
            "manifest": lambda data, held: read_manifest(data),
            "base": lambda data, held: read_base(read_manifest(bytes.fromhex(held["manifest"])), data),
            "container": self.container,
            "root-proof": lambda data, held: read_root_proof(data, bytes.fromhex(held["root"])),
            "header-proof": self.header_proof,
            "ed25519": lambda data, held: ed25519.verify([data[:32]], b"", b"", data[96:], data[32:96]),
            "recipe": self.recipe,
            "stream": self.stream,
            "row-ids": lambda data, held: rows.read_ids(read_extension(data)["rows"], held["rows"]),
            "forgot": lambda data, held: rows.read_forgot(read_extension(data)["forgot"]),
            "device": self.device,
            "centre": self.centre,
            "registry": self.registry,
            "topic": lambda data, held: topics.read_topic(data.decode("utf-8", "surrogateescape")),
            "key": lambda data, held: keys.read_key(data.decode("utf-8", "surrogateescape"), held["kind"]),
            "fleet.pub": lambda data, held: keys.read_fleet(data.decode("utf-8", "surrogateescape")),
            "link": self.link,
            "part": lambda data, held: self._receiver(held).take(data),
            "joined": self.joined,
        }

    def read(self, how: str, data: bytes, held: With) -> None:
        """Read bytes as a vector says; what a rule refuses comes out as its error."""
        if "folder" in held:
            self.parents = [self.golden(held["folder"], held["on"] if how == "container" else held["container"])]
        with standing_in(held.get("limits", {})):
            self.readers[how](data, held)

    def container(self, data: bytes, held: With) -> None:
        """Read a signed container up to the root."""
        if "folder" in held:
            parent, bases = self.parents[0]
        else:
            parent = read_base(read_manifest(bytes.fromhex(held["manifest"])), bytes.fromhex(held["weights"]))
            bases = [parent]
        update = read_container(data)
        update.verify([_key(held)], _fleet(held))
        rebuild(update, parent, bases)

    def header_proof(self, data: bytes, held: With) -> None:
        """Read a header proof that has to stand on a commit."""
        proof.read_chain([data], bytes.fromhex(held["start"]), [_key(held)], _fleet(held))

    def stream(self, data: bytes, held: With) -> None:
        """Read a coded stream."""
        coder.decode(data, [(r, c, n) for r, c, n in held["shapes"]])

    def recipe(self, data: bytes, held: With) -> None:
        """Read and replay a recipe."""
        replay(data, self.parents[0][0]).prove()

    def link(self, data: bytes, held: With) -> None:
        """Read a link, with its signature where there is one."""
        if "signature" in held:
            links.verify_link(data, bytes.fromhex(held["signature"]), [bytes.fromhex(held["receipt"])], _fleet(held))
        links.read_link(data)

    def joined(self, data: bytes, held: With) -> None:
        """Join a whole file."""
        receiver = self._receiver(held)
        receiver.held = {i: data[i * receiver.part_size : (i + 1) * receiver.part_size] for i in range(receiver.count)}
        receiver.join()

    def _record(self, name: str) -> records.Record:
        """Read a record that lies beside the index."""
        return records.read_record((self.folder / name).read_bytes())

    def _receiver(self, held: With) -> Receiver:
        """Open a transfer."""
        return Receiver(self._record(held["transfer"]).fields)

    def _trust(self, held: With) -> Trust:
        """Take the trust records that a reader took, and its newest time."""
        trust = Trust(keys.read_fleet(held["fleet_pub"]))
        for name in held.get("trust", []):
            trust.take(self._record(name))
        trust.newest = held.get("time", 0)
        return trust

    def _open(self, held: With) -> Receiver | None:
        """Open the transfer of which something may speak, if there is one."""
        return self._receiver(held) if "transfer" in held else None

    def device(self, data: bytes, held: With) -> None:
        """Read a record that comes down."""
        record = read_down(data, self._trust(held), held.get("topic"), self._open(held))
        if "update" in held:
            read_take(record, (self.folder / held["update"]).read_bytes())
        if "take" in held:
            check_taken(self._record(held["take"]), record)

    def centre(self, data: bytes, held: With) -> None:
        """Read what comes up."""
        centre = Centre(held["fleet"], _fleet(held), [bytes.fromhex(key) for key in held["keys"]])
        centre.read(data, held.get("topic"), self._open(held))

    def registry(self, data: bytes, held: With) -> None:
        """Read an act."""
        read_act(data, self._trust(held))


def _key(held: With) -> bytes:
    """Give the device's key."""
    return bytes.fromhex(held["key"]) if "key" in held else KEY


def _fleet(held: With) -> bytes:
    """Give the reader's fleet id."""
    return bytes.fromhex(held["fleet_id"]) if "fleet_id" in held else FLEET
