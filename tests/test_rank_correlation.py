"""Kendall's tau and mean differences with their intervals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from ftnas.search.rank_correlation import _counts, _resampled_tau, _signs, kendall, mean_difference

values = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12)


@given(values)
def test_the_resampled_tau_is_that_of_the_drawn_pairs(pairs: list[tuple[int, int]]) -> None:
    x, y = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    counts = _counts(len(x), 3, "test")[:5]
    ours = _resampled_tau(_signs(x), _signs(y), counts)
    for tau, count in zip(ours, counts, strict=True):
        drawn = np.repeat(np.arange(len(x)), count.astype(int))
        assert tau == pytest.approx(kendalltau(x[drawn], y[drawn]).statistic, nan_ok=True)


def test_equal_rankings_have_tau_one_with_a_narrow_interval() -> None:
    estimate = kendall(range(20), range(20), seed=0)
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == pytest.approx((1, 1, 1, 20))


def test_the_interval_holds_the_value_and_narrows_with_more_pairs() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    y = x + rng.normal(size=200)
    few, many = kendall(x[:20], y[:20], seed=1), kendall(x, y, seed=1)
    assert few.low < few.value < few.high
    assert many.low < many.value < many.high
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_the_interval_covers_the_true_tau_about_as_often_as_it_says() -> None:
    # Normal pairs with correlation r have tau = 2/pi arcsin(r). 100 studies of 30 pairs; 0.95 less three
    # standard errors is 0.885.
    rng = np.random.default_rng(0)
    true = 2 / math.pi * math.asin(0.6)
    hits = 0
    for study in range(100):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=30).T
        estimate = kendall(x, y, seed=study)
        hits += estimate.low <= true <= estimate.high
    assert hits >= 88


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 1.0, 4.0, 3.0, 6.0, 5.0]
    assert kendall(x, y, seed=5) == kendall(x, y, seed=5)
    assert mean_difference(x, [0.5, 0.75], seed=5) == mean_difference(x, [0.5, 0.75], seed=5)
    assert mean_difference(x, [0.5, 0.75], seed=5) != mean_difference(x, [0.5, 0.75], seed=6)


def test_a_constant_score_ranks_nothing_and_is_null_in_json() -> None:
    estimate = kendall([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0], seed=0)
    assert math.isnan(estimate.value)
    assert json.loads(json.dumps(estimate.to_dict())) == {"value": None, "low": None, "high": None, "n": 4}


@pytest.mark.parametrize(("x", "y"), [([1.0, 2.0], [1.0, 2.0]), ([1.0, 2.0, 3.0], [1.0, 2.0])])
def test_too_few_or_unpaired_values_are_an_error(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="at least three pairs"):
        kendall(x, y, seed=0)


def test_the_gain_is_the_difference_of_means_within_its_interval() -> None:
    gain = mean_difference([0.9, 0.92, 0.91], [0.8, 0.7, 0.75, 0.85, 0.72], seed=0)
    assert gain.mean == pytest.approx(0.91 - 0.764)
    assert 0 < gain.low < gain.mean < gain.high
    assert gain.n == 3
    assert set(gain.to_dict()) == {"mean", "low", "high", "n"}


def test_both_groups_widen_the_interval_of_the_gain() -> None:
    others = [0.8, 0.7, 0.75, 0.85, 0.72]
    one, many = mean_difference([0.9], others, seed=0), mean_difference([0.8, 1.0], others, seed=0)
    assert many.high - many.low > one.high - one.low > 0


def test_a_gain_needs_both_groups() -> None:
    with pytest.raises(ValueError, match="both sides"):
        mean_difference([], [0.5], seed=0)
