"""Who hears what on a mosquitto with the shipped files: strangers and an enrolled enemy, counted by what is delivered."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from tests.certificates import Authority
from tests.system.perimeter import FLEET, HOST, Client, Papers, Perimeter, perimeter

ENEMY = b"enemy: "
FILTERS = (
    "#", "+/#", f"e1/{FLEET}/#", f"e1/{FLEET}/+/+/dn/#", f"e1/{FLEET}/+/+/up/#", f"e1/{FLEET}/pi-7/#", f"e1/{FLEET}/pi-7/digits/dn/cmd",
    f"e1/{FLEET}/pi-9/+/dn/#", f"e1/{FLEET}/CENTRE/#", "$SYS/#",
    f"$share/centre/e1/{FLEET}/+/+/up/#", f"$share/pi-7/e1/{FLEET}/pi-7/+/dn/#",
)  # fmt: skip
TOPICS = (
    f"e1/{FLEET}/pi-7/digits/up/hello", f"e1/{FLEET}/pi-7/digits/up/state", f"e1/{FLEET}/pi-7/digits/dn/cmd",
    f"e1/{FLEET}/pi-7/digits/dn/receipt", f"e1/{FLEET}/pi-7/all/dn/trust", f"e1/{FLEET}/all/all/dn/trust",
    f"e1/{FLEET}/enemy/digits/dn/cmd", f"e1/{FLEET}/CENTRE/digits/up/hello",
    f"e1/{FLEET}/pi-9/digits/dn/cmd", "e1/other/enemy/digits/up/hello", "$SYS/broker/uptime", f"e1/{FLEET}/enemy", "anything",
)  # fmt: skip
IDS = (f"{FLEET}.pi-7", "pi-7", "CENTRE", f"edgecloud.{FLEET}", "pi-9", f"{FLEET}.pi-9")


@dataclass
class Tally:
    """What got through, of how much that was tried."""

    tried: int = 0
    let_in: list[str] = field(default_factory=list)  # strangers
    foreign: list[str] = field(default_factory=list)  # messages, in either direction
    stolen: list[str] = field(default_factory=list)  # ids: a session taken over, or its messages
    kicked: list[str] = field(default_factory=list)  # who was put off by what another did

    def figures(self) -> dict[str, int]:
        """Return the counts by the names that the evidence has for them."""
        return {
            "deliveries_tried": self.tried, "strangers_let_in": len(self.let_in), "foreign_messages": len(self.foreign),
            "stolen_ids": len(self.stolen), "clients_kicked": len(self.kicked),
        }  # fmt: skip


def measure(folder: Path, *, open_access: bool = False) -> Tally:
    """Try it all against a broker of its own, and return what got through. open_access: without its list, to see that it is counted."""
    tally = Tally()
    with perimeter(folder, "topic readwrite #\npattern readwrite #\n" if open_access else "") as at:
        papers = {name: at.issue(name) for name in ("pi-7", "pi-9", "enemy", "gone")}
        centre = Client(at, at.centre, f"edgecloud.{FLEET}", clean=False)
        board, sleeper = (Client(at, papers[name], f"{FLEET}.{name}", clean=False) for name in ("pi-7", "pi-9"))
        for one in (centre, board, sleeper):
            assert one.connect(), f"{one.name} is not let in"
        centre.listen(f"e1/{FLEET}/+/+/up/#")
        for one, name in ((board, "pi-7"), (sleeper, "pi-9")):
            one.listen(f"e1/{FLEET}/{name}/+/dn/#", f"e1/{FLEET}/all/all/dn/trust")
        _both_ways(centre, board, "before")
        sleeper.leave()
        centre.say(f"e1/{FLEET}/pi-9/digits/dn/cmd", b"secret of pi-9")  # waits in its session
        _strangers(at, papers, tally)
        _enemy(at, papers["enemy"], centre, board, tally)
        again = Client(at, papers["pi-9"], f"{FLEET}.pi-9", clean=False)
        assert again.connect()
        again.heard(b"secret of pi-9")  # nobody took it, and its session is whole
        _both_ways(centre, board, "after")
        for one in (centre, board, again):
            tally.kicked += [f"{one.name}: {why}" for why in one.lost]
            tally.foreign += [f"{one.name} heard {data!r} on {topic}" for topic, data in one.received if _foreign(topic, data)]
            one.leave()
    return tally


def _foreign(topic: str, data: bytes) -> bool:
    """Return whether the enemy's word came elsewhere than below its own name."""
    return data.startswith(ENEMY.rstrip()) and not topic.startswith(f"e1/{FLEET}/enemy/digits/up/")


def _both_ways(centre: Client, board: Client, word: str) -> None:
    """Have the centre and a board talk: whatever was said before has been delivered when this has."""
    board.say(f"e1/{FLEET}/pi-7/digits/up/hello", f"hello {word}".encode())
    centre.heard(f"hello {word}".encode())
    centre.say(f"e1/{FLEET}/pi-7/digits/dn/cmd", f"welcome {word}".encode())
    centre.say(f"e1/{FLEET}/all/all/dn/trust", f"trust {word}".encode())
    board.heard(f"welcome {word}".encode())
    board.heard(f"trust {word}".encode())


def _strangers(at: Perimeter, papers: dict[str, Papers], tally: Tally) -> None:
    """Try to get in without a certificate that holds."""
    place = at.folder / "strangers"
    place.mkdir()
    (at.folder / "gone.pem").write_bytes(papers["gone"].certificate.read_bytes())
    before = Client(at, papers["gone"], "gone")
    assert before.connect(), "it holds until it is revoked"
    before.leave()
    known = [_context(at, papers["gone"], version) for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)]
    sessions = [_greeted(at, context) for context in known]
    assert all(sessions), "it holds until it is revoked"
    at.cloud("ca", "revoke", "gone")
    at.cloud("broker", "refresh", "-o", str(at.folder / "broker"))
    at.reload()
    given: dict[str, Papers | None] = {"no certificate": None, "revoked": papers["gone"]}
    server = Papers(at.ca / "servers" / f"{HOST}.pem", at.ca / "servers" / f"{HOST}.key")
    given["the broker's own certificate"] = server
    given["another CA"] = _papers(place, "foreign", Authority(place, "foreign-ca"))
    given["a CA of the same name"] = _papers(place, "twin", Authority(place, "twin-ca", subject=f"{FLEET} CA 1"))
    given["expired"] = _expired(at, place)
    for what, shown in given.items():
        for five in (True, False):
            tally.tried += 1
            client = Client(at, shown, "pi-7", five=five)
            if client.connect():
                tally.let_in.append(what)
            client.leave()
    for context, session in zip(known, sessions, strict=True):
        tally.tried += 1
        if _greeted(at, context, session):
            tally.let_in.append("revoked, by the TLS session that it had")
    tally.tried += 2
    if _old_tls(at, papers["enemy"]):
        tally.let_in.append("TLS 1.1")
    with contextlib.suppress(ConnectionError), socket.create_connection((HOST, at.port), timeout=30) as plain:
        plain.sendall(bytes.fromhex("101000044d5154540402003c000470692d37"))
        if plain.recv(4)[:1] == b"\x20":
            tally.let_in.append("no TLS")


def _papers(place: Path, name: str, authority: Authority) -> Papers:
    made = authority.issue("pi-7", client=True)
    certificate, key = place / f"{name}.pem", place / f"{name}.key"
    made.certificate.rename(certificate)
    made.key.rename(key)
    return Papers(certificate, key)


def _expired(at: Perimeter, place: Path) -> Papers:
    """Return a certificate of the fleet's own CA whose time is over."""
    hour = datetime.timedelta(hours=1)
    made = Authority.of(place, at.ca).issue("pi-7", since=-3 * hour, until=-hour, client=True)
    certificate, key = place / "expired.pem", place / "expired.key"
    made.certificate.rename(certificate)
    made.key.rename(key)
    return Papers(certificate, key)


def _context(at: Perimeter, papers: Papers, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=at.ca / "ca.pem")
    context.load_cert_chain(papers.certificate, papers.key)
    context.minimum_version = context.maximum_version = version
    return context


def _greeted(at: Perimeter, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSession | None:
    """Connect by hand, by an earlier TLS session where there is one, and return the session when MQTT was answered."""
    try:
        with (
            socket.create_connection((HOST, at.port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname=HOST, session=session) as secured,
        ):
            secured.sendall(bytes.fromhex("101000044d5154540402003c0004676f6e65"))
            return secured.session if secured.recv(4)[:1] == b"\x20" else None
    except OSError:
        return None


def _old_tls(at: Perimeter, papers: Papers) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_verify_locations(at.ca / "ca.pem")
    context.load_cert_chain(papers.certificate, papers.key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    try:
        with socket.create_connection((HOST, at.port), timeout=30) as plain, context.wrap_socket(plain, server_hostname=HOST):
            return True
    except OSError:
        return False


def _enemy(at: Perimeter, papers: Papers, centre: Client, board: Client, tally: Tally) -> None:
    """Be a board of the fleet that has gone bad: hear, say, take ids, leave wills, and send too much."""
    heard: list[tuple[str, bytes]] = []
    for five in (True, False):
        enemy = Client(at, papers, f"{FLEET}.enemy", five=five)
        assert enemy.connect(), "it is enrolled"
        enemy.listen(*FILTERS)
        for topic in TOPICS:
            for retain in (False, True):
                tally.tried += 1
                enemy.say(topic, ENEMY + topic.encode(), retain=retain)
        tally.tried += len(FILTERS)
        enemy.say(f"e1/{FLEET}/enemy/digits/up/hello", ENEMY + b"in its own name")
        centre.heard(ENEMY + b"in its own name")  # so all that it said before has been dealt with
        _both_ways(centre, board, f"among enemies {five}")
        centre.say(f"e1/{FLEET}/enemy/digits/dn/cmd", b"to the enemy")
        enemy.heard(b"to the enemy")
        heard += enemy.received
        tally.tried += 1
        enemy.say(f"e1/{FLEET}/enemy/digits/up/update", ENEMY + bytes(1_000_000))
        enemy.wait_lost()
        enemy.leave()
    for one in IDS:
        for five in (True, False):
            tally.tried += 1
            thief = Client(at, papers, one, five=five, clean=False)
            if thief.connect():
                thief.listen(f"e1/{FLEET}/enemy/+/dn/#")
                centre.say(f"e1/{FLEET}/enemy/digits/dn/cmd", f"to {one} {five}".encode())
                thief.heard(f"to {one} {five}".encode())
                if board.lost or centre.lost or any(b"secret" in data for _, data in thief.received):
                    tally.stolen.append(one)
                heard += thief.received
            thief.leave()
    for topic in TOPICS:
        tally.tried += 1
        dying = Client(at, papers, "enemy", will=topic)
        if dying.connect():
            dying.break_off()
    fresh = Client(at, papers, "enemy")
    assert fresh.connect()
    fresh.listen("#")
    fresh.say(f"e1/{FLEET}/enemy/digits/up/hello", ENEMY + b"at the end")
    centre.heard(ENEMY + b"at the end")
    fresh.leave()
    tally.foreign += [f"the enemy heard {data[:60]!r} on {topic}" for topic, data in heard + fresh.received if not _own(topic)]


def _own(topic: str) -> bool:
    return (topic.startswith(f"e1/{FLEET}/enemy/") and "/dn/" in topic) or topic == f"e1/{FLEET}/all/all/dn/trust"
