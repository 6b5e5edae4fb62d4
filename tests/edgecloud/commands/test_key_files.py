"""Private keys kept by a passphrase, and by a real ssh-agent: nobody without either seals anything, and no secret is shown."""

from __future__ import annotations

import argparse
import base64
import json
import os
import pty
import select
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgecloud import keys
from edgecloud.commands import passphrases, ssh_agent
from edgecloud.registry import open_registry
from modelwire.errors import BadArgument, ModelWireError
from modelwire.wire import records
from modelwire.wire.keys import KeyKind, write_key
from modelwire.wire.signing import PrivateKey, Role
from tests.edgecloud.desk import Desk

WORD = "correct horse 12"
DEVICE = ("devices", "add", "pi-7", "edge-device-pub:" + "d7" * 32)


@pytest.fixture
def word(desk: Desk) -> str:
    path = desk.folder / "word"
    path.write_text(WORD + "\n")
    path.chmod(0o600)
    return "word"


def admitted(desk: Desk) -> int:
    store = open_registry(desk.folder / "fleet.db")
    try:
        return len(store.devices.names())
    finally:
        store.close()


def test_init_keeps_the_keys_of_people_by_a_passphrase_and_leaves_the_services_key_open(desk: Desk, word: str) -> None:
    said = desk.json("init", "--passphrase-file", word)
    assert said["protected"] is True
    for name, kind in keys.SECRET.items():
        file = keys.read_key_file(desk.folder / name, kind)
        assert (file.seed == b"") is (name != "receipt.key") and stat.S_IMODE((desk.folder / name).stat().st_mode) == 0o600
    before = admitted(desk)
    said = desk.error(*DEVICE)
    assert said["error"] == "BadArgument" and "--passphrase-file" in str(said["hint"]) and admitted(desk) == before
    desk.ok(*DEVICE, "--passphrase-file", word)
    assert admitted(desk) == before + 1
    _, out, _ = desk.run("doctor", "--json")
    assert next(c for c in json.loads(out)["checks"] if c["what"] == "key")["ok"], "the receipt key is read without a passphrase"


@pytest.mark.parametrize("name", list(keys.SECRET))
def test_a_key_is_protected_and_unprotected_without_becoming_another(desk: Desk, word: str, name: str) -> None:
    desk.ok("init")
    path = desk.folder / name
    plain = path.read_bytes()
    desk.ok("keys", "protect", name, "--passphrase-file", word)
    kept = path.read_text()
    assert plain.decode().strip().partition(":")[2] not in kept and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert desk.error("keys", "protect", name, "--passphrase-file", word)["error"] == "BadArgument"
    for other in set(keys.SECRET.values()) - {keys.SECRET[name]}:
        with pytest.raises(ModelWireError, match=keys.SECRET[name].title):
            keys.load_key(path, other, lambda _: WORD.encode())
    (desk.folder / "bad").write_text("wrong")
    (desk.folder / "bad").chmod(0o600)
    said = desk.error("keys", "unprotect", name, "--passphrase-file", "bad")
    assert "does not open" in str(said["message"]) and path.read_text() == kept
    desk.ok("keys", "unprotect", name, "--passphrase-file", word)
    assert path.read_bytes() == plain
    assert desk.error("keys", "unprotect", name, "--passphrase-file", word)["error"] == "BadArgument"


def test_openssl_reads_what_a_passphrase_keeps(desk: Desk, word: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command here")
    desk.ok("init", "--passphrase-file", word)
    command = ["openssl", "pkey", "-in", "command.key", "-passin", "file:word", "-pubout", "-outform", "DER"]
    done = subprocess.run(command, cwd=desk.folder, capture_output=True, check=True)
    assert done.stdout[-32:] == keys.read_key_file(desk.folder / "command.key").public


def test_no_changed_byte_of_a_protected_file_gives_another_key(desk: Desk, word: str) -> None:
    desk.ok("init", "--passphrase-file", word)
    path = desk.folder / "command.key"
    data, public = path.read_bytes(), keys.read_key_file(path).public
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            key = keys.load_key(path, KeyKind.COMMAND_PRIVATE, lambda _: WORD.encode())
        except ModelWireError:
            continue
        assert key.public == public, at
    for cut in range(0, len(data) - 1, 23):
        path.write_bytes(data[:cut])
        with pytest.raises(ModelWireError):
            keys.load_key(path, KeyKind.COMMAND_PRIVATE, lambda _: WORD.encode())


def test_a_file_can_not_ask_for_all_memory(tmp_path: Path) -> None:
    text = keys.key_text(KeyKind.COMMAND_PRIVATE, bytes(32), b"x")
    lines = text.split("\n")
    der = base64.b64decode("".join(lines[3:-2]))
    greedy = base64.b64encode(der.replace(bytes.fromhex("02024000020108"), bytes.fromhex("02027fff020108"))).decode()
    path = tmp_path / "command.key"
    path.write_text("\n".join([*lines[:3], *(greedy[i : i + 64] for i in range(0, len(greedy), 64)), lines[-2], ""]))
    path.chmod(0o600)
    with pytest.raises(ModelWireError, match="no private key as this program keeps one"):
        keys.load_key(path, KeyKind.COMMAND_PRIVATE, lambda _: b"x")


def test_a_key_that_is_not_the_one_in_front_is_refused(desk: Desk, word: str) -> None:
    desk.ok("init", "--passphrase-file", word)
    path = desk.folder / "command.key"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[0], write_key(KeyKind.COMMAND, PrivateKey(b"x" * 32).public), *lines[2:]]))
    with pytest.raises(ModelWireError, match="not the one that it names in front"):
        keys.load_key(path, KeyKind.COMMAND_PRIVATE, lambda _: WORD.encode())


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb", b"x" * 2000, b"a\0b"])
def test_a_file_that_holds_no_passphrase_is_refused(desk: Desk, content: bytes) -> None:
    (desk.folder / "w").write_bytes(content)
    (desk.folder / "w").chmod(0o600)
    assert desk.error("init", "--passphrase-file", "w")["error"] == "BadArgument" and not (desk.folder / "root.key").exists()


def test_a_passphrase_file_that_others_may_read_is_refused(desk: Desk, word: str) -> None:
    (desk.folder / word).chmod(0o644)
    said = desk.error("init", "--passphrase-file", word)
    assert said["hint"] == "chmod 600 word" and WORD not in str(said)
    assert desk.error("init", "--passphrase-file", "none")["error"] == "MissingFile"


def typed(folder: Path, said: list[tuple[str, str]], *words: str) -> tuple[int, str]:
    """Run a command on a terminal of its own, type what belongs behind each prompt, and return its code and all that was shown."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execv(sys.executable, [sys.executable, "-m", "edgecloud", *words])
    shown, left = b"", list(said)
    while True:
        ready, _, _ = select.select([terminal], [], [], 200.0)
        assert ready, shown
        try:
            more = os.read(terminal, 4096)
        except OSError:  # the other end was closed
            break
        if not more:
            break
        shown += more
        if left and left[0][0].encode() in shown:
            os.write(terminal, left.pop(0)[1].encode() + b"\n")
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode()


@pytest.mark.slow("starts processes on terminals", seconds=10)
def test_a_passphrase_is_typed_on_the_terminal_and_not_shown(desk: Desk) -> None:
    code, shown = typed(desk.folder, [("New passphrase", WORD), ("again", WORD)], "init", "--protect")
    assert code == 0 and WORD not in shown, shown
    code, shown = typed(desk.folder, [("Passphrase of command.key", "wrong")], *DEVICE)
    assert code != 0 and "does not open" in shown and "wrong" not in shown and admitted(desk) == 0
    code, shown = typed(desk.folder, [("Passphrase of command.key", WORD)], *DEVICE)
    assert code == 0 and WORD not in shown and admitted(desk) == 1
    code, shown = typed(desk.folder, [("New passphrase", "one"), ("again", "two")], "keys", "protect", "receipt.key")
    assert code != 0 and "not the same" in shown
    code, shown = typed(desk.folder, [("Passphrase", WORD)], "keys", "export-ssh", "command.key")
    assert code != 0 and "not shown on a terminal" in shown and "OPENSSH" not in shown


def test_where_there_is_no_terminal_nothing_is_asked_for(desk: Desk, word: str) -> None:
    desk.ok("init", "--passphrase-file", word)
    command = [sys.executable, "-m", "edgecloud", *DEVICE, "--json"]
    done = subprocess.run(command, cwd=desk.folder, input=f"{WORD}\n", capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 15 and "no terminal" in done.stderr and admitted(desk) == 0


def test_the_ingester_takes_no_command_key_and_no_passphrase_is_typed_for_it(desk: Desk, word: str) -> None:
    desk.ok("init")
    assert desk.error("ingest", "--once", "--key", "command.key")["error"] == "WrongKeyKind"
    desk.ok("keys", "protect", "receipt.key", "--passphrase-file", word)
    said = desk.error("ingest", "--once")
    assert "is kept by a passphrase" in str(said["message"])


# ssh-agent.


@contextmanager
def agent(folder: Path) -> Iterator[str]:
    """Run a real ssh-agent, and return its socket."""
    if shutil.which("ssh-agent") is None or shutil.which("ssh-add") is None:
        pytest.skip("there is no ssh-agent here: apt-get install openssh-client")
    path = folder / "agent"
    child = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not path.exists():
            assert child.poll() is None, "ssh-agent did not start"
            select.select([], [], [], 0.02)
        yield str(path)
    finally:
        child.terminate()
        child.wait(30)


def test_a_command_is_sealed_by_a_real_ssh_agent(desk: Desk, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.ok("init", "--passphrase-file", word)
    with agent(tmp_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        said = desk.error(*DEVICE, "--key", "ssh-agent")
        assert "none of them is the command key" in str(said["message"]) and admitted(desk) == 0
        private = desk.ok("keys", "export-ssh", "command.key", "--passphrase-file", word)
        subprocess.run(["ssh-add", "-q", "-"], input=private, text=True, check=True, env=os.environ)
        public = keys.read_key_file(desk.folder / "command.key").public
        assert ssh_agent.identities() == [public]
        (desk.folder / "command.key").unlink()
        monkeypatch.setenv("EDGECLOUD_COMMAND_KEY", "ssh-agent")
        desk.ok(*DEVICE)
        store = open_registry(desk.folder / "fleet.db")
        (act,) = store.acts.of("pi-7")
        records.parse(act.record).verify(public, store.identity.id, "the agent", Role.ACT)
        store.close()
        subprocess.run(["ssh-add", "-q", "-x"], input="", check=False, env={**os.environ, "SSH_ASKPASS_REQUIRE": "never"})
        desk.ok("trust", "rotate", "command", "--now", "--public", write_key(KeyKind.COMMAND, PrivateKey(b"x" * 32).public),
                "--passphrase-file", word)  # fmt: skip
        assert "none of them" in str(desk.error("devices", "revoke", "pi-7")["message"]), "the one in the agent speaks no more"
    said = desk.error("devices", "revoke", "pi-7")
    assert said["error"] == "BadArgument" and "ssh-agent at" in str(said["message"])
    monkeypatch.delenv("SSH_AUTH_SOCK")
    assert "SSH_AUTH_SOCK is not set" in str(desk.error("devices", "revoke", "pi-7")["message"])


def test_the_root_key_signs_a_change_from_an_agent(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.ok("init")
    with agent(tmp_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        desk.ok("keys", "export-ssh", "root.key", "-o", "id_root")
        assert stat.S_IMODE((desk.folder / "id_root").stat().st_mode) == 0o600
        subprocess.run(["ssh-add", "-q", "id_root"], cwd=desk.folder, check=True, env=os.environ)
        (desk.folder / "root.key").unlink()
        desk.ok("trust", "rotate", "receipt", "--root-key", "ssh-agent")
        assert desk.json("trust", "show")["number"] == 2


def blob(key: bytes, kind: bytes = b"ssh-ed25519") -> bytes:
    return string(kind) + string(key)


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


KEY = PrivateKey(b"k" * 32)
LISTED = bytes([12]) + struct.pack(">I", 1) + string(blob(KEY.public)) + string(b"me")
OTHER = PrivateKey(b"o" * 32)
SIGNED = bytes([14]) + string(string(b"ssh-ed25519") + string(OTHER.sign(b"domain", b"f" * 16, b"message")))
LIES = {
    "nothing": b"", "an empty answer": bytes(4), "one that is too long": struct.pack(">I", 1 << 31),
    "a cut answer": struct.pack(">I", 50) + b"x",
    "a failure": string(b"\x05"), "another answer": string(b"\x0c" + bytes(4)), "a signature of another key": string(SIGNED),
    "a short signature": string(bytes([14]) + string(string(b"ssh-ed25519") + string(b"x"))),
    "another kind of signature": string(bytes([14]) + string(string(b"ssh-rsa") + string(bytes(64)))),
    "lengths that lie": string(bytes([14]) + struct.pack(">I", 1 << 30)),
    "more behind it": string(bytes([14]) + string(string(b"ssh-ed25519") + string(bytes(64)) + b"x")),
}  # fmt: skip


@contextmanager
def liar(folder: Path, answer: bytes) -> Iterator[str]:
    path = str(folder / "liar")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen()

        def serve() -> None:
            link, _ = listening.accept()
            with link:
                link.recv(65536)
                link.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        thread.join(60)


@pytest.mark.parametrize("lie", LIES)
def test_an_agent_that_lies_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    with liar(tmp_path, LIES[lie]) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with pytest.raises(ModelWireError) as refused:
            ssh_agent.AgentKey(KEY.public).sign(b"domain", b"f" * 16, b"message")
    assert refused.value.code in (15, 45)


@pytest.mark.parametrize("answer", [
    string(LISTED[:-1]), string(bytes([12]) + struct.pack(">I", 1 << 31)), string(bytes([12])), string(b"\x05"),
    string(bytes([12]) + struct.pack(">I", 1) + string(b"\0") + string(b"")),
])  # fmt: skip
def test_a_list_of_identities_that_lies_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    with liar(tmp_path, answer) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with pytest.raises(BadArgument):
            ssh_agent.identities()


def test_identities_of_other_kinds_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = string(blob(b"x" * 300, b"ssh-rsa")) + string(b"rsa") + string(blob(b"short")) + string(b"odd")
    answer = bytes([12]) + struct.pack(">I", 3) + other + LISTED[5:]
    with liar(tmp_path, string(answer)) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        assert ssh_agent.identities() == [KEY.public]


def test_a_passphrase_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(passphrases, "_asked", lambda prompt, what: asked.append(prompt) or b"word")
    give = passphrases.passphrase_of(argparse.Namespace(passphrase_file=None))
    assert give("a.key") == give("a.key") == b"word" and len(asked) == 1
