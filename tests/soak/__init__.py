"""A fleet of real processes that is killed, paused and slowed down, and whose books must balance at the end: `make soak`.

`ordeal` does it, `havoc` strikes, `slow_link` stands between a board and its broker, `books` compares what both sides say they have.
The tests of kills and the evidence use the same.
"""

from __future__ import annotations
