"""What a `desired` says beyond its fields, in its `more`: the variant's own statement, where its file lies, how it is to be tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelwire import limits
from modelwire.errors import Malformed
from modelwire.wire import cbor
from modelwire.wire.records import Desired

from .sealed import Reader

KEY = "terms"  # in `more` of a desired; a release that knows it not refuses the desired as it always did
URLS_MAX, URL_MAX = 4, 1000
STATEMENT_MAX = 8 * 1024
SOAK_MAX = 90 * 86_400


class Learned:
    """What becomes of what the device has learned on its old base."""

    AUTO = "auto"  # kept on the same lattice, else carried over by a snapped difference, else begun anew; the guard judges
    ANEW = "anew"  # the variant as it is
    WORDS = (AUTO, ANEW)


@dataclass(frozen=True, slots=True)
class DeployTerms:
    """How a variant is to be brought, tried and taken over."""

    rollout: bytes  # id, 16 bytes
    variant: bytes = b""  # the root key's statement (variants.py); empty only for the way back to what a board still has
    urls: tuple[str, ...] = ()  # where the file lies by HTTP or HTTPS; none: it comes in parts
    soak: int = 0  # seconds that it is served before it is confirmed
    tries: int = 5  # failed attempts to fetch it, at most
    most: int = 0  # bytes that may be fetched for it in all; 0: one and a half times its size, 1 MiB beyond it at least
    learned: str = Learned.AUTO
    consent: bool = False  # whether the host must say yes before it is served
    not_before: int = 0  # newest seconds of the centre before which it is not served; it is fetched before
    back: bool = False  # the way back to a base that is still in the passive slot: nothing may be fetched for it
    slower: int = 300  # hundredths: so many times the served model's time for an inference it may take; 0: not judged
    worse: int = 0  # ten-thousandths of accuracy that it may lose on this board before the board itself reverts; 0: not judged here

    def as_map(self) -> dict[str, cbor.Value]:
        """Return what stands in `more` of the desired."""
        values: dict[str, cbor.Value] = {
            "rollout": self.rollout, "variant": self.variant, "urls": list(self.urls), "soak": self.soak, "tries": self.tries,
            "most": self.most, "learned": self.learned, "consent": self.consent, "not_before": self.not_before, "back": self.back,
            "slower": self.slower, "worse": self.worse,
        }  # fmt: skip
        return {KEY: values}


def terms_of(desired: Desired) -> DeployTerms | None:
    """Return the terms of a desired; None when it has none (of a release before them). Raises Malformed."""
    return read(desired.more)


def read(more: Mapping[str, cbor.Value]) -> DeployTerms | None:
    """Return the terms in `more`, or None. Raises Malformed."""
    if KEY not in more:
        return None
    values = more[KEY]
    if not isinstance(values, dict):
        raise Malformed(what=KEY, reason="they are no map")
    take = Reader(values, KEY)
    terms = DeployTerms(
        take.exactly("rollout", 16), take.blob("variant", STATEMENT_MAX),
        tuple(str(u) for u in take.each("urls", URLS_MAX, is_address, "addresses that begin with http:// or https://")),
        take.whole("soak", 0, SOAK_MAX), take.whole("tries", 1, 1000), take.whole("most", 0, 4 * limits.DEFAULT.model_file),
        take.text("learned", 8), take.yes("consent"), take.whole("not_before"), take.yes("back"), take.whole("slower", 0, 1 << 20),
        take.whole("worse", 0, 10_000),
    )  # fmt: skip
    take.end()
    if terms.learned not in Learned.WORDS:
        raise Malformed(what=KEY, reason=f"learned is none of {', '.join(Learned.WORDS)}")
    if not terms.variant and not terms.back:
        raise Malformed(what=KEY, reason="they bring no variant, and are not the way back")
    return terms


def is_address(value: cbor.Value) -> bool:
    """Return whether a device takes this as where a file lies."""
    plain = isinstance(value, str) and len(value) <= URL_MAX and value.isascii() and value.isprintable() and " " not in value
    return plain and isinstance(value, str) and value.startswith(("http://", "https://"))
