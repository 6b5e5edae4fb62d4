"""Every limit on what comes over the wire or from a file, named once."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB

# The lattice (decision 0001): Q * u must be one exact float32 product.
Q_MAX = 1 << 22  # |Q| in units, inclusive
EXPONENT_MIN = -96  # u = 2^e; below this a flushed subnormal could change a sum
EXPONENT_MAX = 100
STEP_MANTISSA_MAX = 255  # step = m * 2^j units
STEP_SHIFT_MAX = 22

# Names travel in topics, containers and file names.
NAME_MAX = 64  # characters, [a-z0-9] first, then [a-z0-9._-]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader accepts. All in bytes unless said; the defaults suit boards and a small server."""

    container: int = 64 * MIB  # one update
    header: int = 2 * KIB  # fixed header and names of a container
    extension: int = 16 * KIB  # CBOR beside the update, never needed to rebuild
    tensors: int = 4096  # entries of a schema, sections of an update
    elements: int = 128 * 1024 * 1024  # weights of a model, all tensors together (512 MiB of float32)
    rank: int = 6
    tensor_name: int = 200  # characters
    manifest: int = 1 * MIB
    model_file: int = 600 * MIB
    graph_operators: int = 20_000  # of a subgraph that is grafted or inspected; NASNet-Mobile has about a thousand
    graph_tensors: int = 200_000
    notes: int = 1 * MIB  # what a trainable file says of itself
    modes: int = 16  # ways to train one file
    record: int = 40 * KIB  # hello, receipt, command, manifest of a transfer
    part: int = 96 * KIB  # one MQTT payload: AWS IoT Core refuses more than 128 KiB
    parts: int = 16_384  # of one transfer: 600 MiB in leaves of 64 KiB are 9,600
    training: int = 1 << 37  # of a replayed recipe, as OutputHeadSettings.work counts: at most about half a minute of a server's core
    cbor_depth: int = 4
    cbor_items: int = 4096


DEFAULT = Limits()
# What the centre reads from its own registry: snapshots of models of up to 500 MB.
LARGE = Limits(container=600 * MIB)
