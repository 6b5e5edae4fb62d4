"""Every error the project raises: who, what, and what to do next.

One hierarchy. `code` is the exit code of the command line, stable and append-only; docs/errors.md lists all of them.
A class is named by who can act on it: the operator, the model's author, the network, the sender, the registry.
"""

from __future__ import annotations


class ModelWireError(Exception):
    """Base of all errors. Facts are keyword arguments, kept as attributes in `facts` and filled into `text` and `hint`."""

    code = 1
    text = "{reason}"
    hint = ""

    def __init__(self, **facts: object) -> None:
        self.facts = facts
        super().__init__(self.message)

    @property
    def message(self) -> str:
        return self.text.format_map(_Facts(self.facts))

    @property
    def next_step(self) -> str:
        """What to do: what the place says that raised it, which knows most, or else what is usual."""
        return str(self.facts.get("fix") or self.hint.format_map(_Facts(self.facts)))

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows in the place of a traceback: who, what, and what to do next."""
        said = f"{type(self).__name__}: {self.message}" + (f" (try: {self.next_step})" if self.next_step else "")
        return ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in said)]


class _Facts(dict[str, object]):
    def __missing__(self, key: str) -> str:
        return f"<{key}>"


# The operator can act: settings, files, permissions.


class ConfigError(ModelWireError):
    """A setting, an argument or a file that the operator gave is wrong."""
    code = 10
    hint = "edgeagent config check"


class UnknownKey(ConfigError):
    code = 11
    text = "{where}: there is no setting {key!r}{suggestion}"


class MissingFile(ConfigError):
    code = 12
    text = "{path}: {what} is not there"
    hint = "check the path"


class StateBusy(ConfigError):
    code = 13
    text = "{path} is in use by another process"
    hint = "stop the other process first"


class StateDamaged(ConfigError):
    """The device's own state is not what its database says: a disk that lost or changed bytes."""
    code = 14
    text = "{path}: {reason}"
    hint = "keep the folder aside and run edgeagent init with the same key: the centre grants a new epoch and keeps the old history"


class BadArgument(ConfigError):
    """An argument, or what it points to, can't be used."""
    code = 15
    text = "{reason}"
    hint = "{fix}"


class WrongKeyKind(ConfigError):
    """A key was given where one of another kind belongs."""
    code = 16
    text = "{where}: {got}, and {needed} belongs here"
    hint = "each kind of key is written with its kind: docs/protocol.md, \"Keys\""


class OldWire(ConfigError):
    """A registry or a state folder of a wire 1 that was never final."""
    code = 17
    text = "{path} was made before wire 1 was final, and this release can't read it"
    hint = "{fix}"


class CertificateRefused(ConfigError):
    """A certificate, or a request for one, is not what may be used here. Nothing was changed."""
    code = 18
    text = "{certificate} {reason}"
    hint = "{fix}"


class RetiredKey(ConfigError):
    """A key that spoke for the fleet and does so no more: nobody would believe what it signs."""
    code = 19
    text = "{what}, {fingerprint}, speaks for the fleet no more: trust record {number} names another one"
    hint = "put the new key file in its place: edgecloud trust show tells which it is"


class WouldBeLost(ConfigError):
    """A command would throw away what is nowhere else, and was not told to."""
    code = 86
    text = "{what}"
    hint = "{fix}"


# The model's author can act.


class ModelError(ModelWireError):
    """A model file or a set of weights is not what the project can work with."""
    code = 20
    text = "{model}: {reason}"


class TrainingDiverged(ModelError):
    code = 21
    text = "{model}: training gave {what} after {steps} steps; the weights from before the round are kept"
    hint = "lower the learning rate, or look at the samples: edgeagent samples list"


class NotTrainable(ModelError):
    code = 22
    text = "{model} can't be trained on a device: {reason}"
    hint = "docs/trainable-models.md says what a trainable file holds"


class ShapeMismatch(ModelError):
    code = 23
    text = "{tensor}: expected {expected}, got {got}"


class RuntimeUnusable(ModelError):
    code = 24
    text = "no TFLite runtime on this machine can open a model: {reason}"
    hint = "pip install 'edgeagent[litert]'   (Python 3.10-3.14, 64 bit)   or   pip install 'edgeagent[tflite]'   (Python <= 3.11)"


class RuntimeLost(ModelError):
    """The process that runs a model for this one has ended, or can't be believed any more. What was kept before stays."""
    code = 26
    text = "{model}: the process that runs it {how}"
    hint = "the round goes on from its journal at the next start; edgeagent measure {model} says what memory each mode takes"


class NotEnoughSamples(ModelError):
    code = 25
    text = "{model} has {have} samples and needs {need} to train"
    hint = "edgeagent samples add {model} FILE.npz"


# The network can act.


class LinkError(ModelWireError):
    """The broker could not be reached, or refused."""
    code = 30
    text = "{broker}: {reason}"
    hint = "edgeagent doctor"


class NotWelcome(LinkError):
    code = 31
    text = "{device}/{model}: the centre has granted no epoch yet ({status}), so there is nothing to number an update with"
    hint = "{next}"


class BrokerUnreachable(LinkError):
    """The centre found no broker to listen on."""
    code = 32
    hint = "{fix}"


class BrokerRefused(LinkError):
    """The broker answers, and does not let this client in or do what it needs: password, certificate, access list."""
    code = 34
    hint = "{fix}"


class SessionTaken(LinkError):
    """Two clients use one name at the broker, which gives one session to one name. This one came later, and stepped back."""
    code = 33
    text = "{broker}: two clients use the name {name}: {reason}; the other one goes on"
    hint = "stop one of them for good; if the other one is not yours, bind names to users at the broker: docs/broker.md"


# The sender can act: what came over the wire or from a file is not acceptable.


class WireError(ModelWireError):
    """Bytes that came over the wire or from a file were refused; nothing was written."""
    code = 40
    text = "{reason}"


class Malformed(WireError):
    code = 41
    text = "{what}: {reason}"


class TooLarge(WireError):
    code = 42
    text = "{what} is {size} bytes or entries, the limit is {limit}"


class UnsupportedWire(WireError):
    code = 43
    text = "{what} {got} is not one that this release reads ({reads})"
    hint = "upgrade the side that reads"


class NotUnderstood(UnsupportedWire):
    """The sender insists that this is understood, and it is not: a critical key, a kind of record, a verb."""
    code = 80
    text = "{what}: {got} is not understood by this release"


class DigestMismatch(WireError):
    code = 44
    text = "{what}: the digest does not match the bytes; they were damaged or changed on the way"


class BadSignature(WireError):
    code = 45
    text = "{what}: the signature does not belong to {signer}"


class WrongRole(WireError):
    """A record was said by a key that has no business to say it."""
    code = 81
    text = "{what}: the {got} key said it, and only the {needed} key may"


class WrongFleet(WireError):
    """A record of another fleet, whose name may be the same."""
    code = 82
    text = "{what} is of the fleet with the id {got}, and ours has {expected}; names may be equal, ids are not"
    hint = "give both sides the same fleet.pub"


class DesiredRefused(WireError):
    """A desired that the right key sealed counts no more: a newer one was taken, its time is over, or it has another's number."""
    code = 96
    text = "{device}/{model}: desired {number} is not taken: {reason}"


class IndexOutOfRange(WireError):
    code = 46
    text = "tensor {tensor}: index {index} is outside the tensor's {size} entries, or indices do not rise"


class RangeOverflow(WireError):
    code = 47
    text = "tensor {tensor}: entry {index} would leave the lattice's range of +-2^22 units, or +-127 of an int8"


class NonFinite(WireError):
    code = 48
    text = "{what}, tensor {tensor}: entry {index} is not a finite number"


class RootMismatch(WireError):
    code = 49
    text = "{what}: the rebuilt weights have another {kind} than the sender's"
    hint = "ask for a snapshot: edgecloud snapshot request {device}"


class ReplayMismatch(RootMismatch):
    """A recipe, replayed on the parent that it names, did not come to the version that its device says it made of it."""
    code = 59
    text = (
        "{what}: its recipe, replayed, comes to another {kind} than its device's. The same recipe gives the same bits on every sound"
        " machine: run `edgeagent doctor` on {device} and `edgecloud doctor` here, and look at it with `edgecloud replay {what}`"
    )
    hint = "edgecloud replay {what}"


# The registry, or the lineage, can act.


class LineageError(ModelWireError):
    """An update does not fit the history that the registry holds."""
    code = 50


class UnknownParent(LineageError):
    code = 51
    text = "{device} sent version {version} on parent {parent}, which this registry does not hold"
    hint = "edgecloud snapshot request {device}"


class Conflict(LineageError):
    code = 52
    text = "{device}/{model}@{version} is already held with another commit"
    hint = "edgecloud log {device}/{model} shows both; docs/troubles.md, \"Two of one name\", says which folder goes on and how"


class TwoHistories(Conflict):
    """Two state folders speak with one key: a cloned card, or an older copy that runs again. The history that was first goes on."""
    code = 85
    text = "{device}/{model}: {reason}"
    hint = "docs/troubles.md, \"Two of one name\", says which folder goes on and how"


class WrongBase(LineageError):
    code = 53
    text = "{what} was made for another {kind}: expected {expected}, got {got}"
    hint = "deploy the same base model on both sides: edgecloud bases list"


class UnknownVersion(LineageError):
    code = 54
    text = "{name}: no such device, model or version in this registry"
    hint = "edgecloud log DEVICE lists the versions; edgecloud devices lists the devices"


class NotServed(LineageError):
    code = 55
    text = "{name} is held but was refused, so it is never served: {reason}"
    hint = "edgecloud log {device} lists the versions that are served"


class Thinned(LineageError):
    """The bytes of a version were dropped by the operator's policy; its header still proves what it was."""
    code = 90
    text = "{name} is no longer recoverable: it was thinned; the nearest that is: {nearest}"
    hint = "edgecloud log DEVICE lists the versions that are recoverable"


class Unfit(LineageError):
    code = 91
    text = "{name} is not known to be fit: {reason}"
    hint = "edgecloud matrix --update scores what was not scored"


class RegistryDamaged(LineageError):
    code = 56
    text = "{path}: {reason}"
    hint = "edgecloud restore BACKUP --db {path}"


class UnknownDevice(LineageError):
    code = 57
    text = "{device} is not registered, or signed with a key that is not its own"
    hint = "edgecloud devices add {device} FINGERPRINT, with the fingerprint that its board shows: edgeagent status"


class ClaimRefused(LineageError):
    """A board asks to be let in by a claim that does not, or no more, let it in."""
    code = 88
    text = "{device} is not let in by the claim {claim}: {reason}"
    hint = "edgecloud claim list"


class AmbiguousName(LineageError):
    code = 58
    text = "{device} has several models: {models}"
    hint = "name one of them: {example}"


# Not a fault: wait, or give more room.


class BudgetExhausted(ModelWireError):
    code = 60
    text = "{what} does not fit in {budget} bytes"
    hint = "raise the budget in the settings"


class OutboxFull(BudgetExhausted):
    code = 61
    text = "the outbox holds {held} bytes of {budget}; nothing more is queued until the centre answers"
    hint = "edgeagent status"


class NoModeFits(BudgetExhausted):
    code = 62
    text = "{model} can't be trained within its budget: {reason}"
    hint = "raise budget.max_ram or budget.max_seconds, or see what each mode takes: edgeagent measure {model}"


class OverBudget(BudgetExhausted):
    code = 63
    text = "training {model} in the mode {mode} took {took} of {budget}; the next round takes a cheaper mode"
    hint = "edgeagent measure {model}"


class MonthSpent(BudgetExhausted):
    code = 64
    text = "{spent} of the {limit} bytes of {month} are spent: updates wait for the next month, or for a larger link.monthly_bytes"


class DiskUnwritable(ModelWireError):
    """The disk takes nothing more: it is full, over a quota, read-only, or fails. Nothing is left half written."""
    code = 83
    text = "{path}: {reason}; {disk}"
    hint = "{fix}"


# The build or the processor is at fault: a bug, or a machine on which exactness can't be had.


class KernelError(ModelWireError):
    code = 70
    text = "{what}: {reason}"
    hint = "please report this; it is a bug"


class RoundingMode(KernelError):
    code = 71
    text = "the processor does not round to nearest even; exact weights can't be had in this mode"
    hint = "some library changed the floating-point control word of this process"


class SubnormalsFlushed(KernelError):
    code = 72
    text = "the processor takes the smallest floats for zero; training would give other bits here than elsewhere"
    hint = "some library built with -ffast-math changed the floating-point control word of this process"


def all_errors(of: type[ModelWireError] = ModelWireError) -> list[type[ModelWireError]]:
    """Return every error class, parents before children, in order of definition. docs/errors.md is held against it."""
    return [of, *(cls for child in of.__subclasses__() for cls in all_errors(child))]
