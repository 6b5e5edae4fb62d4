"""The fleet's own CA and what a broker is given: who may connect, and what each may say and hear. Knows no registry and no network."""

from __future__ import annotations

from . import broker_files, building
from .authority import CENTRE, CertificateFolder, Renewal
from .building import public_key_of_request
from .ledger import Holder, Issue

__all__ = ["CENTRE", "CertificateFolder", "Holder", "Issue", "Renewal", "broker_files", "building", "public_key_of_request"]
