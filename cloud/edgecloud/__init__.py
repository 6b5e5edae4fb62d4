"""The centre of the fleet: takes updates in, keeps every version, and gives any of them back bit for bit.

    import edgecloud
    weights = edgecloud.open("fleet.db").device("pi-7").version(3).weights()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecommon import __version__

if TYPE_CHECKING:
    from .api import Device, Model, Registry, Version, open
    from .versions.listing import Listing

__all__ = ["Device", "Listing", "Model", "Registry", "Version", "__version__", "open"]


def __getattr__(name: str) -> Any:
    # Only when it is asked for: a command that opens no registry does without.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
