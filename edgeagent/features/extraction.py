"""Lets a process of its own compute features: the agent that holds the keys never loads a runtime, nor its memory.

Both sides are here: `Extraction` in the agent, `main` in the other process, which says on its standard output how far it is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from edgeagent.system.children import end_with, go_first, lean_environment
from edgeagent.system.clock import Clock
from edgeagent.system.deferred import defer
from edgecommon.memory import give_back, peak
from modelwire import errors
from modelwire.errors import ModelWireError, NotTrainable

defer("subprocess")  # loaded with the first features that are wanted
import subprocess  # noqa: E402

_LINE = 64 * 1024  # bytes of one line; what is longer is none of ours
SAMPLE_SECONDS = 600  # of processor time for a sample, or for the first look at the file: a front with a loop may never end
_WAIT = 0.02  # seconds between two looks, while the link is served
_TOLD = (
    errors.NotTrainable, errors.RuntimeUnusable, errors.StateDamaged, errors.StateBusy, errors.ConfigError, errors.MissingFile,
    errors.DiskUnwritable,
)


class Extraction:
    """One run of the other process."""

    def __init__(
        self, state: Path, model: str, *, base: bytes, file: Path, until: int, share: float = 1.0, clock: Clock | None = None,
        seconds: int = SAMPLE_SECONDS,
    ) -> None:  # fmt: skip
        """state: the agent's folder; base: the commit of the model's base, whose file is `file`; until: the newest sample that counts,
        0 for none at all.

        share: of one core that it takes: it rests between samples. seconds: of processor time for each, after which it is ended.
        """
        self.model, self._clock = model, clock or Clock()
        words = [str(state), model, base.hex(), str(file), str(until), str(share), str(seconds), str(os.getpid())]
        command = [sys.executable, "-m", "edgeagent.features.extraction", *words]
        try:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0, env=lean_environment())
        except OSError as e:
            raise NotTrainable(model=model, reason=f"mode features: no process could be started: {e.strerror}") from None
        give_back(code=True)  # before the other one takes its memory

    def result(self) -> Generator[None, None, dict[str, Any]]:
        """Return what the other process found: runtime, its key; logits; peak, the most bytes that it held.

        Yields again and again while it works.
        Raises what it raised. Closing the generator ends the process; what it has computed stays.
        """
        child, told = self._child, b""
        assert child.stdout is not None
        try:
            os.set_blocking(child.stdout.fileno(), False)
            while True:
                try:
                    some = os.read(child.stdout.fileno(), _LINE)
                except BlockingIOError:
                    self._clock.sleep(_WAIT)
                    yield
                    continue
                told = (told + some)[-2 * _LINE :]
                if not some:
                    break
                yield
            child.wait()
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
        return self._last(told, child.returncode)

    def _last(self, told: bytes, code: int) -> dict[str, Any]:
        if code == -signal.SIGXCPU:
            reason = "mode features: one sample took more processor time than a front may take; it may never end"
            raise NotTrainable(model=self.model, reason=reason)
        lines = told.decode("utf-8", "replace").split("\n")
        try:
            said = json.loads(lines[-2])
            if "error" in said:
                raise getattr(errors, str(said["error"]))(**{str(k): str(v) for k, v in said["facts"].items()})
            return {"runtime": str(said["runtime"]), "logits": bool(said["logits"]), "peak": int(said["peak"])}
        except (ValueError, LookupError, TypeError, AttributeError):
            raise NotTrainable(model=self.model, reason=f"mode features: the process that computes them ended with {code}") from None


def _allow(seconds: int) -> None:
    """Let this process compute for so long from here on; then the kernel ends it, whatever it is in the middle of."""
    import resource

    used, (_, hard) = resource.getrusage(resource.RUSAGE_SELF), resource.getrlimit(resource.RLIMIT_CPU)
    until = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard == resource.RLIM_INFINITY else min(until, hard), hard))


def main(words: Sequence[str], clock: Clock | None = None) -> int:
    """Compute the features that are missing, and say what was found. The exit code is 0, also of an error that was told."""
    from edgeagent.samples.spool import Spool
    from edgecommon import runtime

    from .agreement import looked_at

    state, model, base, file = Path(words[0]), words[1], bytes.fromhex(words[2]), Path(words[3])
    until, share = int(words[4]), float(words[5])
    seconds = int(words[6]) if len(words) > 6 else SAMPLE_SECONDS
    if len(words) > 7:
        end_with(int(words[7]))
        go_first()

    def say(**what: Any) -> None:
        print(json.dumps(what), flush=True)

    clock = clock or Clock()
    worked = clock.monotonic()

    def computed(done: int) -> None:
        nonlocal worked
        say(done=done)
        clock.sleep((clock.monotonic() - worked) * (1 / share - 1))
        worked = clock.monotonic()
        _allow(seconds)

    _allow(seconds)
    try:
        with Spool(state) as spool:
            found = looked_at(runtime.load(), spool, model, base=base, file=file, until=until, say=computed)
            say(**found, peak=peak())
    except ModelWireError as e:
        if not isinstance(e, _TOLD):
            raise
        say(error=type(e).__name__, facts={key: str(value) for key, value in e.facts.items()})
    except BrokenPipeError:  # the agent was killed: what is computed stays
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
