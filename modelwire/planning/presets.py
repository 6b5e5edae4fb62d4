"""The two older rules that the cost model contains, as their papers state them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from modelwire.errors import BadArgument

from .figures import in_range


def mistique_read_s(examples: float, example_bytes: float, bytes_per_s: float) -> float:
    """Return t_read = n * sizeof(ex) / rho_d: seconds to read so many examples where they are kept. bytes_per_s > 0."""
    for name, value in (("n", examples), ("sizeof(ex)", example_bytes), ("rho_d", bytes_per_s)):
        in_range(name, value)
    if not bytes_per_s:
        raise BadArgument(reason="nothing can be read at 0 bytes a second", fix="give the rate of the disk")
    return examples * example_bytes / bytes_per_s


def mistique_rerun_s(
    load_s: float, examples: float, example_bytes: float, bytes_per_s: float, batch: float, forward_s: Sequence[float]
) -> float:
    """Return t_rerun = t_load + n * sizeof(ex) / rho + n / batch * sum of t_fwd(s) for s <= i: seconds to compute stage i anew.

    forward_s: seconds of each stage up to i for one batch; batch > 0.
    """
    for name, value in (("t_load", load_s), ("the batch", batch), *(("t_fwd", value) for value in forward_s)):
        in_range(name, value)
    if not batch:
        raise BadArgument(reason="a batch of 0 examples never ends", fix="give the size of a batch")
    return load_s + mistique_read_s(examples, example_bytes, bytes_per_s) + examples / batch * _sum(forward_s)


def mistique_gamma(rerun_s: float, read_s: float, queries: float, stored: float) -> float:
    """Return gamma = (t_rerun - t_read) * n_query / S, seconds saved a stored byte; 0 for what takes no bytes and saves nothing.

    rerun_s: seconds to make it anew (recover a version); read_s: to read it where it is kept; stored: bytes. Negative where reading is
    slower; infinite (a float's inf) where it takes no bytes. Source: Vartak et al., MISTIQUE, SIGMOD 2018, section 5 (the cost model).
    """
    for name, value in (("t_rerun", rerun_s), ("t_read", read_s), ("n_query", queries), ("the bytes stored", stored)):
        in_range(name, value)
    saved = (rerun_s - read_s) * queries
    if not stored:
        return float("inf") if saved > 0 else -float("inf") if saved < 0 else 0.0
    return saved / stored


def mistique_keeps(rerun_s: float, read_s: float, queries: float, stored: float, least: float) -> bool:
    """Say whether MISTIQUE would materialise a version: gamma >= gamma_min, `least`, in seconds a byte.

    It is what the cost model says with w_b = w_e = w_q = 0 and gamma_min = w_s * months / w_r.
    """
    in_range("gamma_min", least)
    return mistique_gamma(rerun_s, read_s, queries, stored) >= least


def sigmod2020_utility(
    qualities: Sequence[float], frequencies: Sequence[float], recreate: Sequence[float], load: Sequence[float], sizes: Sequence[float],
    alpha: float = 0.5,
) -> list[float]:
    """Return U = 0 where loading costs as much as recreating, else alpha * p' + (1 - alpha) * r'_cs, for each artifact.

    p: quality of the best model that it leads to; r_cs = f * C_r / s; p' and r' are divided by their sums over all artifacts. load and
    recreate in seconds, sizes in bytes > 0. Source: Derakhshan et al., SIGMOD 2020, section 5 (materialisation).
    """
    columns = (qualities, frequencies, recreate, load, sizes)
    if len({len(column) for column in columns}) != 1:
        raise BadArgument(reason="the columns are of different lengths", fix="give one value of each an artifact")
    for name, column in zip(("a quality", "a frequency", "C_r", "C_l", "a size"), columns, strict=True):
        for value in column:
            in_range(name, value)
    if not all(sizes):
        raise BadArgument(reason="an artifact of no bytes has no utility a byte", fix="leave it out: keeping it costs nothing")
    in_range("alpha", alpha)
    if alpha > 1:
        raise BadArgument(reason=f"alpha is a share, and {alpha!r} is above 1", fix="give 0 to 1")
    ratios = [f * c / s for f, c, s in zip(frequencies, recreate, sizes, strict=True)]
    total_quality, total_ratio = _sum(qualities), _sum(ratios)
    if not math.isfinite(total_ratio):
        raise BadArgument(reason="an artifact is so small that its utility a byte is no number", fix="give sizes in bytes")
    return [
        0.0 if kept >= made else alpha * _part(p, total_quality) + (1.0 - alpha) * _part(r, total_ratio)
        for p, r, made, kept in zip(qualities, ratios, recreate, load, strict=True)
    ]


def _sum(values: Sequence[float]) -> float:
    total = 0.0
    for value in values:  # one order on every machine and every Python: since 3.12 sum() compensates
        total += value
    return total


def _part(value: float, total: float) -> float:
    return value / total if total else 0.0
