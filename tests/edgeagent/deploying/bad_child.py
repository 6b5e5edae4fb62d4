"""A process that tries a variant and goes wrong, as its third word says: the commit of a variant, in whose place the way stands."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from edgeagent.deploying.probing import confine


def main() -> int:
    way, rules = bytes.fromhex(sys.argv[3]).rstrip(b".").decode(), json.loads(sys.argv[4])
    confine(int(rules["seconds"]))
    if way == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif way == "eats":
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 20)))
            time.sleep(0.001)
    elif way == "spins":
        while True:
            pass
    elif way == "hangs":
        time.sleep(3600)
    elif way == "raises":
        raise RuntimeError("out of order")
    elif way == "babbles":
        print("\x00" * 100_000 if len(sys.argv) > 9 else '{"learned": 1}')
    return 0


if __name__ == "__main__":
    sys.exit(main())
