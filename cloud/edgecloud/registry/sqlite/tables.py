"""What the registry's tables are, as text: one for each migration that made some, never changed once released."""

from __future__ import annotations

FIRST = """
CREATE TABLE registry (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  fleet TEXT NOT NULL,
  id BLOB NOT NULL CHECK (length(id) = 16),
  root BLOB NOT NULL CHECK (length(root) = 32),
  files_from INTEGER NOT NULL CHECK (files_from >= 0),
  created_at INTEGER NOT NULL
);
CREATE TABLE trust (
  number INTEGER PRIMARY KEY CHECK (number > 0),
  record BLOB NOT NULL
);
CREATE TABLE act (
  number INTEGER PRIMARY KEY CHECK (number > 0),
  device TEXT NOT NULL,
  verb TEXT NOT NULL CHECK (verb IN ('admit', 'revoke')),
  key BLOB NOT NULL CHECK (length(key) = 32),
  record BLOB NOT NULL
);
CREATE INDEX act_device ON act (device);
CREATE TABLE blob (
  sha256 BLOB PRIMARY KEY CHECK (length(sha256) = 32),
  size INTEGER NOT NULL,
  bytes BLOB NOT NULL
);
CREATE TABLE base (
  "commit" BLOB PRIMARY KEY CHECK (length("commit") = 32),
  name TEXT NOT NULL UNIQUE,
  manifest BLOB NOT NULL,
  file BLOB NOT NULL CHECK (length(file) = 32),
  size INTEGER NOT NULL,
  added_at INTEGER NOT NULL
);
CREATE TABLE device (
  name TEXT PRIMARY KEY,
  added_at INTEGER NOT NULL
);
CREATE TABLE device_key (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  device TEXT NOT NULL REFERENCES device (name),
  key BLOB NOT NULL CHECK (length(key) = 32),
  added_at INTEGER NOT NULL,
  revoked_at INTEGER
);
CREATE UNIQUE INDEX device_key_speaks ON device_key (key) WHERE revoked_at IS NULL;
CREATE INDEX device_key_device ON device_key (device);
CREATE TABLE lineage (
  id INTEGER PRIMARY KEY,
  device TEXT NOT NULL REFERENCES device (name),
  model TEXT NOT NULL,
  last_version INTEGER NOT NULL DEFAULT 0,
  online INTEGER NOT NULL DEFAULT 0,
  boot INTEGER NOT NULL DEFAULT 0,
  seen_at INTEGER,
  runtime TEXT NOT NULL DEFAULT '',
  agent TEXT NOT NULL DEFAULT '',
  UNIQUE (device, model)
);
CREATE TABLE epoch (
  lineage INTEGER NOT NULL REFERENCES lineage (id),
  epoch INTEGER NOT NULL CHECK (epoch > 0),
  state BLOB NOT NULL CHECK (length(state) = 16),
  base BLOB NOT NULL REFERENCES base ("commit"),
  floor INTEGER NOT NULL,
  granted_at INTEGER NOT NULL,
  PRIMARY KEY (lineage, epoch),
  UNIQUE (lineage, state)
);
CREATE TABLE version (
  id INTEGER PRIMARY KEY,
  lineage INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  version INTEGER NOT NULL CHECK (version > 0),
  kind TEXT NOT NULL CHECK (kind IN ('snapshot', 'delta', 'exact', 'recipe')),
  "commit" BLOB NOT NULL UNIQUE CHECK (length("commit") = 32),
  parent BLOB NOT NULL CHECK (length(parent) = 32),
  parent_id INTEGER REFERENCES version (id) CHECK (parent_id < id),
  base BLOB NOT NULL REFERENCES base ("commit"),
  root BLOB NOT NULL CHECK (length(root) = 32),
  fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 16),
  blob BLOB NOT NULL CHECK (length(blob) = 32),
  size INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  extension BLOB NOT NULL,
  status TEXT NOT NULL DEFAULT 'stored' CHECK (status IN ('stored', 'verified', 'refused')),
  reason TEXT NOT NULL DEFAULT '',
  UNIQUE (lineage, version),
  FOREIGN KEY (lineage, epoch) REFERENCES epoch (lineage, epoch),
  CHECK (CASE WHEN parent_id IS NOT NULL THEN parent <> base ELSE parent = base OR kind = 'snapshot' END)
);
CREATE INDEX version_stored ON version (id) WHERE status = 'stored';
CREATE INDEX version_parent ON version (parent_id);
CREATE INDEX version_blob ON version (blob);
CREATE TABLE head (
  lineage INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  version_id INTEGER REFERENCES version (id),
  "commit" BLOB NOT NULL CHECK (length("commit") = 32),
  version INTEGER NOT NULL,
  PRIMARY KEY (lineage, epoch),
  FOREIGN KEY (lineage, epoch) REFERENCES epoch (lineage, epoch)
);
CREATE TABLE skipped (
  version_id INTEGER NOT NULL REFERENCES version (id),
  first INTEGER NOT NULL,
  last INTEGER NOT NULL CHECK (last >= first),
  PRIMARY KEY (version_id, first)
);
CREATE TABLE parked (
  "commit" BLOB PRIMARY KEY CHECK (length("commit") = 32),
  device TEXT NOT NULL,
  lineage INTEGER NOT NULL REFERENCES lineage (id),
  epoch INTEGER NOT NULL,
  version INTEGER NOT NULL,
  parent BLOB NOT NULL,
  digest BLOB NOT NULL,
  bytes BLOB NOT NULL,
  received_at INTEGER NOT NULL
);
CREATE INDEX parked_digest ON parked (digest);
CREATE INDEX parked_parent ON parked (parent);
CREATE INDEX parked_device ON parked (device);
CREATE INDEX parked_lineage ON parked (lineage, version);
CREATE TABLE quarantine (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  device TEXT NOT NULL,
  model TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('hello', 'state', 'update')),
  reason TEXT NOT NULL CHECK (reason IN ('unknown-key', 'unknown-base')),
  mark BLOB NOT NULL,
  base BLOB NOT NULL,
  first_at INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  times INTEGER NOT NULL DEFAULT 1 CHECK (times > 0),
  looked INTEGER NOT NULL,
  bytes BLOB NOT NULL, -- last: SQLite walks through it to reach what stands behind
  UNIQUE (device, model, kind, mark)
);
CREATE TABLE rejection (
  device TEXT NOT NULL,
  key BLOB NOT NULL CHECK (length(key) = 32),
  at INTEGER NOT NULL,
  PRIMARY KEY (device, key)
);
CREATE TABLE refusal (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  digest BLOB NOT NULL UNIQUE,
  device TEXT NOT NULL,
  model TEXT NOT NULL,
  error TEXT NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL,
  size INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  version INTEGER NOT NULL,
  "commit" BLOB NOT NULL,
  repeats INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX refusal_commit ON refusal ("commit");
CREATE INDEX refusal_device ON refusal (device, model);
CREATE TABLE command (
  lineage INTEGER NOT NULL REFERENCES lineage (id),
  number INTEGER NOT NULL CHECK (number > 0),
  verb TEXT NOT NULL,
  record BLOB NOT NULL,
  expiry INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  answered_at INTEGER,
  ok INTEGER,
  text TEXT NOT NULL DEFAULT '',
  body BLOB NOT NULL DEFAULT x'',
  PRIMARY KEY (lineage, number)
);
CREATE INDEX command_open ON command (lineage) WHERE answered_at IS NULL;
CREATE TABLE transfer (
  id BLOB PRIMARY KEY CHECK (length(id) = 32),
  device TEXT NOT NULL,
  model TEXT NOT NULL,
  record BLOB NOT NULL,
  size INTEGER NOT NULL,
  touched_at INTEGER NOT NULL,
  held INTEGER NOT NULL DEFAULT 0,
  tried_at INTEGER NOT NULL DEFAULT 0,
  tried_on BLOB NOT NULL DEFAULT x''
);
CREATE INDEX transfer_device ON transfer (device);
CREATE TABLE transfer_part (
  transfer BLOB NOT NULL REFERENCES transfer (id) ON DELETE CASCADE,
  part INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  UNIQUE (transfer, part)
);
CREATE TABLE annotation (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL CHECK (kind IN ('device', 'model', 'version', 'base')),
  object TEXT NOT NULL,
  text TEXT NOT NULL,
  at INTEGER NOT NULL
);
CREATE INDEX annotation_object ON annotation (kind, object);
CREATE TABLE log (
  number INTEGER PRIMARY KEY CHECK (number > 0),
  subject BLOB NOT NULL,
  entry BLOB NOT NULL,
  link BLOB NOT NULL CHECK (length(link) = 32)
);
CREATE INDEX log_subject ON log (subject);
CREATE TABLE log_end (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  number INTEGER NOT NULL CHECK (number > 0),
  link BLOB NOT NULL CHECK (length(link) = 32),
  signature BLOB NOT NULL CHECK (length(signature) = 64)
);
"""

# Which models would like their last version back: said by their hellos, and taken back by them; the operator may decline.
WISHES = """
CREATE TABLE wish (
  lineage INTEGER PRIMARY KEY REFERENCES lineage (id),
  epoch INTEGER NOT NULL CHECK (epoch > 0),
  at INTEGER NOT NULL,
  declined INTEGER NOT NULL DEFAULT 0 CHECK (declined IN (0, 1))
)
"""

# What boards say that this registry has lost.
LOSSES = """
CREATE TABLE lost (
  lineage INTEGER NOT NULL REFERENCES lineage (id),
  epoch INTEGER NOT NULL CHECK (epoch > 0),
  version INTEGER NOT NULL CHECK (version > 0),
  held INTEGER NOT NULL CHECK (held IN (0, 1)),
  at INTEGER NOT NULL,
  PRIMARY KEY (lineage, version, epoch)
);
CREATE TABLE witness (
  device TEXT NOT NULL REFERENCES device (name),
  number INTEGER NOT NULL CHECK (number > 0),
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  ours BLOB NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (device, number, digest)
);
CREATE INDEX refusal_number ON refusal (device, model, version);
"""

# What an operator has to decide about: one row a kind and model, so nobody floods it.
ALARMS = """
CREATE TABLE alarm (
  device TEXT NOT NULL,
  model TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('fork', 'session')),
  text TEXT NOT NULL,
  first_at INTEGER NOT NULL,
  last_at INTEGER NOT NULL,
  times INTEGER NOT NULL CHECK (times > 0),
  seen_at INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (device, model, kind)
)
"""

# The same with a kind more: what a board says of itself.
BOARD_ALARMS = """
CREATE TABLE alarm_now (
  device TEXT NOT NULL,
  model TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('board', 'fork', 'session')),
  text TEXT NOT NULL,
  first_at INTEGER NOT NULL,
  last_at INTEGER NOT NULL,
  times INTEGER NOT NULL CHECK (times > 0),
  seen_at INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (device, model, kind)
);
INSERT INTO alarm_now (device, model, kind, text, first_at, last_at, times, seen_at)
  SELECT device, model, kind, text, first_at, last_at, times, seen_at FROM alarm;
DROP TABLE alarm;
ALTER TABLE alarm_now RENAME TO alarm
"""

# What is derived and may go at any time: states of versions, so that others are near. And the promise that they are kept for.
KEEPING = """
CREATE TABLE state (
  version_id INTEGER PRIMARY KEY REFERENCES version (id),
  lineage INTEGER NOT NULL REFERENCES lineage (id),
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  size INTEGER NOT NULL CHECK (size > 0),
  kept_at INTEGER NOT NULL,
  bytes BLOB -- NULL: in a file
);
CREATE INDEX state_lineage ON state (lineage, version_id, size);
CREATE TABLE compacted (
  lineage INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  policy INTEGER NOT NULL,
  version_id INTEGER NOT NULL,
  PRIMARY KEY (lineage, epoch),
  FOREIGN KEY (lineage, epoch) REFERENCES epoch (lineage, epoch)
);
CREATE TABLE rate (
  name TEXT PRIMARY KEY,
  seconds REAL NOT NULL CHECK (seconds > 0),
  measured_at INTEGER NOT NULL
);
CREATE TABLE policy (
  number INTEGER PRIMARY KEY CHECK (number > 0),
  recover_within TEXT NOT NULL,
  keep TEXT NOT NULL,
  record BLOB NOT NULL, -- as the operator sealed it; empty where it lets nothing go
  at INTEGER NOT NULL
)
"""

# What stands in the place of containers that were dropped, what is still to be dropped, and which devices are erased.
THINNING = """
CREATE TABLE squash (
  version_id INTEGER PRIMARY KEY REFERENCES version (id),
  from_id INTEGER REFERENCES version (id) CHECK (from_id < version_id),
  kind TEXT NOT NULL CHECK (kind IN ('snapshot', 'delta', 'exact')),
  blob BLOB NOT NULL CHECK (length(blob) = 32),
  size INTEGER NOT NULL
);
CREATE INDEX squash_from ON squash (from_id);
CREATE INDEX squash_blob ON squash (blob);
CREATE TABLE thinned (
  version_id INTEGER PRIMARY KEY REFERENCES version (id),
  gone INTEGER NOT NULL CHECK (gone IN (0, 1)),
  at INTEGER NOT NULL,
  proof BLOB NOT NULL
);
CREATE TABLE discard (
  sha256 BLOB PRIMARY KEY CHECK (length(sha256) = 32)
);
CREATE TABLE erasure (
  number INTEGER PRIMARY KEY CHECK (number > 0),
  device TEXT,
  record BLOB NOT NULL
)
"""

# What merges made, by the digest of the file: a base of that file is one. Of the versions that it was made of those of an erased device go.
MERGES = """
CREATE TABLE merge (
  file BLOB PRIMARY KEY CHECK (length(file) = 32),
  base BLOB NOT NULL REFERENCES base ("commit"),
  rule TEXT NOT NULL CHECK (rule IN ('mean', 'weighted')),
  versions INTEGER NOT NULL CHECK (versions > 1),
  at INTEGER NOT NULL
);
CREATE TABLE merged_from (
  file BLOB NOT NULL REFERENCES merge (file),
  version_id INTEGER NOT NULL REFERENCES version (id),
  weight INTEGER NOT NULL CHECK (weight > 0),
  PRIMARY KEY (file, version_id)
);
CREATE INDEX merged_from_version ON merged_from (version_id)
"""

# How much each device may take of the centre, and what it has taken: one row a device, of the day and the hour that it is.
QUOTAS = """
CREATE TABLE quota (
  device TEXT PRIMARY KEY, -- empty: all that have no row
  bytes_a_day INTEGER CHECK (bytes_a_day >= 0),
  versions_an_hour INTEGER CHECK (versions_an_hour >= 0),
  cpu_an_hour INTEGER CHECK (cpu_an_hour >= 0),
  open_transfers INTEGER CHECK (open_transfers >= 0),
  disk_bytes INTEGER CHECK (disk_bytes >= 0),
  at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE used (
  device TEXT PRIMARY KEY,
  day INTEGER NOT NULL, -- since 1970
  bytes INTEGER NOT NULL,
  hour INTEGER NOT NULL, -- likewise
  versions INTEGER NOT NULL,
  cpu INTEGER NOT NULL -- microseconds
) WITHOUT ROWID;
ALTER TABLE refusal ADD COLUMN first_at INTEGER NOT NULL DEFAULT 0
"""
