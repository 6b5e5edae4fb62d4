"""The verifier of proofs: what a regulator reads and runs as one file. It knows nothing of this project but its formats, written anew.

`edgecloud.proving.assembling` makes verify_proof.py of these modules, in this order: encoding, placing, logs, headers, proofs, evidence.
Each imports the standard library, numpy, cryptography and the modules before it, and no name stands in two of them.
"""

from __future__ import annotations

__all__ = ["MODULES", "encoding", "evidence", "headers", "logs", "placing", "proofs"]

MODULES = ("encoding", "placing", "logs", "headers", "proofs", "evidence")
