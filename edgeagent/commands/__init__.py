"""The commands of `edgeagent`, one module each: NAME, HELP, EXAMPLES, `add` for its arguments and `run` for its answer."""

from __future__ import annotations

from . import config, doctor, estimate, init, log, measure, outbox, publish, run, samples, status, train, version

COMMANDS = (init, run, train, publish, status, samples, log, outbox, estimate, measure, doctor, config, version)
