"""What is to be fetched and what that may cost, and how it may end in vain."""

from __future__ import annotations

from dataclasses import dataclass

from modelwire import limits, merkle
from modelwire.deploying.reports import Code
from modelwire.deploying.terms import DeployTerms
from modelwire.deploying.variants import Variant

LEAF = merkle.LEAF_BYTES
_SPARE = limits.MIB  # bytes beyond the file that are allowed at least: half of a small file is less than what its failed attempts take


@dataclass(frozen=True, slots=True)
class FetchTask:
    """A file, whose bytes the fleet's root key vouches for, and the budget of one `desired` for it."""

    number: int  # of the desired: tries and bytes are counted for it, over restarts; a newer one has its own
    file: bytes  # SHA-256
    size: int  # bytes
    tree: bytes  # over its leaves of 64 KiB
    commit: bytes = b""  # of its manifest, for addresses that hold {commit}
    urls: tuple[str, ...] = ()  # where it lies by HTTP or HTTPS; none: it comes in parts over the link, and never otherwise
    tries: int = 5  # failed attempts at most; one that has brought something is none
    most: int = 0  # bytes over the link at most; 0: as `allowed` says

    @property
    def allowed(self) -> int:
        """Bytes that may cross the link for it in all, headers included. What is known only when it has come, a server's long headers or
        what it sent unasked, may take the last attempt up to 150 KiB beyond."""
        return self.most or self.size + max(self.size // 2, _SPARE)


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """Why a file will not come: final for its desired."""

    code: str  # of modelwire.deploying.reports.Code: GONE, BUDGET, FILE
    reason: str  # a sentence


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """How far a file is, for who looks on."""

    here: int  # bytes, of whole parts
    size: int  # bytes
    spent: int  # bytes over the link, of `allowed`
    allowed: int
    failed: int  # attempts, of `tries`
    tries: int
    waits: str  # for what, in words; empty: it is under way


def task_of(number: int, variant: Variant, terms: DeployTerms) -> FetchTask:
    """Return what a desired with this number asks to be fetched."""
    return FetchTask(
        number, variant.file, variant.size, variant.tree, variant.commit, terms.urls, terms.tries, terms.most,
    )  # fmt: skip


_SAID = {
    Code.GONE: "no address that was given has the file",
    Code.BUDGET: "the tries or bytes that it may take are spent",
    Code.FILE: "what the addresses give is another file",
}


def failure_before(code: str) -> FetchFailure:
    """Return the failure that was written down before a restart, when its sentence was not."""
    return FetchFailure(code, _SAID.get(code, "it was given up before this start"))
