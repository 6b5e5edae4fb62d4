"""Whether what is desired may be brought to this board, before a byte of it is fetched. Pure: what the board has comes in as facts."""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.board.budget import mib
from edgeagent.settings.tree import ModelSettings
from modelwire.deploying import terms as deploy_terms
from modelwire.deploying import variants
from modelwire.deploying.reports import Code
from modelwire.deploying.terms import DeployTerms
from modelwire.deploying.variants import Variant
from modelwire.errors import WireError
from modelwire.wire.records import Desired

from .means import BoardFacts, Stop

SPARE = 16 * 1024 * 1024  # bytes of disk that stay free
NEVER = "never"
_CLASSES = {"ai-edge-litert": "litert", "tflite-runtime": "tflite"}  # of runtimes, by the first word of their keys


@dataclass(frozen=True, slots=True)
class DeployOrder:
    """A desired, read: what it brings, and how it is to be tried."""

    desired: Desired
    terms: DeployTerms
    variant: Variant | None  # None: the way back, which brings none
    stop: Stop | None = None  # what it says can't be


def read_order(desired: Desired, root: bytes, fleet: bytes) -> DeployOrder | None:
    """Return what a desired says; None for one without terms, of a release before them. root: the fleet's key for bases; fleet: its id.

    What is wrong in it is its `stop`: the right key sealed it, so its sender is to know.
    """
    try:
        terms = deploy_terms.terms_of(desired)
    except WireError as e:
        return DeployOrder(desired, DeployTerms(bytes(16)), None, Stop(Code.VARIANT, e.message))
    if terms is None:
        return None
    if not terms.variant:
        return DeployOrder(desired, terms, None)
    try:
        variant = variants.read(terms.variant, root, fleet)
    except WireError as e:
        return DeployOrder(desired, terms, None, Stop(Code.VARIANT, e.message))
    return DeployOrder(desired, terms, variant, _mixed(desired, variant))


def _mixed(desired: Desired, variant: Variant) -> Stop | None:
    """Return why a statement is not the one that belongs to a desired; None when it is."""
    ours, its = (desired.fleet, desired.model, desired.variant, desired.bytes), (variant.fleet, variant.model, variant.commit, variant.size)
    words = ("the fleet {}", "the model {}", "the commit {}", "a file of {} bytes")
    for word, ask, say in zip(words, ours, its, strict=True):
        if ask != say:
            asked, said = (v.hex()[:12] if isinstance(v, bytes) else v for v in (ask, say))
            return Stop(Code.VARIANT, f"the desired is for {word.format(asked)}, and the statement of its variant for {word.format(said)}")
    return None


def against_settings(order: DeployOrder, settings: ModelSettings) -> Stop | None:
    """Return why the settings of this board leave a variant out; None when they don't."""
    rules, variant = settings.deploy, order.variant
    if rules.accept == NEVER:
        return Stop(Code.FROZEN, 'deploy.accept = "never" leaves this board out')
    if variant is None or order.terms.back:
        return None
    if rules.max_bytes and variant.size > rules.max_bytes:
        return Stop(Code.BUDGET, f"its file has {variant.size} bytes, and deploy.max_bytes is {rules.max_bytes}")
    return None


def against_board(order: DeployOrder, settings: ModelSettings, facts: BoardFacts, *, here: bool) -> Stop | None:
    """Return why the board can't run a variant, or can't get it; None when it may try. here: its file lies on this board."""
    variant = order.variant
    if variant is None:
        return None
    issue = facts.runtime.split(" ")[0]
    if variant.runtime and issue in _CLASSES and variant.runtime not in (_CLASSES[issue], issue):
        return Stop(Code.RUNTIME, f"it needs the runtime {variant.runtime}, and this board has {_CLASSES[issue]}")
    most = settings.budget.max_ram
    if variant.ram and most and variant.ram > most:
        return Stop(Code.MEMORY, f"it needs {mib(variant.ram)} MiB of memory, and budget.max_ram is {mib(most)} MiB")
    if variant.ram and facts.memory and variant.ram > facts.memory:
        return Stop(Code.MEMORY, f"it needs {mib(variant.ram)} MiB of memory, and {mib(facts.memory)} MiB can be had")
    if here:
        return None
    need = 2 * variant.size + facts.room + SPARE  # its base, and a slot on it
    if facts.disk and need > facts.disk:
        return Stop(Code.DISK, f"it needs {mib(need)} MiB of the disk, and {mib(facts.disk)} MiB are free")
    if order.terms.urls and not settings.deploy.http:
        return Stop(Code.VETO, "its file lies at addresses alone, and deploy.http = false")
    return None


def not_here() -> Stop:
    """Return why a way back can't be gone that is not on this board."""
    return Stop(Code.PASSIVE, "the way back to it does not lie on this board any more")
