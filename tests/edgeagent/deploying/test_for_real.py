"""A variant comes over real HTTP from a plain file server, and is tried by a real process with the board's runtime."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeagent.state.folder import open_folder
from edgecommon import runtime
from modelwire.deploying.reports import figures_in
from modelwire.tflite.file import read_weights, write_weights
from modelwire.update.manifest import manifest_of
from modelwire.wire import parts
from modelwire.wire.records import Wanted
from tests.edgeagent.boards import TINY, Rig, centre, fill, make_with
from tests.edgeagent.centre import Centre, FakeClock

from .deployed import bring, other_base, seen, states

PATIENCE = 240.0  # seconds, on a busy machine
ENDS = {"confirmed", "reverted", "refused", "timed out"}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served_files(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def until_over(r: Rig, c: Centre, number: int) -> None:
    """Run the device until a number has come to its end; its hours pass in moments, those of other processes don't."""
    plain, end = c.poll, time.monotonic() + PATIENCE

    def poll(timeout: float) -> Any:
        time.sleep(0.005)
        if set(states(c, number)) & ENDS or time.monotonic() > end:
            r.agent.stop("over")
        return plain(timeout)

    c.poll = poll  # type: ignore[method-assign]
    r.serve(1e9)
    c.poll = plain  # type: ignore[method-assign]


@pytest.mark.slow("starts processes that load a runtime")
def test_a_variant_comes_over_http_and_is_confirmed_and_one_that_is_worse_is_not(tmp_path: Path, clock: FakeClock) -> None:
    c, web = centre(clock), tmp_path / "web"
    web.mkdir()
    good = other_base(scale=0.05)
    spoilt = write_weights(TINY, {n: (-50 * w - 3).astype(np.float32) for n, w in read_weights(TINY).items()})
    for file in (good, spoilt):
        m = manifest_of(file)
        c.bases[m.commit] = (m, m.schema.flat(read_weights(file)))
        (web / f"{m.file_sha256.hex()}.tflite").write_bytes(file)
    loaded = make_with(tmp_path / "d", {"train.min_samples": "9999", "train.held_out": "0.4"})
    with served_files(web) as address, open_folder(loaded, alone=True) as device:
        r = Rig(device, c)
        x = np.random.default_rng(1).normal(size=(100, 4)).astype(np.float32)
        opened = runtime.load().open(TINY, model="tiny", signature="")
        device.spool.extend("tiny", x, opened.evaluate(x).argmax(1))  # what is served is always right
        opened.close()
        url = (f"{address}/{{file}}.tflite",)
        c.after(1, lambda: c.push(bring(good, 1, urls=url), "desired"))
        until_over(r, c, 1)
        assert states(c, 1) == ["offered", "fetching", "staged", "probing", "soaking", "confirmed"]
        figures = figures_in(c.reports[-1].more)
        assert figures is not None and figures.rows > 8 and figures.micros > 0 and figures.learned == "anew"
        assert c.reports[-1].before == 1.0 and r.lineage.base_commit == manifest_of(good).commit
        was = seen(r)
        c.push(bring(spoilt, 2, urls=url, worse=100), "desired")
        until_over(r, c, 2)
        last = figures_in(c.reports[-1].more)
        assert states(c, 2)[-2:] == ["probing", "reverted"] and seen(r) == was and last is not None and last.code == "worse"
        c.push(bring(other_base(9), 3, urls=(f"{address}/{{file}}.tflite",)), "desired")
        until_over(r, c, 3)
        last = figures_in(c.reports[-1].more)
        assert states(c, 3) == ["offered", "fetching", "refused"] and last is not None and last.code == "gone"
        assert seen(r) == was


@pytest.mark.slow("starts a process that loads a runtime")
def test_a_variant_without_an_address_comes_in_parts_over_the_link(tmp_path: Path, clock: FakeClock) -> None:
    c, file = centre(clock), other_base(scale=0.05)
    c.most = 4096
    m = manifest_of(file)
    c.bases[m.commit] = (m, m.schema.flat(read_weights(file)))
    outgoing = parts.describe(file, fleet="home", device="pi-7", model="tiny", at=0, part=c.most, what="base")
    assert outgoing.count > 2
    loaded, answered, sent = make_with(tmp_path / "d", {"train.min_samples": "9999", "link.resend": "5s"}), 0, 0
    plain = c.poll

    def poll(timeout: float) -> Any:
        """Answer each word that wants parts as the ingester does: the cut, and one part that is missing; the first two are lost."""
        nonlocal answered, sent
        asked = [one for one in c.said("part") if isinstance(one, Wanted)]
        for one in asked[answered:]:
            answered += 1
            assert one.id == m.file_sha256
            if answered <= 2:
                continue
            c.push(outgoing.transfer, "part")
            if missing := parts.missing(one.have, outgoing.count) if len(one.have) == -(-outgoing.count // 8) else [0]:
                c.deliver("e1/home/pi-7/tiny/dn/part", outgoing.cut(missing[0]))
                sent += 1
        return plain(timeout)

    c.poll = poll  # type: ignore[method-assign]
    with open_folder(loaded, alone=True) as device:
        r = Rig(device, c)
        fill(device, 40)
        c.after(1, lambda: c.push(bring(file, 1, urls=()), "desired"))
        until_over(r, c, 1)
        assert states(c, 1) == ["offered", "fetching", "staged", "probing", "soaking", "confirmed"]
        assert r.lineage.base_commit == m.commit and sent <= outgoing.count + 2
