"""The tables of deployments, and what of them may change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Of one model of a rollout of a million there is one row for each question: `tally` counts from `assignment_stands` alone.
TABLES = """
CREATE TABLE variant (
  model TEXT NOT NULL,
  number INTEGER NOT NULL CHECK (number > 0),
  "commit" BLOB NOT NULL REFERENCES base ("commit"),
  name TEXT NOT NULL,
  statement BLOB NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (model, number)
);
CREATE INDEX variant_commit ON variant ("commit", number);
CREATE TABLE rollout (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  rollout BLOB NOT NULL UNIQUE CHECK (length(rollout) = 16),
  name TEXT NOT NULL,
  model TEXT NOT NULL,
  variant BLOB NOT NULL REFERENCES base ("commit"),
  plan BLOB NOT NULL, -- empty: a device that it names was erased
  state TEXT NOT NULL CHECK (state IN ('draft', 'approved', 'running', 'soaking', 'paused', 'halted', 'rolling back', 'rolled back',
    'done', 'aborted')),
  phase INTEGER NOT NULL DEFAULT 0 CHECK (phase >= 0),
  reason TEXT NOT NULL DEFAULT '',
  created_at INTEGER NOT NULL,
  phase_at INTEGER NOT NULL,
  changed_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX rollout_name ON rollout (name) WHERE name <> '';
CREATE INDEX rollout_variant ON rollout (variant);
CREATE TABLE decision (
  rollout_id INTEGER NOT NULL REFERENCES rollout (id),
  number INTEGER NOT NULL CHECK (number > 0),
  statement BLOB NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (rollout_id, number)
);
CREATE TABLE desired (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  lineage INTEGER NOT NULL REFERENCES lineage (id),
  number INTEGER NOT NULL CHECK (number > 0),
  rollout_id INTEGER NOT NULL REFERENCES rollout (id),
  variant BLOB NOT NULL CHECK (length(variant) = 32),
  record BLOB NOT NULL,
  expiry INTEGER NOT NULL,
  at INTEGER NOT NULL,
  ended INTEGER NOT NULL DEFAULT 0,
  UNIQUE (lineage, number)
);
CREATE INDEX desired_open ON desired (id, expiry) WHERE ended = 0;
CREATE INDEX desired_rollout ON desired (rollout_id);
CREATE TABLE assignment (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  rollout_id INTEGER NOT NULL REFERENCES rollout (id),
  lineage INTEGER NOT NULL REFERENCES lineage (id),
  phase INTEGER NOT NULL CHECK (phase >= 0),
  state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'offered', 'fetching', 'staged', 'probing', 'soaking', 'confirmed',
    'reverted', 'refused', 'timed out')),
  number INTEGER NOT NULL DEFAULT 0,
  back INTEGER NOT NULL DEFAULT 0 CHECK (back IN (0, 1)),
  code TEXT NOT NULL DEFAULT '',
  reason TEXT NOT NULL DEFAULT '',
  before REAL,
  after REAL,
  accuracy INTEGER NOT NULL DEFAULT 1 CHECK (accuracy IN (0, 1)),
  rows INTEGER NOT NULL DEFAULT 0,
  better INTEGER NOT NULL DEFAULT 0,
  worse INTEGER NOT NULL DEFAULT 0,
  micros INTEGER NOT NULL DEFAULT 0,
  micros_before INTEGER NOT NULL DEFAULT 0,
  learned TEXT NOT NULL DEFAULT '',
  bytes INTEGER NOT NULL DEFAULT 0,
  offered_at INTEGER NOT NULL DEFAULT 0,
  changed_at INTEGER NOT NULL,
  UNIQUE (rollout_id, lineage)
);
CREATE INDEX assignment_lineage ON assignment (lineage);
CREATE INDEX assignment_stands ON assignment (rollout_id, phase, state, code, back, rows, better, worse);
CREATE INDEX assignment_state ON assignment (rollout_id, state, phase, id);
CREATE TABLE report (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  lineage INTEGER NOT NULL,
  number INTEGER NOT NULL,
  state TEXT NOT NULL,
  record BLOB NOT NULL,
  at INTEGER NOT NULL,
  UNIQUE (lineage, number, state),
  FOREIGN KEY (lineage, number) REFERENCES desired (lineage, number) ON DELETE CASCADE
);
CREATE TABLE frozen (
  device TEXT NOT NULL,
  model TEXT NOT NULL, -- empty: all of its models
  reason TEXT NOT NULL,
  "by" TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (device, model)
)
"""
WRITE_ONCE = ("variant", "decision")
_UNDER_ERASURE = "EXISTS (SELECT 1 FROM erasure e WHERE e.device <> '')"


def keep(tables: Any, trigger: Callable[[str, str, str, str], str], unless_erased: str) -> None:
    """Make the triggers of what is sealed and yet moves on. trigger: text of one, by table, name, event and condition.

    unless_erased: whether a row with a lineage is of a device that is not under erasure.
    """
    tables.execute(trigger("rollout", "no_delete", "DELETE", "1"))
    tables.execute(trigger("rollout", "write_once", "UPDATE OF id, rollout, name, model, variant, created_at", "1"))
    tables.execute(trigger("rollout", "plan", "UPDATE OF plan", f"NOT (NEW.plan = x'' AND {_UNDER_ERASURE})"))
    tables.execute(trigger("desired", "no_delete", "DELETE", unless_erased))
    tables.execute(trigger("desired", "write_once", "UPDATE OF id, lineage, number, rollout_id, variant, record, expiry, at", "1"))
    tables.execute(trigger("desired", "once", "UPDATE OF ended", "OLD.ended <> 0"))
