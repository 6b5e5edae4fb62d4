"""Two models on the same rows: agreement, accuracies by class and context, and exact tests of who is right."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgecloud.probes import agreeing, sets
from edgecloud.probes.comparing import layers_apart, parting
from edgecloud.probes.intermediates import LayerSeen, VersionSeen

N = 60
LABELS = np.arange(N) % 3
EYE = np.eye(3, dtype=np.float32)
PROBES = sets.probe_set(np.zeros((N, 2)), LABELS, {"light": ["night"] * 20 + ["day"] * 40})


def test_the_exact_test_is_the_binomial_one() -> None:
    for a in range(9):
        for b in range(9):
            n = a + b
            tail = sum(math.comb(n, i) for i in range(min(a, b) + 1)) / 2**n
            assert agreeing.mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail), rel=1e-12) == agreeing.mcnemar(b, a)
    assert 0 < agreeing.mcnemar(30_000, 30_500) < 0.05 < agreeing.mcnemar(30_000, 30_400) and agreeing.mcnemar(0, 2000) >= 0
    assert agreeing.holm([0.01, 0.04, 0.03, 0.9]) == pytest.approx([0.04, 0.09, 0.09, 0.9]) and agreeing.holm([]) == []


def test_who_is_right_is_told_for_all_rows_each_class_and_each_context() -> None:
    a, b = EYE[LABELS].copy(), EYE[LABELS].copy()
    a[:20] = EYE[(LABELS[:20] + 1) % 3]  # the first is wrong at night
    found = agreeing.agreement(a, b, PROBES)
    assert (found.n, found.same, found.largest) == (N, 40, 1.0) and found.calibration_b == 0
    rows = {r.of: r for r in found.accuracies}
    assert list(rows) == ["", "class 0", "class 1", "class 2", "light=day", "light=night"]
    assert (rows[""].right_a, rows[""].right_b, rows[""].only_a, rows[""].only_b) == (40, 60, 0, 20)
    night = rows["light=night"]
    assert (night.n, night.right_a, night.right_b) == (20, 0, 20) and night.interval_a[0] == 0 and night.interval_b[1] == 1
    assert rows[""].p == pytest.approx(2 * 0.5**20) and rows["light=day"].p == 1
    assert night.p == pytest.approx(5 * 2 * 0.5**20)  # of five tests it is the surest


def test_without_labels_agreement_is_told_alone_and_one_output_is_a_class_by_its_half() -> None:
    bare = sets.probe_set(np.zeros((4, 2)))
    found = agreeing.agreement(np.array([[0.4], [0.6], [0.9], [0.1]], np.float32), np.array([[0.6], [0.7], [0.8], [0.2]], np.float32), bare)
    assert (found.same, found.accuracies, found.calibration_a) == (3, (), None)


def test_targets_are_judged_by_errors_and_by_who_is_nearer() -> None:
    wanted = np.linspace(0, 1, 40)[:, None]
    probes = sets.probe_set(np.zeros((40, 2)), wanted, {"light": ["night", "day"] * 20})
    near, far = wanted.astype(np.float32), wanted.astype(np.float32) + 1
    found = agreeing.agreement(far, near, probes)
    assert not found.classes and found.same == 0
    assert [r.of for r in found.nearness] == ["", "light=day", "light=night"]
    whole = found.nearness[0]
    assert (whole.nearer_a, whole.nearer_b, whole.error_b) == (0, 40, 0) and whole.error_a == pytest.approx(1, abs=1e-6) and whole.p < 1e-9


def seen(name: str, *layers: tuple[str, np.ndarray, float]) -> VersionSeen:  # type: ignore[type-arg]
    kept = [LayerSeen(n, v.astype(np.float32), e, bytes([i]) * 32 if e < 0 else (name + n).encode()) for i, (n, v, e) in enumerate(layers)]
    return VersionSeen(name, "", np.zeros((2, 2), np.float32), tuple(kept))


def test_layers_part_where_they_are_surely_further_apart_than_the_threshold() -> None:
    one = np.ones((2, 8))
    a = seen("a", ("first", one, -1), ("second", one, 0.0), ("third", one, 0.1), ("fourth", one, 0.0), ("alone", one, 0.0))
    b = seen("b", ("first", one, -1), ("second", one * 1.05, 0.0), ("third", one * 1.15, 0.1), ("fourth", one * 1.2, 0.0))
    layers, odd = layers_apart(a, b)
    assert odd == ["alone"] and [one.name for one in layers] == ["first", "second", "third", "fourth"]
    assert layers[0].equal and layers[0].relative == 0
    assert layers[1].relative == pytest.approx(0.05, rel=1e-5) and layers[1].uncertain == 0
    assert layers[2].uncertain > 0.15  # what was lost of both might be all of it
    first = parting(layers, 0.1)
    assert first is not None and first.name == "fourth" and parting(layers, 0.3) is None
    broken = layers_apart(seen("a", ("x", one, 0.0)), seen("b", ("x", one * np.nan, 0.0)))[0]
    assert parting(broken) is broken[0]
    dead = layers_apart(seen("a", ("x", one * 0, 0.0)), seen("b", ("x", one, 0.0)))[0]
    assert dead[0].relative == math.inf and parting(dead) is dead[0]
