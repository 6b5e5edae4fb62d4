"""The slow link: whole and in order, or ended; and never faster than it says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.broker import free_port
from tests.soak.slow_link import SlowLink, Weather, slow_link

FINE = Weather(rate=1e9, delay=0.0, jitter=0.0, loss=0.0, cut=0.0)
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, SlowLink], Awaitable[bytes]]


def through(weather: Weather, talk: Talk, seed: int = 0) -> bytes:
    """Return what a talk through a link to an echo comes to."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def run() -> bytes:
        target, listen = free_port(), free_port()
        async with await asyncio.start_server(echo, "127.0.0.1", target), slow_link(listen, target, weather, seed) as link:
            reader, writer = await asyncio.open_connection("127.0.0.1", listen)
            try:
                return await talk(reader, writer, link)
            finally:
                writer.transport.abort()

    return asyncio.run(run())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=20_000), min_size=1, max_size=6), st.integers(0, 1 << 30))
def test_bytes_come_whole_and_in_order_however_they_jitter(pieces: list[bytes], seed: int) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: SlowLink) -> bytes:
        writer.writelines(pieces)
        return await reader.readexactly(sum(map(len, pieces)))

    assert through(Weather(rate=1e8, delay=0.0, jitter=0.003, loss=0.0, cut=0.0), talk, seed) == b"".join(pieces)


def test_a_link_is_no_faster_than_its_rate_and_its_delay() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: SlowLink) -> bytes:
        began = time.monotonic()
        writer.write(bytes(10_000))
        await reader.readexactly(10_000)
        assert time.monotonic() - began > 0.29, "two delays, and the time that the bytes take"
        return b""

    through(Weather(rate=50_000, delay=0.05, jitter=0.0, loss=0.0, cut=0.0), talk)


def test_a_cut_ends_the_connection_on_both_sides_and_no_byte_is_left_out_before_it() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: SlowLink) -> bytes:
        sent = b"".join(n.to_bytes(4, "big") for n in range(50_000))
        writer.write(sent)
        got = b""
        try:
            while data := await reader.read(1 << 16):
                got += data
        except ConnectionError:
            pass
        assert link.cuts and len(got) < len(sent) and sent.startswith(got)
        return got

    through(Weather(rate=1e9, delay=0.0, jitter=0.001, loss=0.0, cut=0.05), talk, 3)


def test_what_is_lost_holds_up_all_behind_it() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: SlowLink) -> bytes:
        began = time.monotonic()
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        assert link.stalls == 2 and time.monotonic() - began > 0.39
        return b""

    through(Weather(rate=1e9, delay=0.0, jitter=0.0, loss=1.0, cut=0.0), talk)


def test_a_broker_that_is_not_there_ends_the_connection() -> None:
    async def run() -> None:
        async with slow_link(listen := free_port(), free_port(), FINE):
            reader, writer = await asyncio.open_connection("127.0.0.1", listen)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.transport.abort()

    asyncio.run(run())
