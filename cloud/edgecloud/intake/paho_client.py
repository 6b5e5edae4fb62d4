"""Paho's client as the centre runs it: a thread that outlives what goes wrong on it, and few calls of the system for many packets.

Paho reads a packet in three calls, writes each with one of its own, and wakes its thread for each by another; every one of them lets go
of the interpreter, which the thread that takes messages in wants as well. Here one call reads what has come, one writes what waits, and
one byte wakes the thread, however many packets are handed to it before it is awake. What goes over the wire is the same. What comes is
bounded before it takes memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, cast

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MessageType, MQTTErrorCode

from edgecommon.mqtt_packets import INBOUND, BeyondBoundsError, InboundBound

from .quotas.screening import PacketScreen

log = logging.getLogger("edgecloud.link")

AGAIN_SECONDS = 1.0  # after a fault of the MQTT library
READ_BYTES = 64 * 1024  # that one call reads, at most
WRITE_BYTES = 64 * 1024  # from which on no further packet is put behind those that one call writes


class _Bell:
    """The end of a socket pair that wakes paho's thread; it is rung once, until that thread is about to look what there is to write."""

    def __init__(self, wire: Any) -> None:
        self._wire, self.rung = wire, False

    def send(self, data: bytes) -> int:
        # Whoever rings has put its packet down before. While this holds, the thread has yet to look: it will find the packet.
        if self.rung:
            return len(data)
        self.rung = True
        return int(self._wire.send(data))

    def close(self) -> None:
        self._wire.close()


class PahoClient(mqtt.Client):
    """Paho's client with a thread that outlives what goes wrong on it: paho's own ends in silence."""

    on_fault: Callable[[], bool] = staticmethod(lambda: False)  # whether to go on
    fault: Exception | None = None  # of the last attempt, of which paho says nothing
    _unread, _place = b"", 0  # what was read ahead, and how much of it is taken
    _may_read = True  # whether this look at the socket has not read from it yet
    _bell: _Bell | None = None
    screen: PacketScreen | None = None  # takes messages out before they are read
    five = False  # MQTT 5 is spoken; paho 2.0.0 can't be asked for it
    _bound: InboundBound | None = None  # of this connection, once it has read

    @property
    def bound(self) -> InboundBound:
        """What bounds the packets that come on this connection."""
        if self._bound is None:
            self._bound = InboundBound(INBOUND, five=self.five)
        return self._bound

    def reconnect(self) -> MQTTErrorCode:
        self.fault, self._bound = None, None
        try:
            return super().reconnect()
        except (OSError, ValueError) as error:
            self.fault = error
            raise

    def loop_start(self) -> MQTTErrorCode:
        started = super().loop_start()
        if started == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._bell = _Bell(self._sockpairW)
            self._sockpairW = cast(Any, self._bell)
        return started

    def want_write(self) -> bool:
        if self._bell is not None:
            self._bell.rung = False  # first: what is put down behind this line rings anew
        return super().want_write()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        self._may_read = True
        while True:
            said = super().loop_read(max_packets)
            if said or self._sock is None or self._place == len(self._unread):
                return said

    def _sock_recv(self, bufsize: int) -> bytes:
        return self.bound.read(bufsize, self._take)

    def _take(self, bufsize: int) -> bytes:
        if self._place == len(self._unread):
            # One look reads once: the socket says itself when there is more, and what is to be written gets its turn.
            if not self._may_read:
                raise BlockingIOError
            self._may_read = False
            self._unread, self._place = self._read(), 0
        taken = self._unread[self._place : self._place + bufsize]
        self._place += len(taken)
        return taken

    def _read(self) -> bytes:
        data = self._receive()
        if self.screen is None or not data:
            return data
        kept, said = self.screen.pass_on(data)
        if said:
            self._packet_queue(MessageType.PUBACK, said, 0, 0)
        if not kept:
            raise BlockingIOError
        return kept

    def _receive(self) -> bytes:
        try:
            return super()._sock_recv(READ_BYTES)
        except BlockingIOError:
            raise
        except OSError as error:
            self.fault = error
            raise

    def _packet_write(self) -> MQTTErrorCode:
        self._join()
        return super()._packet_write()

    def _join(self) -> None:
        """Make one of the packets that wait first, where nothing is to be done once they are written: answers, and what is answered."""
        waiting, joined, size = self._out_packet, [], 0
        while waiting and size < WRITE_BYTES:
            packet = waiting[0]
            kind = packet["command"] & 0xF0
            if packet["pos"] or not (kind == MessageType.PUBACK or (kind == MessageType.PUBLISH and packet["qos"])):
                break
            joined.append(waiting.popleft())
            size += len(packet["packet"])
        if joined:
            first = joined[0].copy()
            if len(joined) > 1:
                first["packet"], first["to_process"] = b"".join(one["packet"] for one in joined), size
            waiting.appendleft(first)

    def _sock_close(self) -> None:
        self._unread, self._place, self._bound = b"", 0, None  # of a connection that is no more
        if self.screen is not None:
            self.screen.reset()
        super()._sock_close()

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        while True:
            try:
                return super().loop_forever(timeout, retry_first_connection)
            except BeyondBoundsError as error:
                self.fault = error  # who is asked in `on_fault` says it
                time.sleep(AGAIN_SECONDS)
            except Exception:
                log.exception("a fault on the link; connecting anew")
                time.sleep(AGAIN_SECONDS)
            if not self.on_fault():
                return MQTTErrorCode.MQTT_ERR_UNKNOWN
            try:
                self.reconnect()  # what was half read goes
            except (OSError, ValueError) as error:  # ValueError: a name that no resolver takes
                log.warning("it can't be reached: %s", error)
