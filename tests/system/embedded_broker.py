"""A broker in Python for machines without mosquitto: loopback only, in memory, MQTT 3.1.1. Its one argument is the port."""

from __future__ import annotations

import asyncio
import logging
import sys


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    from amqtt.broker import Broker

    # Its own default listens on all addresses and logs every packet.
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 100}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    await Broker(config).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(serve(int(sys.argv[1])))
