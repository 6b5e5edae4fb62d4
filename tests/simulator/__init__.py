"""A fleet and its centre in one process: the real state machines of both sides over a broker in memory, on a clock that only events move.

Deterministic by its seed: the same seed gives the same events, byte for byte. README.md says what is real here and what is not.
"""
