"""Quantiles and intervals that are computed without SciPy's statistics, which take a second to import, equal theirs."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ftnas.campaign.intervals import clopper_pearson, wilson
from ftnas.campaign.sample_size import normal_quantile

CONFIDENCES = st.floats(0.5, 0.9999)


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, 5000))
    return draw(st.integers(0, n)), n


@given(counts(), CONFIDENCES)
def test_intervals_of_a_share_are_scipys(count: tuple[int, int], confidence: float) -> None:
    test = stats.binomtest(*count)
    theirs = test.proportion_ci(confidence, method="wilson"), test.proportion_ci(confidence, method="exact")
    for ours, their in zip((wilson, clopper_pearson), theirs, strict=True):
        found = ours(*count, confidence)
        # Its exact ends come from a search for a root, to 1e-12 or so.
        assert (found.low, found.high) == pytest.approx((their.low, their.high), rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("n", [1, 7, 100])
def test_an_end_of_nothing_and_of_all_is_exact(n: int) -> None:
    for interval in (wilson, clopper_pearson):
        assert interval(0, n).low == 0.0
        assert interval(n, n).high == 1.0


@given(CONFIDENCES)
def test_a_quantile_is_scipys_to_the_bit(confidence: float) -> None:
    assert normal_quantile(confidence) == float(stats.norm.isf((1 - confidence) / 2))
    assert math.isfinite(normal_quantile(confidence))


START = """
import sys
import ftnas.cli.main, ftnas.cli.printing, ftnas.pipeline.run
from ftnas.data import load_data
load_data("digits")
unused = {"optuna", "sqlalchemy", "grpc", "scipy.stats", "scipy.optimize", "sklearn", "pandas"}
print(*sorted(unused & set(sys.modules)))
"""


def test_a_search_that_is_finished_waits_for_no_package_that_it_does_not_use() -> None:
    found = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True).stdout
    assert found.split() == []
