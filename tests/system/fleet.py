"""A whole fleet on this machine, each part a process of its own: broker, ingester, devices. The demo and the kill tests use it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import edgeagent
from tests.worlds import MODELS

END_SECONDS = 200.0  # a safety limit: a process ends within one


class Process:
    """One program that can be started, killed as by a power cut, and started again."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name, self.command, self.log = name, command, log
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0  # bytes of the log before it was started
        self.kills = self.starts = 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's id. It was started."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs or before it was started."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._began = log.tell()
            self.starts += 1
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=one_thread(os.environ)
            )

    def kill(self) -> bool:
        """End it with SIGKILL; return whether it was running."""
        if not self.running:
            return False
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.kills += 1
        return True

    def pause(self) -> None:
        """Stop it where it is, as a machine does that swaps or is suspended: its connections stay open, and nothing is read."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on, if it runs."""
        if self.running:
            os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        assert self._process is not None, f"{self.name} was never started"
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"{self.name} did not end within {END_SECONDS:g} s; its log is {self.log}") from None

    def said(self, what: str) -> int:
        """Return how often it has logged this since it was started."""
        return self.log.read_bytes()[self._began :].count(what.encode())

    def ever_said(self, what: str) -> int:
        """Return how often it has logged this, over all its starts."""
        return self.log.read_bytes().count(what.encode()) if self.log.exists() else 0

    def tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Fleet:
    """Registry, ingester and devices under one folder, all talking to the broker at `url`."""

    def __init__(self, folder: Path, url: str, *, inside: bool = False) -> None:
        """inside: commands that end by themselves run in this process, which spares the start of one: it counts where there are many."""
        self.folder, self.url = folder, url
        self._run = _inside if inside else _run
        self.db = folder / "centre" / "fleet.db"
        self.devices: dict[str, Process] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.db.parent.mkdir(exist_ok=True)  # a test may have mounted a disk there
        self.cloud("init", "--fleet", "demo")
        command = [sys.executable, "-m", "edgecloud", "ingest", "--db", str(self.db), "--broker", url, "--resend", "2"]
        self.ingester = Process("ingester", command, folder / "ingester.log")

    def add_base(self, model: str, file: Path | None = None, *, exact: bool = False, rehearse: bool = False) -> None:
        """Let the registry know a base model; the file is tests/models/MODEL.tflite unless another is given.

        rehearse: run it first, as `bases add` does by itself: a process of its own, spared where a test is about something else.
        """
        how = [*(["--exact"] if exact else []), *([] if rehearse else ["--no-rehearse"])]
        self.cloud("bases", "add", str(file or MODELS / f"{model}.tflite"), "--name", model, *how)

    def add_device(
        self, name: str, models: dict[str, Path], settings: dict[str, str], *run: str, exact: bool = False, url: str = "",
        program: str = "edgeagent",
    ) -> Process:  # fmt: skip
        """Make a device, register its key, and return its agent, not started.

        run: arguments of `edgeagent run`; url: of the broker, where it is not the fleet's; program: the module that is run.
        """
        home = self.home(name)
        arguments = ["init", "--device", name, "--fleet", "demo", "--broker", url or self.url, "--dir", str(home)]
        arguments += ["--fleet-key", str(self.db.parent / "fleet.pub")]
        arguments += ["--exact"] if exact else []
        for model, file in models.items():
            arguments += ["--model", f"{model}={file}"]
        for key, value in settings.items():
            arguments += ["--set", f"{key}={value}"]
        made = self._run("edgeagent", *arguments)
        self.cloud("devices", "add", name, made["public_key"])
        command = [sys.executable, "-m", program, "run", "--dir", str(home), *run]
        self.devices[name] = Process(name, command, self.folder / f"{name}.log")
        return self.devices[name]

    def home(self, device: str) -> Path:
        return self.folder / "devices" / device

    def spool(self, device: str) -> edgeagent.Spool:
        """Return the device's sample spool, as an application on it would open it."""
        return edgeagent.Spool(self.home(device))

    def agent(self, device: str, *arguments: str) -> Any:
        """Run an `edgeagent` command on a device, and return its JSON document."""
        return self._run("edgeagent", *arguments, "--dir", str(self.home(device)))

    def look(self, device: str, *arguments: str) -> Any:
        """Run an `edgeagent` command that only reads, in this process: who asks until something has come would start dozens."""
        return _inside("edgeagent", *arguments, "--dir", str(self.home(device)))

    def cloud(self, *arguments: str) -> Any:
        """Run an `edgecloud` command on the registry, and return its JSON document."""
        return self._run("edgecloud", *arguments, "--db", str(self.db))

    def look_up(self, *arguments: str) -> Any:
        """Run an `edgecloud` command that only reads, in this process."""
        return _inside("edgecloud", *arguments, "--db", str(self.db))

    def close(self) -> None:
        """End everything that still runs."""
        for process in (*self.devices.values(), self.ingester):
            process.kill()


def agent(*arguments: str) -> Any:
    """Run `edgeagent` to its end, and return its JSON document. Raises RuntimeError with what it said."""
    return _run("edgeagent", *arguments)


def cloud(*arguments: str) -> Any:
    """Run `edgecloud` to its end, and return its JSON document. Raises RuntimeError with what it said."""
    return _run("edgecloud", *arguments)


def one_thread(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """Return the environment of a process that leaves the other cores to the rest of the fleet."""
    return {**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _inside(module: str, *arguments: str) -> Any:
    main = import_module(f"{module}.cli").main
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*arguments, "--json"])
    if code:
        raise RuntimeError(f"{module} {' '.join(arguments)} ended with {code}: {err.getvalue().strip()[-2000:]}")
    return json.loads(out.getvalue())


def _run(module: str, *arguments: str) -> Any:
    command = [sys.executable, "-m", module, *arguments, "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=one_thread(os.environ))
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)
