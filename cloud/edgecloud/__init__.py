"""The centre of the fleet: takes updates in, keeps every version, and gives any of them back bit for bit.

    import cloud
    weights = edgecloud.open("fleet.db").device("pi-7").version(3).weights()
"""

from __future__ import annotations

from .api import Device, Fleet, Model, Version, open

__all__ = ["Device", "Fleet", "Model", "Version", "__version__", "open"]

__version__ = "0.1.0"
