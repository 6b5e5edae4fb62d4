"""Files by HTTP from real sockets: whole, resumed, and from servers that do everything wrong."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from edgeagent.fetching.incoming import discard
from edgeagent.fetching.tasks import LEAF
from edgeagent.fetching.watched_socket import Patience
from modelwire.deploying.reports import Code
from tests.certificates import Authority

from .files import BRIEF, Fetcher, Wanted
from .servers import Handler, Request, files, partial, serving

FILE = Wanted()
URL = "/m.tflite"


def good(wanted: Wanted = FILE) -> Handler:
    return files(wanted.served())


def test_a_place_that_it_was_sent_on_to_may_end_and_the_address_is_asked_anew(tmp_path: Path) -> None:
    """As signed links of stores do: each is good for a few minutes."""
    granted: list[int] = []

    def signing(connection: socket.socket, request: Request) -> bool:
        if request.path == URL:
            granted.append(2)  # requests that the newest one takes
            head = f"HTTP/1.1 302 Found\r\nLocation: /signed/{len(granted)}\r\nContent-Length: 0\r\n\r\n"
            connection.sendall(head.encode())
            return True
        if not request.path.startswith("/signed/"):
            return good()(connection, request)
        if request.path != f"/signed/{len(granted)}" or not granted[-1]:
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return True
        granted[-1] -= 1
        return good()(connection, Request(URL, request.head))

    with serving(signing) as server:
        d = Fetcher(tmp_path, FILE.task(server.url + URL)).run()
    assert d.failure is None and d.file is not None and d.file.read_bytes() == FILE.data
    assert len(granted) == 3 and d.progress.failed == 0


def test_a_server_that_hangs_up_is_said_by_what_it_does(tmp_path: Path) -> None:
    with serving(lambda connection, request: False) as server:
        d = Fetcher(tmp_path, FILE.task(server.url + URL, tries=1)).run()
    assert d.failure is not None and d.failure.code == Code.BUDGET and "it hangs up without an answer" in d.failure.reason


def test_a_place_that_it_is_sent_on_to_and_that_has_nothing_ends_it(tmp_path: Path) -> None:
    def nowhere(connection: socket.socket, request: Request) -> bool:
        to = b"302 Found\r\nLocation: /nothing" if request.path == URL else b"404 Not Found"
        connection.sendall(b"HTTP/1.1 " + to + b"\r\nContent-Length: 0\r\n\r\n")
        return True

    with serving(nowhere) as server:
        d = Fetcher(tmp_path, FILE.task(server.url + URL)).run()
        assert d.failure is not None and d.failure.code == Code.GONE
        assert len(server.requests) == 3, "the leaves, the address, and where that leads"


@pytest.mark.parametrize("size", [1, LEAF - 1, LEAF, LEAF + 1, 3 * LEAF, 5 * LEAF + 123])
def test_a_file_comes_whole_part_by_part(tmp_path: Path, size: int) -> None:
    wanted = Wanted(size)
    with serving(good(wanted)) as server:
        d = Fetcher(tmp_path / "in", wanted.task(server.url + URL)).run()
    assert d.failure is None and d.file is not None and d.file.read_bytes() == wanted.data
    assert server.connections == 1 and d.progress.failed == 0
    assert d.progress.here == size <= d.progress.spent <= d.progress.allowed
    d.discard()
    assert list((tmp_path / "in").iterdir()) == []


def test_addresses_hold_the_digest_and_the_commit(tmp_path: Path) -> None:
    task = FILE.task("")
    known = {f"/a/{task.file.hex()}.tflite": FILE.data, f"/a/{task.file.hex()}.leaves": FILE.leaves}
    with serving(files(known)) as server:
        d = Fetcher(tmp_path, FILE.task(server.url + "/a/{file}.tflite?t={commit}")).run()
    assert d.file is not None
    assert server.requests[0].path == f"/a/{task.file.hex()}.leaves?t={task.commit.hex()}"


def test_without_leaves_beside_it_the_whole_is_proven_at_its_end(tmp_path: Path) -> None:
    with serving(files({URL: FILE.data})) as server:
        d = Fetcher(tmp_path, FILE.task(server.url + URL)).run()
    assert d.file is not None and d.file.read_bytes() == FILE.data
    assert d.progress.failed == 0


def test_leaves_that_never_come_keep_no_file_away(tmp_path: Path) -> None:
    def busy(connection: socket.socket, request: Request) -> bool:
        if request.path == URL:
            return good()(connection, request)
        connection.sendall(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
        return True

    with serving(busy) as server:
        d = Fetcher(tmp_path, FILE.task(server.url + URL, tries=3)).run()
    assert d.file is not None and d.progress.failed == 2


def test_leaves_that_are_not_the_tree_s_are_let_be(tmp_path: Path) -> None:
    with serving(files(FILE.served() | {"/m.leaves": b"x" * len(FILE.leaves)})) as server:
        d = Fetcher(tmp_path, FILE.task(server.url + URL)).run()
    assert d.file is not None


@pytest.mark.parametrize("leaves", [True, False])
def test_what_is_here_is_not_fetched_again(tmp_path: Path, leaves: bool) -> None:
    served = FILE.served() if leaves else {URL: FILE.data}
    with serving(files(served)) as server:
        first = Fetcher(tmp_path, FILE.task(server.url + URL))
        first.run(lambda: first.download.progress.here >= 2 * LEAF)
        first.download.cancel()
        before = server.spans(URL)
        d = Fetcher(tmp_path, FILE.task(server.url + URL)).run()
        again = server.spans(URL)[len(before) :]
    assert d.file is not None and d.file.read_bytes() == FILE.data
    assert set(again) & set(before[:2]) == set() and d.progress.failed == 0


def test_a_server_without_ranges_sends_the_whole_once(tmp_path: Path) -> None:
    with serving(files(FILE.served(), ranges=False)) as server:
        d = Fetcher(tmp_path, FILE.task(server.url + URL)).run()
    assert d.file is not None and d.file.read_bytes() == FILE.data
    assert [r.path for r in server.requests] == ["/m.leaves", URL]


def test_what_a_whole_sends_again_is_counted_before_it_comes(tmp_path: Path) -> None:
    with serving(files(FILE.served())) as server:
        first = Fetcher(tmp_path, FILE.task(server.url + URL))
        first.run(lambda: first.download.progress.here >= 3 * LEAF)
        first.download.cancel()
        before = first.download.progress.spent
        server.handler = at_parts(silent_whole)
        f = Fetcher(tmp_path, FILE.task(server.url + URL, most=3 * FILE.size))
        f.run(lambda: f.download.progress.spent > before + 4 * LEAF)  # asked for, and killed while it comes
        f.download.cancel()
        again = Fetcher(tmp_path, FILE.task(server.url + URL, most=3 * FILE.size))
    assert again.download.progress.spent > before + 4 * LEAF


def silent_whole(connection: socket.socket, request: Request) -> bool:
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {FILE.size}\r\n\r\n".encode())
    return silent(connection, request)


def test_a_whole_that_the_budget_does_not_allow_is_not_read(tmp_path: Path) -> None:
    with serving(files(FILE.served())) as server:
        first = Fetcher(tmp_path, FILE.task(server.url + URL))
        first.run(lambda: first.download.progress.here >= 4 * LEAF)
        first.download.cancel()
        server.handler = files(FILE.served(), ranges=False)
        d = Fetcher(tmp_path, FILE.task(server.url + URL, most=first.download.progress.spent + 2 * LEAF)).run()
    assert d.failure is not None and d.failure.code == Code.BUDGET and "the whole file alone" in d.failure.reason
    assert d.progress.spent <= d.progress.allowed


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found", "410 Gone", "451 No"])
def test_4xx_is_final_and_costs_one_attempt(tmp_path: Path, status: str) -> None:
    def none(connection: socket.socket, request: Request) -> bool:
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        return True

    with serving(none) as server:
        d = Fetcher(tmp_path, FILE.task(server.url + URL)).run()
        assert d.failure is not None and d.failure.code == Code.GONE and status[:3] in d.failure.reason
        assert len(server.requests) == 2 and d.progress.failed == 1 and d.progress.spent < 4096
        d.cancel()
        again = Fetcher(tmp_path, FILE.task(server.url + URL)).run()  # a restart: it is written down
        assert again.failure is not None and again.failure.code == Code.GONE
        assert len(server.requests) == 2


def test_the_next_address_is_asked_where_one_has_nothing(tmp_path: Path) -> None:
    with serving(files({})) as empty, serving(good()) as server:
        d = Fetcher(tmp_path, FILE.task(empty.url + URL, server.url + URL)).run()
    assert d.file is not None and len(empty.requests) == 2


def test_a_5xx_is_asked_again_after_pauses_as_often_as_the_tries_allow(tmp_path: Path) -> None:
    def busy(connection: socket.socket, request: Request) -> bool:
        connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        return True

    with serving(busy) as server:
        f = Fetcher(tmp_path, FILE.task(server.url + URL, tries=4))
        d = f.run()
    assert d.failure is not None and d.failure.code == Code.BUDGET and "503" in d.failure.reason
    assert len(server.requests) == 4 and f.now >= 3 * 7.5


def test_nobody_there_costs_tries_and_tries_outlive_restarts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        s.close()
        task = FILE.task(f"http://127.0.0.1:{port}{URL}", tries=3)
        for n in range(1, 4):
            f = Fetcher(tmp_path, task)
            f.run(lambda f=f, n=n: f.download.progress.failed >= n)  # type: ignore[misc]
            f.download.cancel()
    assert f.download.failure is not None and f.download.failure.code == Code.BUDGET


def test_another_desired_has_its_own_budget_and_keeps_what_is_here(tmp_path: Path) -> None:
    with serving(files({})) as empty, serving(good()) as server:
        first = Fetcher(tmp_path, FILE.task(server.url + URL))
        first.run(lambda: first.download.progress.here >= 3 * LEAF)
        first.download.cancel()
        failed = Fetcher(tmp_path, FILE.task(empty.url + URL, number=2)).run()
        assert failed.failure is not None
        failed.cancel()
        before = len(server.spans(URL))
        d = Fetcher(tmp_path, FILE.task(server.url + URL, number=3)).run()
        assert d.file is not None and len(server.spans(URL)) - before == 3


def at_parts(what: Handler) -> Handler:
    """Answer honestly but for the parts of the file."""

    def answer(connection: socket.socket, request: Request) -> bool:
        return what(connection, request) if request.path == URL else good()(connection, request)

    return answer


def lies(connection: socket.socket, request: Request) -> bool:
    start, stop = request.range or (0, 0)
    connection.sendall(partial(start, stop, FILE.size) + bytes(stop - start))
    return True


def cut_short(connection: socket.socket, request: Request) -> bool:
    start, stop = request.range or (0, 0)
    connection.sendall(partial(start, stop, FILE.size) + FILE.data[start : stop - 1000])
    return False


def other_range(connection: socket.socket, request: Request) -> bool:
    start, stop = request.range or (0, 0)
    connection.sendall(partial(start + LEAF, stop + LEAF, FILE.size) + bytes(stop - start))
    return True


def other_length(connection: socket.socket, request: Request) -> bool:
    start, stop = request.range or (0, 0)
    connection.sendall(partial(start, stop, FILE.size + 1) + bytes(stop - start))
    return True


def no_range(connection: socket.socket, request: Request) -> bool:
    connection.sendall(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\n\r\n0123456789")
    return True


def packed(connection: socket.socket, request: Request) -> bool:
    start, stop = request.range or (0, 0)
    connection.sendall(partial(start, stop, FILE.size, "Content-Encoding: gzip\r\n") + bytes(stop - start))
    return True


def silent(connection: socket.socket, request: Request) -> bool:
    connection.recv(1)  # until the other side has had enough
    return False


def half(connection: socket.socket, request: Request) -> bool:
    start, stop = request.range or (0, 0)
    connection.sendall(partial(start, stop, FILE.size) + FILE.data[start : start + 10])
    return silent(connection, request)


def endless_head(connection: socket.socket, request: Request) -> bool:
    connection.sendall(b"HTTP/1.1 206 Partial Content\r\n")
    while True:
        connection.sendall(b"X-More: %s\r\n" % (b"x" * 1000))


def endless_line(connection: socket.socket, request: Request) -> bool:
    while True:
        connection.sendall(b"x" * 1000)


def endless_continue(connection: socket.socket, request: Request) -> bool:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def endless_body(connection: socket.socket, request: Request) -> bool:
    connection.sendall(b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n")
    start, stop = request.range or (0, 0)
    connection.sendall(f"Content-Range: bytes {start}-{stop - 1}/{FILE.size}\r\n\r\n".encode())
    while True:
        connection.sendall(b"1\r\nx\r\n" * 100)


def resets(connection: socket.socket, request: Request) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return False


def round_and_round(connection: socket.socket, request: Request) -> bool:
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /m.tflite\r\nContent-Length: 0\r\n\r\n")
    return True


def elsewhere(connection: socket.socket, request: Request) -> bool:
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/m.tflite\r\nContent-Length: 0\r\n\r\n")
    return True


def no_http(connection: socket.socket, request: Request) -> bool:
    connection.sendall(b"\0\xff220 smtp.example.com\r\n\r\n")
    return False


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        (lies, Code.FILE, "part 0"), (cut_short, Code.BUDGET, "it ends after"), (other_range, Code.FILE, "instead of 0-65535"),
        (other_length, Code.FILE, "bytes instead of"), (no_range, Code.FILE, "which range"), (packed, Code.FILE, "gzip"),
        (silent, Code.BUDGET, "next to nothing"), (half, Code.BUDGET, "next to nothing"), (endless_head, Code.BUDGET, "more than"),
        (endless_line, Code.BUDGET, ""), (endless_continue, Code.BUDGET, "more than"), (endless_body, Code.BUDGET, "more than"),
        (resets, Code.BUDGET, ""), (round_and_round, Code.GONE, "sent on more than 3 times"), (elsewhere, Code.GONE, "from http to https"),
        (no_http, Code.BUDGET, "no HTTP"),
    ],
)  # fmt: skip
def test_whatever_a_server_does_costs_its_budget_and_no_more(tmp_path: Path, what: Handler, code: str, said: str) -> None:
    with serving(at_parts(what)) as server:
        patience = BRIEF if what in (silent, half) else None
        d = Fetcher(tmp_path, FILE.task(server.url + URL, tries=2), patience=patience).run()
    assert d.failure is not None and (d.failure.code, said in d.failure.reason) == (code, True), d.failure
    assert d.file is None and d.progress.here == 0 and d.progress.failed <= 2
    assert d.progress.spent <= d.progress.allowed


def test_bytes_that_dribble_are_given_up(tmp_path: Path) -> None:
    with serving(at_parts(dribbles)) as server:
        d = Fetcher(tmp_path, FILE.task(server.url + URL, tries=1), patience=BRIEF).run()
    assert d.failure is not None and "next to nothing" in d.failure.reason


def dribbles(connection: socket.socket, request: Request) -> bool:
    start, stop = request.range or (0, 0)
    connection.sendall(partial(start, stop, FILE.size))
    connection.settimeout(0.02)
    for byte in FILE.data[start:stop]:
        connection.sendall(bytes([byte]))
        try:
            if not connection.recv(1):
                return False
        except TimeoutError:
            continue
    return True


def test_a_liar_among_the_addresses_costs_one_failure_and_the_file_comes(tmp_path: Path) -> None:
    with serving(at_parts(lies)) as liar, serving(good()) as server:
        d = Fetcher(tmp_path, FILE.task(liar.url + URL, server.url + URL)).run()
    assert d.file is not None and d.file.read_bytes() == FILE.data and d.progress.failed == 1


def test_a_liar_without_leaves_is_not_asked_again(tmp_path: Path) -> None:
    with serving(files({URL: bytes(FILE.size)})) as liar, serving(files({URL: FILE.data})) as server:
        task = FILE.task(liar.url + URL, server.url + URL, most=3 * FILE.size)
        d = Fetcher(tmp_path, task).run()
        assert d.file is not None and d.file.read_bytes() == FILE.data
    with serving(files({URL: bytes(FILE.size)})) as liar:
        discard(tmp_path)
        d = Fetcher(tmp_path, FILE.task(liar.url + URL)).run()
    assert d.failure is not None and d.failure.code == Code.FILE and d.progress.here == 0


def test_a_link_that_breaks_all_the_time_costs_no_tries_while_something_comes(tmp_path: Path) -> None:
    turn = [0]

    def broken(connection: socket.socket, request: Request) -> bool:
        turn[0] += 1
        return good()(connection, request) if turn[0] % 2 else resets(connection, request)

    with serving(broken) as server:
        d = Fetcher(tmp_path, FILE.task(server.url + URL, tries=2)).run()
    assert d.file is not None and d.progress.failed < 2


def test_a_connection_that_was_closed_while_idle_is_made_anew_at_once(tmp_path: Path) -> None:
    def once(connection: socket.socket, request: Request) -> bool:
        good()(connection, request)
        return False

    with serving(once) as server:
        d = Fetcher(tmp_path, FILE.task(server.url + URL, tries=1)).run()
    assert d.file is not None and d.progress.failed == 0 and server.connections == 7


def test_https_is_believed_by_the_authority_that_is_named_alone(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    issued = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    with serving(good(), tls=context) as server:
        url = server.url.replace("http:", "https:") + URL
        stranger = Fetcher(tmp_path / "a", FILE.task(url, tries=2), ca=other.file).run()
        unnamed = Fetcher(tmp_path / "b", FILE.task(url, tries=1)).run()
        assert not server.requests
        d = Fetcher(tmp_path / "c", FILE.task(url), ca=authority.file).run()
        assert server.connections == 4
    for refused in (stranger, unnamed):
        assert refused.failure is not None and refused.failure.code == Code.BUDGET and "CERTIFICATE_VERIFY_FAILED" in refused.failure.reason
    assert d.file is not None and d.file.read_bytes() == FILE.data


def test_tls_that_never_comes_to_an_end_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"https://127.0.0.1:{mute.getsockname()[1]}{URL}"
        d = Fetcher(tmp_path, FILE.task(url, tries=1), patience=Patience(connect=0.3)).run()
    assert d.failure is not None and "timed out" in d.failure.reason


def old_http(connection: socket.socket, request: Request) -> bool:
    start, stop = request.range or (0, 0)
    head = f"HTTP/1.0 206 Partial Content\r\nContent-Range: bytes {start}-{stop - 1}/*\r\n\r\n"
    connection.sendall(head.encode() + FILE.data[start:stop])
    return False


def in_chunks(connection: socket.socket, request: Request) -> bool:
    start, stop = request.range or (0, 0)
    head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{stop - 1}/{FILE.size}\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head.encode())
    for at in range(start, stop, 5000):
        piece = FILE.data[at : min(at + 5000, stop)]
        connection.sendall(b"%x;what=ever\r\n%s\r\n" % (len(piece), piece))
    connection.sendall(b"0\r\nX-Trailer: yes\r\n\r\n")
    return True


def too_long(connection: socket.socket, request: Request) -> bool:
    start, stop = request.range or (0, 0)
    head = f"HTTP/1.0 206 Partial Content\r\nContent-Range: bytes {start}-{stop - 1}/{FILE.size}\r\n\r\n"
    connection.sendall(head.encode() + FILE.data[start:stop] + bytes(100_000))
    return False


@pytest.mark.parametrize("how", [old_http, in_chunks, too_long])
def test_servers_that_are_odd_and_right_are_understood(tmp_path: Path, how: Handler) -> None:
    with serving(at_parts(how)) as server:
        f = Fetcher(tmp_path, FILE.task(server.url + URL))
        d = f.run()
    assert d.file is not None and d.file.read_bytes() == FILE.data and d.progress.failed == 0
    assert f.now == 0, "and never waited for"
    assert server.connections == (1 if how is in_chunks else 6)


def test_a_whole_in_chunks_of_unknown_length_is_taken_to_its_end(tmp_path: Path) -> None:
    def chunked(connection: socket.socket, request: Request) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, FILE.size, 7777):
            piece = FILE.data[at : at + 7777]
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
        return True

    with serving(at_parts(chunked)) as server:
        d = Fetcher(tmp_path, FILE.task(server.url + URL)).run()
    assert d.file is not None and len(server.requests) == 2


def test_a_server_may_send_on(tmp_path: Path) -> None:
    def on(connection: socket.socket, request: Request) -> bool:
        connection.sendall(f"HTTP/1.1 307 On\r\nLocation: {server.url}{request.path}\r\nContent-Length: 0\r\n\r\n".encode())
        return True

    with serving(good()) as server, serving(on) as first:
        d = Fetcher(tmp_path, FILE.task(first.url + URL)).run()
    assert d.file is not None and len(first.requests) == 2  # the leaves and the file, once each


def test_it_ends_at_once_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    with serving(at_parts(silent)) as server:
        f = Fetcher(tmp_path, FILE.task(server.url + URL))
        f.run(lambda: f.download.progress.spent > LEAF)  # a part was asked for, and never comes
        f.download.cancel()
        assert f.download.settled and f.download.due == float("inf")
        f.download.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_month_without_bytes_is_waited_for(tmp_path: Path) -> None:
    class Spent:
        admitted, crossed = False, 0

        def admits(self, size: int) -> bool:
            return self.admitted

        def sends(self, size: int) -> None:
            self.crossed += size

        receives = sends

    month = Spent()
    with serving(good()) as server:
        f = Fetcher(tmp_path, FILE.task(server.url + URL), month=month)
        for _ in range(5):
            f.step()
        assert "month" in f.download.progress.waits and not server.requests
        month.admitted = True
        d = f.run()
    assert d.file is not None and d.progress.failed == 0 and month.crossed > d.progress.spent > FILE.size
