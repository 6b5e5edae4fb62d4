"""Ranges of files by HTTP or HTTPS, one after another, from a thread of its own: whatever a server does, the agent's loop goes on.

A server is trusted in nothing: what it may send is bounded before it is read, and what it has sent is proven by who asked.
"""

from __future__ import annotations

import contextlib
import http.client
import queue
import re
import threading
from collections.abc import Callable
from pathlib import Path

from edgeagent.spending.month import CONNECTING, TLS

from .addresses import REDIRECTS, Address, AddressError, read, sent_on
from .ranges import Crossed, Got, Miss, Missed, RangeAsk
from .watched_socket import Patience, WatchedSocket, crossed

HEAD = 16 * 1024  # bytes of an answer's head, and of what is around its body
_PASSING = frozenset({408, 425, 429})  # of 4xx, those that say "later"
_SENT_ON = frozenset({301, 302, 303, 307, 308})
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")


class _Miss(Exception):
    def __init__(self, kind: Miss, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


class HttpSource:
    """A Source over one connection at a time, kept open between asks."""

    def __init__(self, ca: Path | None, wake: Callable[[], None], patience: Patience | None = None) -> None:
        """ca: certificates that sign a server's; None: the system's. wake: called when an answer is there, in the thread."""
        self._ca, self._wake, self._patience = ca, wake, patience or Patience()
        self._asks: queue.SimpleQueue[RangeAsk | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Got | Missed] = queue.SimpleQueue()
        self._connection: WatchedSocket | None = None
        self._server: tuple[str, str, int] | None = None  # that it leads to
        self._moved: dict[str, Address] = {}  # where an address was sent on to, while its connection lasts
        self._whole: tuple[str, http.client.HTTPResponse, int] | None = None  # of an address: an answer that is the whole, read so far
        self._took = Crossed()  # what crossed the link since the last answer
        self._closed = False
        # A thread may hang in a look-up of a name, which nothing ends: it keeps no process from ending.
        threading.Thread(target=self._serve, name="fetch", daemon=True).start()

    @property
    def ready(self) -> bool:
        return not self._answers.empty()

    def ask(self, ask: RangeAsk) -> None:
        self._asks.put(ask)

    def answer(self) -> Got | Missed | None:
        with contextlib.suppress(queue.Empty):
            return self._answers.get_nowait()
        return None

    def close(self) -> None:
        self._closed = True
        self._asks.put(None)
        if (connection := self._connection) is not None:
            connection.cut()

    # In the thread.

    def _serve(self) -> None:
        while (ask := self._asks.get()) is not None:
            self._answers.put(self._answered(ask))
            if not self._closed:
                self._wake()
        self._hang_up()

    def _answered(self, ask: RangeAsk) -> Got | Missed:
        data, miss = bytearray(), None
        try:
            data = self._read(ask)
        except _Miss as e:
            miss = e
        except AddressError as e:
            miss = _Miss(Miss.GONE, str(e))
        except http.client.RemoteDisconnected:
            miss = _Miss(Miss.AGAIN, "it hangs up without an answer")
        except http.client.HTTPException as e:
            miss = _Miss(Miss.AGAIN, f"it answers what is no HTTP: {type(e).__name__}")
        except Exception as e:  # noqa: BLE001  # of the system, or of what a server has made of a library: none of them ends the thread
            miss = _Miss(Miss.AGAIN, f"{e}" or type(e).__name__)
        if miss is not None and miss.kind is not Miss.UNRANGED:
            self._hang_up(forget=True)
        self._count()
        took, self._took = self._took, Crossed()
        if miss is None:
            return Got(data, took)
        reason = "".join(c if c.isprintable() else "?" for c in miss.reason)[:200]
        return Missed(miss.kind, reason, took)

    def _read(self, ask: RangeAsk) -> bytearray:
        if self._whole is not None and (self._whole[0] != ask.url or self._whole[2] > ask.start or not ask.whole):
            self._hang_up()
        if self._whole is None:
            response = self._open(ask)
            if response.status == 206:
                data = self._body(response, ask.stop - ask.start)
                if not response.isclosed() and response.chunked:
                    response.read(1)  # the end of its chunks, or too much
                if response.will_close or not response.isclosed():
                    self._hang_up()
                return data
            self._whole = ask.url, response, 0
            if not ask.whole:
                raise _Miss(Miss.UNRANGED, "it gives the whole file alone")
        url, response, at = self._whole
        while at < ask.start:
            at += len(self._body(response, min(64 * 1024, ask.start - at)))
        data = self._body(response, ask.stop - ask.start)
        self._whole = url, response, ask.stop
        if ask.stop == ask.size:
            self._hang_up()
        return data

    def _open(self, ask: RangeAsk) -> http.client.HTTPResponse:
        """Return the answer of the server that has the range or the whole."""
        before = self._moved.get(ask.url)
        address = before or read(ask.url)
        for _ in range(REDIRECTS + 1):
            response = self._request(address, ask)
            if response.status not in _SENT_ON:
                break
            location = response.getheader("Location", "")
            self._hang_up()
            address = self._moved[ask.url] = sent_on(address, location)
        else:
            raise _Miss(Miss.GONE, f"it is sent on more than {REDIRECTS} times")
        try:
            _judge(response, ask)
        except _Miss as e:
            if before is None or e.kind is not Miss.GONE:
                raise
            self._hang_up(forget=True)  # where it was sent on to may have been good for a while only: the address itself knows
            return self._open(ask)
        return response

    def _request(self, address: Address, ask: RangeAsk) -> http.client.HTTPResponse:
        if self._connection is not None and self._server == address.server:
            before = self._connection.received
            try:
                return self._said(address, ask)
            except (ConnectionError, http.client.RemoteDisconnected):
                if self._connection.received != before:
                    raise
                # It was left alone for too long: servers close what is idle, and that is no failure.
        self._hang_up()
        self._connect(address)
        return self._said(address, ask)

    def _said(self, address: Address, ask: RangeAsk) -> http.client.HTTPResponse:
        assert self._connection is not None
        lines = (
            f"GET {address.target} HTTP/1.1", f"Host: {address.host_header}", f"Range: bytes={ask.start}-{ask.stop - 1}",
            "Accept-Encoding: identity", "User-Agent: edgeagent", "", "",
        )  # fmt: skip
        self._connection.request("\r\n".join(lines).encode("ascii"), HEAD)
        response = http.client.HTTPResponse(self._connection, method="GET")  # type: ignore[arg-type]
        response.begin()
        return response

    def _connect(self, address: Address) -> None:
        self._took = Crossed(self._took.sent + CONNECTING + (TLS if address.scheme == "https" else 0), self._took.received)
        self._connection, self._server = WatchedSocket(address, self._patience, self._ca), address.server
        if self._closed:
            raise OSError("it was given up")

    def _body(self, response: http.client.HTTPResponse, size: int) -> bytearray:
        assert self._connection is not None
        self._connection.allow(size + HEAD + (size // 8 if response.chunked else 0))
        data = bytearray(size)
        view = memoryview(data)
        done = 0
        while done < size:
            count = response.readinto(view[done:])
            if not count:
                raise _Miss(Miss.AGAIN, f"it ends after {done} bytes of {size}")
            done += count
        return data

    def _hang_up(self, *, forget: bool = False) -> None:
        """End the connection. forget: ask the addresses themselves next time, and not where they have sent on to."""
        self._count()
        connection, self._connection, self._server, self._whole = self._connection, None, None, None
        if forget:
            self._moved.clear()
        if connection is not None:
            connection.end()
            self._took = Crossed(self._took.sent, self._took.received + connection.received)

    def _count(self) -> None:
        if self._connection is not None:
            more = crossed(self._connection)
            self._took = Crossed(self._took.sent + more.sent, self._took.received + more.received)


def _judge(response: http.client.HTTPResponse, ask: RangeAsk) -> None:
    """Raise _Miss unless an answer has the range that was asked for, or the whole, as its bytes are."""
    status = response.status
    if status == 416:
        raise _Miss(Miss.WRONG, "it says that the file is shorter")
    if 400 <= status < 500 and status not in _PASSING:
        raise _Miss(Miss.GONE, f"it answers {status}")
    if status not in (200, 206):
        raise _Miss(Miss.AGAIN, f"it answers {status}")
    if (coding := response.getheader("Content-Encoding", "identity").strip().lower()) != "identity":
        raise _Miss(Miss.WRONG, f"it packs the file as {coding[:20]}, which nobody asked for")
    length, expected = response.length, ask.size if status == 200 else ask.stop - ask.start
    if status == 206:
        said = _RANGE.fullmatch(response.getheader("Content-Range", "").strip())
        if said is None:
            raise _Miss(Miss.WRONG, "it does not say which range it gives")
        if (int(said[1]), int(said[2]) + 1) != (ask.start, ask.stop):
            raise _Miss(Miss.WRONG, f"it gives {said[0][:60]} instead of {ask.start}-{ask.stop - 1}")
        if said[3] not in ("*", str(ask.size)):
            raise _Miss(Miss.WRONG, f"its file has {said[3]} bytes instead of {ask.size}")
    if length is not None and length != expected:
        raise _Miss(Miss.WRONG, f"it sends {length} bytes instead of {expected}")
