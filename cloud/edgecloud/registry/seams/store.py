"""The Store seam: what a registry must be able to do. tests/edgecloud/conformance holds the suite that every implementation passes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from edgecloud.registry.blobs import BlobStore
from modelwire.wire.signing import Fleet

from .evaluations import Evaluations
from .inbox import Annotations, Inbox, Losses, Refusals, Requests, Transfers
from .keeping import Policies, Sketches, States
from .models import Bases, Lineages, Merges, Tallies, Versions
from .probing import Intermediates, ProbeSets
from .quotas import Quotas
from .rollouts import Rollouts
from .thinning import Erasures, Thinnings
from .trust import Acts, Devices, Log, Trusts


class Store(Protocol):
    """A registry. One store is used by one thread; several stores may be open on one registry."""

    trusts: Trusts
    acts: Acts
    bases: Bases
    merges: Merges
    devices: Devices
    lineages: Lineages
    versions: Versions
    tallies: Tallies
    inbox: Inbox
    losses: Losses
    refusals: Refusals
    requests: Requests
    quotas: Quotas
    rollouts: Rollouts
    transfers: Transfers
    annotations: Annotations
    thinnings: Thinnings
    erasures: Erasures
    log: Log
    states: States
    policies: Policies
    evaluations: Evaluations
    sketches: Sketches
    probes: ProbeSets
    intermediates: Intermediates
    blobs: BlobStore

    @property
    def fleet(self) -> str: ...

    @property
    def identity(self) -> Fleet:
        """What every board is given of the fleet: its root key and its id."""

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing, durable at its end. Inside another one it is a savepoint: it can fail alone."""

    def close(self) -> None: ...
