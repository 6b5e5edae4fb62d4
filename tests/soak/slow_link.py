"""A TCP proxy that is a slow link: little rate, delay, jitter, and loss as TCP shows it, which is stalls and broken connections.

    python -m tests.soak.slow_link LISTEN TARGET --rate 16000 --delay 0.1 --jitter 0.1 --loss 0.01 --cut 0.001 --seed 1

Both ports are on loopback. Bytes come whole and in order, or the connection ends: a link loses no part of a stream in silence.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

CHUNK = 1448  # bytes that travel together, as a segment of TCP does
ON_THE_WAY = 64  # chunks of a direction; then the sender waits
STALL = 0.2, 3.0  # seconds that a lost segment holds up all behind it: from the first to a late timeout of TCP


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad a link is. loss, cut: chances of each chunk to be held up, and to be the last one."""

    rate: float = 16_000.0  # bytes a second, each way
    delay: float = 0.1  # seconds, each way
    jitter: float = 0.1  # seconds more, at the most
    loss: float = 0.01
    cut: float = 0.001

    def words(self) -> list[str]:
        """Return it as arguments of the command."""
        return [f"--{name}={getattr(self, name)}" for name in self.__slots__]


class SlowLink:
    """One proxy; every connection that it takes is shaped by itself."""

    def __init__(self, target: int, weather: Weather, seed: int) -> None:
        self.target, self.weather, self._rng = target, weather, random.Random(seed)
        self.taken = self.cuts = self.stalls = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end."""
        self.taken += 1
        try:
            there, onward = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        ways = [asyncio.ensure_future(self._carry(a, b)) for a, b in ((reader, onward), (there, writer))]
        try:
            # Whichever ends first ends both: a half-open connection would be a kindness that no real link shows.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, onward):
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(ON_THE_WAY)
        arriving = asyncio.ensure_future(self._arrive(queue, writer))
        loop, weather, rng = asyncio.get_running_loop(), self.weather, random.Random(self._rng.random())
        sent = due = loop.time()
        try:
            while chunk := await reader.read(CHUNK):
                if rng.random() < weather.cut:
                    self.cuts += 1
                    return
                sent = max(sent, loop.time()) + len(chunk) / weather.rate
                travels = weather.delay + rng.uniform(0.0, weather.jitter)
                if rng.random() < weather.loss:
                    self.stalls += 1
                    travels += rng.uniform(*STALL)
                due = max(due, sent + travels)  # never before what was sent before it
                await queue.put((due, chunk))
            await queue.put((due, b""))
            await arriving
        except OSError:
            return
        finally:
            arriving.cancel()

    async def _arrive(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                due, chunk = await queue.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not chunk:
                    writer.write_eof()
                    return
                writer.write(chunk)
                await writer.drain()


@asynccontextmanager
async def slow_link(listen: int, target: int, weather: Weather, seed: int = 0) -> AsyncIterator[SlowLink]:
    """Run a proxy for the time of an `async with` block."""
    made = SlowLink(target, weather, seed)
    server = await asyncio.start_server(made.take, "127.0.0.1", listen)
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


async def _serve(listen: int, target: int, weather: Weather, seed: int) -> None:
    async with slow_link(listen, target, weather, seed) as made:
        while True:
            await asyncio.sleep(10)
            print(f"{made.taken} connections, {made.stalls} stalls, {made.cuts} cuts", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.slow_link", description="A TCP proxy that is a slow link.")
    parser.add_argument("listen", type=int, help="port to listen at")
    parser.add_argument("target", type=int, help="port of the broker")
    usual = Weather()
    for name in Weather.__slots__:
        parser.add_argument(f"--{name}", type=float, default=getattr(usual, name), help=f"default {getattr(usual, name)}")
    parser.add_argument("--seed", type=int, default=0, help="of all that is left to chance (default 0)")
    args = parser.parse_args()
    weather = Weather(**{name: getattr(args, name) for name in Weather.__slots__})
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(args.listen, args.target, weather, args.seed))


if __name__ == "__main__":
    main()
