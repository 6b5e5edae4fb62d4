"""What a plain link never uses stays out of memory, and is there the moment something asks for it."""

from __future__ import annotations

import subprocess
import sys


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=500).stdout.split("\n")[0]


def test_a_link_without_tls_loads_neither_tls_nor_proxies() -> None:
    code = "import edgeagent.link.mqtt, sys; print(sorted({'_ssl', 'http.client', 'email.message', 'asyncio'} & set(sys.modules)))"
    assert _run(code) == "[]"


def test_a_deferred_module_is_the_real_one_once_it_is_used() -> None:
    code = """
from edgeagent.system.deferred import defer
defer("ssl", "urllib.request")
import ssl, urllib.request, sys
first = ssl
assert "_ssl" not in sys.modules
assert first.create_default_context().verify_mode == first.CERT_REQUIRED
import ssl
assert sys.modules["ssl"] is ssl and ssl.SSLContext is first.SSLContext and ssl.__file__
assert urllib.request.getproxies_environment() is not None
import http.client
print("ok")
"""
    assert _run(code) == "ok"


def test_a_module_that_is_loaded_already_stays_as_it_is() -> None:
    code = "import ssl; from edgeagent.system.deferred import defer; defer('ssl'); import sys; print(sys.modules['ssl'] is ssl)"
    assert _run(code) == "True"


def test_a_service_keeps_no_other_command_in_memory() -> None:
    code = """
import sys
from edgeagent import cli
cli.parser(words=["run"])
print(sorted(m.rpartition(".")[2] for m in sys.modules if m.startswith("edgeagent.commands.")))
"""
    assert _run(code) == "['answer', 'run']"
