"""What the bytes of every message are made of: CBOR, signatures, topics, signed records, and parts of what is too large for one message.

Knows nothing of what it carries: an update is bytes here.
"""

from __future__ import annotations

__all__ = [
    "cbor", "claims", "commands", "devices", "ed25519", "fields", "keys", "log", "more", "numbers", "parts", "records", "renewal", "routes",
    "signing", "topics", "trust", "welcome",
]  # fmt: skip
