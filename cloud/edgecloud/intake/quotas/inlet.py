"""What waits between the broker and the ingester: a queue for each device, served in turns by bytes and by what the work has cost.

A broker has one queue for all that it sends here. Who fills that faster than it is emptied would push everybody else out, so it is
emptied faster: what one sender sends beyond its rate is left out, acknowledged and not looked at, and what of it is true its board sends
again, as it has no receipt. Names cost nothing, so those of strangers share a few queues; a device has its own once its key is admitted.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence

from ..decision import Reply
from ..transport import Delivery
from .rates import BOARD, STRANGERS, RateBucket, SendingRate

QUANTUM = 32 * 1024  # bytes that a queue gives in its turn
MESSAGE = 512  # bytes that a message counts beside its own
SECOND = 16 * 1024 * 1024  # bytes that a second of work counts as
DEBT = -2 * SECOND  # no queue is further behind: what took long is paid for within two seconds
CROWD = 32  # messages that wait, of one who sends much: a sixth of what a broker has under way; a board has eight parts on their way
AT_EASE = 0.5, 0.9  # of the messages and bytes that one may send at once; who has more of both left sends little
STRANGERS_QUEUES = 4
STRANGER = "?"  # before the number of a strangers' queue; no device's name begins like this
REMEMBERED = 10_000  # queues that are empty, and not forgotten yet
KNOWN_MOST = 500_000  # names; of a larger fleet those that were admitted last have queues of their own


class _Turns:
    """One queue. credit: bytes that it may still give in its turn; below nothing: what it owes."""

    __slots__ = ("bucket", "credit", "items", "left_at", "size")

    def __init__(self, rate: SendingRate, now: float) -> None:
        self.items: deque[Delivery] = deque()
        self.size = 0
        self.credit = 0.0
        self.bucket = RateBucket(rate, now)
        self.left_at = now


class Inlet:
    """Messages and replies that wait for the ingester's thread; others put them in. Bounded in count and bytes."""

    def __init__(
        self, count: int, size: int, *, leave_out: Callable[[Delivery], None], monotonic: Callable[[], float] = time.monotonic,
        board: SendingRate = BOARD, strangers: SendingRate = STRANGERS,
    ) -> None:  # fmt: skip
        """count, size: messages that wait, and bytes of those and of what is being committed. leave_out: acknowledges what is not taken."""
        self._count, self._size, self._leave_out, self._now = count, size, leave_out, monotonic
        self._board, self._strangers = board, strangers
        self._changed = threading.Condition()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._active: OrderedDict[str, _Turns] = OrderedDict()  # in the order of their turns
        self._resting: OrderedDict[str, _Turns] = OrderedDict()  # empty ones
        self._replies: deque[Reply] = deque()
        self._waiting = 0
        self._bytes = 0  # of messages that were taken from the transport and not committed yet
        self._left_out: Counter[str] = Counter()

    @property
    def empty(self) -> bool:
        return not self._waiting and not self._replies

    @property
    def full(self) -> bool:
        """Whether it takes nothing more."""
        return self._waiting >= self._count

    @property
    def bytes(self) -> int:
        """Bytes of what waits and of what is being committed."""
        return self._bytes

    def admit(self, devices: Iterable[str]) -> None:
        """Give devices queues of their own from now on."""
        with self._changed:
            for device in devices:
                self._known[device] = None
            while len(self._known) > KNOWN_MOST:
                self._known.popitem(last=False)

    def screen(self, messages: Sequence[tuple[str, int]]) -> list[bool]:
        """Return of messages that are about to come, by topic and bytes, which have a turn; the others are counted as left out.

        Nothing is taken from a rate yet: `put` does that when they come.
        """
        left: dict[str, tuple[float, float, int]] = {}
        out = []
        with self._changed:
            for topic, size in messages:
                name = self._queue_of(topic)
                if name not in left:
                    left[name] = (*self._turns(name).bucket.left(self._now()), 0)
                count, room, coming = left[name]
                has = count >= 1 and room > 0 and not self._crowds(name, count, room, coming)
                if has:
                    left[name] = count - 1, room - size, coming + 1
                else:
                    self._left_out[name] += 1
                out.append(has)
        return out

    def put(self, delivery: Delivery, stopping: Callable[[], bool]) -> None:
        """Keep a message, or leave it out when its sender sends more than its turn. Waits while all of it is full."""
        size = len(delivery.data)
        with self._changed:
            name = self._queue_of(delivery.topic)
            bucket = self._turns(name).bucket
            if self._crowds(name, *bucket.left(self._now()), 0) or not bucket.take(size, self._now()):
                self._left_out[name] += 1
                over = True
            else:
                # Looked up anew after each wait: a queue that rests may be forgotten meanwhile.
                while not (over := self._is_over(name, size)) and not self._fits(size) and not stopping():
                    self._changed.wait(0.2)
                if over:
                    self._left_out[name] += 1
                else:
                    self._append(name, delivery)
        if over:
            self._leave_out(delivery)

    def answer(self, reply: Reply, stopping: Callable[[], bool], beat: Callable[[], None]) -> None:
        """Keep what is to be said; waits while too much of that waits. beat: called meanwhile."""
        with self._changed:
            while len(self._replies) >= self._count and not stopping():
                beat()
                self._changed.wait(0.2)
            self._replies.append(reply)
            self._changed.notify_all()

    def take(self, most: int, first: float, more: float, stopping: Callable[[], bool]) -> tuple[list[Delivery], list[Reply]]:
        """Return the next messages and what is to be said, at most so many. first: seconds to wait for one; more: for those behind it."""
        batch: list[Delivery] = []
        said: list[Reply] = []
        end, begun = self._now() + first, False
        with self._changed:
            while len(batch) < most and not stopping():
                while self._replies and len(said) < most:
                    said.append(self._replies.popleft())
                if self._waiting:
                    batch.append(self._next())
                elif (left := end - self._now()) <= 0 or len(said) >= most:
                    break
                else:
                    self._changed.wait(left)
                if not begun and (batch or said):
                    end, begun = self._now() + more, True
            self._changed.notify_all()
        return batch, said

    def back(self, deliveries: Sequence[Delivery]) -> None:
        """Put messages that were taken and not looked at where they were: the batch took too long."""
        with self._changed:
            for delivery in reversed(deliveries):
                name = self._queue_of(delivery.topic)
                turns = self._wake(name)
                turns.items.appendleft(delivery)
                turns.size += len(delivery.data)
                turns.credit += len(delivery.data) + MESSAGE
                self._waiting += 1

    def done(self, deliveries: Iterable[Delivery], seconds: Iterable[float]) -> None:
        """Make room for others: these are committed. seconds: what the work on each took, which its sender's queue pays for."""
        with self._changed:
            for delivery, took in zip(deliveries, seconds, strict=True):
                self._bytes -= len(delivery.data)
                name = self._queue_of(delivery.topic)
                turns = self._active.get(name) or self._resting.get(name)
                if turns is not None:
                    turns.credit = max(DEBT, turns.credit - took * SECOND)
            self._changed.notify_all()

    def left_out(self) -> dict[str, int]:
        """Return how many messages were left out since the last call, by sender; strangers are one."""
        with self._changed:
            found, self._left_out = self._left_out, Counter()
        out: Counter[str] = Counter()
        for name, count in found.items():
            out["strangers" if name.startswith(STRANGER) else name] += count
        return dict(out)

    def _queue_of(self, topic: str) -> str:
        words = topic.split("/", 3)
        device = words[2] if len(words) > 3 else ""
        return device if device in self._known else f"{STRANGER}{zlib.crc32(device.encode()) % STRANGERS_QUEUES}"

    def _turns(self, name: str) -> _Turns:
        turns = self._active.get(name) or self._resting.get(name)
        if turns is None:
            turns = self._resting[name] = _Turns(self._strangers if name.startswith(STRANGER) else self._board, self._now())
            while len(self._resting) > REMEMBERED:
                self._resting.popitem(last=False)
        return turns

    def _crowds(self, name: str, messages: float, size: float, coming: int) -> bool:
        """Return whether a sender that has sent much lately has as many messages waiting as it may then. What is left of its rate is given.

        A broker passes on so many messages and no more before the first of them is acknowledged: who has all of those in its hands makes
        all others wait at the broker, where nobody sees them.
        """
        rate = self._strangers if name.startswith(STRANGER) else self._board
        little = messages >= AT_EASE[0] * rate.messages_at_once and size >= AT_EASE[1] * rate.bytes_at_once
        return not little and len(self._turns(name).items) + coming >= CROWD

    def _is_over(self, name: str, size: int) -> bool:
        """Return whether one sender has half of all the room while others wait: it is its messages that are left out, never theirs."""
        turns = self._turns(name)
        others = self._waiting > len(turns.items)
        return others and bool(turns.items) and (len(turns.items) >= self._count / 2 or turns.size + size > self._size / 2)

    def _fits(self, size: int) -> bool:
        # What is larger than all the room comes alone: it is read only to be refused.
        return self._waiting < self._count and (not self._bytes or self._bytes + size <= self._size)

    def _wake(self, name: str) -> _Turns:
        turns = self._active.get(name)
        if turns is None:
            turns = self._turns(name)
            del self._resting[name]
            self._active[name] = turns
            # What is owed is forgotten with time; what was not used up is not kept.
            turns.credit = min(0.0, turns.credit + (self._now() - turns.left_at) * SECOND)
        return turns

    def _append(self, name: str, delivery: Delivery) -> None:
        turns = self._wake(name)
        turns.items.append(delivery)
        turns.size += len(delivery.data)
        self._bytes += len(delivery.data)
        self._waiting += 1
        self._changed.notify_all()

    def _next(self) -> Delivery:
        """Return the message whose turn it is: deficit round robin, Shreedhar and Varghese 1995."""
        while True:
            name, turns = next(iter(self._active.items()))
            if turns.credit > 0 or len(self._active) == 1:
                break
            turns.credit += QUANTUM
            self._active.move_to_end(name)
        delivery = turns.items.popleft()
        turns.size -= len(delivery.data)
        turns.credit = max(DEBT, turns.credit - len(delivery.data) - MESSAGE)
        self._waiting -= 1
        if not turns.items:
            del self._active[name]
            self._resting[name] = turns
            turns.left_at = self._now()
        return delivery
