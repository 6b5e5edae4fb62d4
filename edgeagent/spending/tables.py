"""The tables of what was spent, in the agent's database; each keeps a few rows and drops the oldest."""

from __future__ import annotations

TABLES = """
CREATE TABLE month (                            -- bytes over the link; the newest row is the month that is counted now
    number INTEGER PRIMARY KEY,
    month INTEGER NOT NULL,                     -- 12 * year + month - 1, by the board's clock when it began
    sent INTEGER NOT NULL DEFAULT 0,            -- with what is set apart to be sent: a kill counts too much, never too little
    received INTEGER NOT NULL DEFAULT 0,
    ran REAL NOT NULL DEFAULT 0                 -- seconds of running in it, by no clock that can be set
);
CREATE TABLE written (                          -- bytes that the agent's process wrote to its disk
    number INTEGER PRIMARY KEY,
    day INTEGER NOT NULL,                       -- since 1970, by the board's clock
    source TEXT NOT NULL,                       -- kernel: write_bytes of /proc/self/io; own: files and rows, estimated
    bytes INTEGER NOT NULL DEFAULT 0,
    ran REAL NOT NULL DEFAULT 0                 -- seconds of running that they are of
);
"""
