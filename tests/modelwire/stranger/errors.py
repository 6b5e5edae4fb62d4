"""The errors that the rules of the pages name."""


class WireError(Exception):
    """Anything that a rule refuses."""


class Malformed(WireError):
    """Bytes that break the form."""


class TooLarge(WireError):
    """Something above a limit."""


class NotUnderstood(WireError):
    """A critical key that is not known."""


class UnsupportedWire(WireError):
    """Another version of the wire."""


class DigestMismatch(WireError):
    """A checksum, commit, path or id that does not fit."""


class BadSignature(WireError):
    """A signature that does not hold."""


class WrongBase(WireError):
    """A base that is not held, or another schema."""


class WrongKeyKind(WireError):
    """A key of another kind."""


class WrongRole(WireError):
    """A role that may not say this."""


class WrongFleet(WireError):
    """Another fleet id."""


class IndexOutOfRange(WireError):
    """A tensor or count beyond the schema."""


class RangeOverflow(WireError):
    """A Q or int8 beyond its range."""


class NonFinite(WireError):
    """A float that is infinite or not a number."""


class RootMismatch(WireError):
    """A root or fingerprint other than the header's."""


class ReplayMismatch(RootMismatch):
    """The same, of a recipe."""


class UnknownDevice(WireError):
    """A device that is not registered, or a revoked key."""


class UnknownParent(WireError):
    """A parent that is not the one before."""


class ModelError(WireError):
    """Layers that do not fit the schema."""


class ShapeMismatch(WireError):
    """Shapes that do not fit each other."""


class TrainingDiverged(WireError):
    """A training with a loss or weight that is not finite."""
