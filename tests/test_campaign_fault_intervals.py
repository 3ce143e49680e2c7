"""Intervals over single faults: what each must equal, and how often those of made-up campaigns hold the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from fault_population import coverage, fault_population
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from ftnas.campaign.allocation import neyman, pilot_deviations
from ftnas.campaign.fault_intervals import HIGH, LOW, fault_interval, next_out, stratified_interval, stratified_mean
from ftnas.campaign.guaranteed import guaranteed_high
from ftnas.campaign.intervals import clopper_pearson
from ftnas.campaign.moments import Part, largest_unseen, skewed_t
from ftnas.campaign.sample_size import zero_event_bound
from ftnas.errors import CampaignError

UNITS = st.lists(st.integers(0, 300).map(lambda hits: hits / 300), min_size=2, max_size=30)
UNEQUAL = UNITS.filter(lambda units: len(set(units)) > 1)
CONFIDENCES = st.floats(0.5, 0.999)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Strata


@given(UNEQUAL, UNEQUAL)
def test_two_strata_have_welchs_degrees_of_freedom(first: list[float], second: list[float]) -> None:
    assume(np.var(first) > 1e-4 and np.var(second) > 1e-4)
    parts = [Part(float(np.var(x, ddof=1)) / len(x), 0.0, len(x) - 1) for x in (first, second)]
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.9)
    found = skewed_t(float(np.mean(first) - np.mean(second)), parts, 0.9)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_strata_weigh_by_their_size() -> None:
    assert stratified_mean([(100, [0.0, 0.2]), (300, [0.5])]) == pytest.approx(0.4)


def by_hand(end: int, confidence: float) -> float:
    """Return an end for two strata: what ``stratified_interval`` is said to do, without its functions."""
    mean, variance, third, squares = 0.0, 0.0, 0.0, 0.0
    for size, units in ((10, [0.2, 0.3, 0.4]), (40, [0.1, 0.5])):
        n, weight, more = len(units), size / 50, np.array([*units, max(units) if end == HIGH else min(units)])
        left = 1 - n / size
        mean += weight * (np.mean(units) + left * (more.mean() - np.mean(units)))
        left = 1 - (n + 1) / (size + 1)
        part = weight**2 * more.var(ddof=1) / (n + 1) * left
        variance += part
        squares += part**2 / (n - 1)
        third += weight**3 * ((more - more.mean()) ** 3).mean() / (n + 1) ** 2 * left**1.5
    a, sign = third / variance**1.5 / 3, 1 if end == HIGH else -1
    quantile = -sign * stats.t.ppf(0.5 + confidence / 2, variance**2 / squares)
    return mean - math.sqrt(variance) * (math.cbrt(1 + 3 * a * (quantile - a / 2)) - 1) / a


def test_an_interval_by_strata_is_hall_s_with_a_unit_added_to_each() -> None:
    interval = stratified_interval([(10, [0.2, 0.3, 0.4]), (40, [0.1, 0.5])], 0.6, bounds=(-100, 100))
    assert (interval.low, interval.high) == pytest.approx((by_hand(LOW, 0.6), by_hand(HIGH, 0.6)), abs=1e-9)


def test_a_stratum_of_equal_units_is_not_certain() -> None:
    varied = generator(0).random(50)
    silent = stratified_interval([(1000, varied), (1000, [0.0] * 5)])
    known = stratified_interval([(1000, varied), (1000, [0.0] * 1000)])
    assert silent.high - silent.low > 1.01 * (known.high - known.low)


@given(st.lists(st.tuples(st.integers(2, 50), st.integers(0, 1000)), min_size=1, max_size=5), CONFIDENCES)
def test_nothing_seen_anywhere_leaves_what_the_least_watched_stratum_can_hide(
    rows: list[tuple[int, int]], confidence: float
) -> None:
    strata = [(n + more, [0.0] * n) for n, more in rows]
    total = sum(size for size, _ in strata)
    interval = stratified_interval(strata, confidence)
    alone = max(zero_event_bound(len(units), confidence, size) * size / total for size, units in strata)
    assert interval.low == 0
    assert interval.high >= alone - 1e-9


@pytest.mark.parametrize(("gains", "counts"), [((0.5, 0.5), (20, 20)), ((0.1, 0.9), (5, 50)), ((0.9, 0.1), (3, 90))])
def test_the_most_that_two_strata_can_hide_is_found(gains: tuple[float, float], counts: tuple[int, int]) -> None:
    first = np.linspace(0, 1 - 0.05 ** (1 / counts[0]), 100_001)
    second = 1 - (0.05 / (1 - first) ** counts[0]) ** (1 / counts[1])
    best = (gains[0] * first + gains[1] * second).max()
    assert largest_unseen(gains, counts, 0.95) == pytest.approx(best, abs=1e-6)


def test_a_pilot_stands_for_itself_and_the_rest_for_what_it_left() -> None:
    strata = [(10, [1.0, 1.0, 0.5, 0.0]), (4, [1.0, 0.0, 0.0, 0.0])]
    assert stratified_mean(strata, pilot=[2, 4]) == pytest.approx((2 * 1.0 + 8 * 0.25 + 1.0) / 14)
    rest = stratified_interval([(8, [0.5, 0.0])], bounds=(-100, 100))  # of which the pilot left so many
    whole = stratified_interval(strata, pilot=[2, 4], bounds=(-100, 100))
    assert whole.high - whole.low == pytest.approx((rest.high - rest.low) * 8 / 14)
    assert stratified_interval([(3, [0.1, 0.2, 0.6])], pilot=[3]).method == "exhaustive"


# Faults drawn at random


@given(UNEQUAL, st.integers(1, 1000), CONFIDENCES)
def test_the_interval_over_faults_holds_what_is_left_possible_and_their_mean(
    units: list[float], more: int, confidence: float
) -> None:
    interval = fault_interval(units, confidence, population=len(units) + more)
    assert 0 <= interval.low <= np.mean(units) + 1e-12
    assert np.mean(units) - 1e-12 <= interval.high <= 1


@given(UNITS, CONFIDENCES, st.integers(0, 1000))
def test_the_interval_of_unchanged_answers_mirrors_that_of_changed_ones(
    units: list[float], confidence: float, more: int
) -> None:
    size = len(units) + more
    changed, not_changed = (fault_interval(u, confidence, population=size) for u in (units, [1 - x for x in units]))
    assert (changed.low, changed.high) == pytest.approx((1 - not_changed.high, 1 - not_changed.low), abs=1e-6)


def test_one_damaging_fault_among_many_says_as_little_as_no_guarantee_allows() -> None:
    none, one, two = (fault_interval([0.002] * k + [0.0] * (200 - k), population=30_272) for k in range(3))
    assert one.high > none.high  # it knows less of the tail, not more
    assert two.high < one.high
    assert one.high == pytest.approx(clopper_pearson(0, 200).high, rel=0.02)


@pytest.mark.parametrize(("events", "n"), [(1, 100), (2, 100), (5, 100), (99, 100), (1, 20), (3, 1000)])
def test_where_faults_change_all_or_nothing_the_longer_side_ends_where_clopper_and_pearson_do(
    events: int, n: int
) -> None:
    found = fault_interval([1.0] * events + [0.0] * (n - events), population=10**9)
    exact = clopper_pearson(events, n)
    if events < n / 2:
        assert found.high == pytest.approx(exact.high, rel=0.002)
    else:
        assert 1 - found.low == pytest.approx(1 - exact.low, rel=0.002)


def test_a_unit_beyond_the_largest_is_as_many_times_as_large_as_that_is_of_the_next() -> None:
    units = [0.0, 0.0, 0.0, 0.1, 0.2]
    assert next_out(units, HIGH) == pytest.approx(0.4)
    assert next_out([1 - x for x in units], LOW) == pytest.approx(0.6)
    assert next_out([*units, 0.7], HIGH) == 1
    assert next_out([0.0, 0.0, 0.0, 0.1], HIGH) == 1  # alone on its side
    assert next_out(units, LOW) == 0


@pytest.mark.parametrize("n", [5, 40, 300])
def test_the_guaranteed_bound_is_a_quantile_of_means_weighed_at_random(n: int) -> None:
    units = generator(n).beta(0.3, 3, n)
    means = generator(1).dirichlet(np.ones(n + 1), 40_000) @ np.append(units, 1.0)
    assert guaranteed_high(units, 0.05, end=1.0, population=10**9) == pytest.approx(np.quantile(means, 0.95), rel=0.02)


@pytest.mark.parametrize("error", [0.005, 0.025, 0.2, 0.45])
def test_the_guaranteed_bound_of_a_share_is_clopper_and_pearsons(error: float) -> None:
    for events, n in ((1, 2), (1, 20), (19, 20), (50, 100), (3, 1000)):
        exact = float(stats.beta.isf(error, events + 1, n - events))
        units = [1.0] * events + [0.0] * (n - events)
        assert guaranteed_high(units, error, end=1.0, population=10**9) == pytest.approx(exact, rel=0.002)


def test_the_guaranteed_bound_holds_where_a_rare_fault_does_all_the_damage() -> None:
    n, size, campaigns = 50, 1000, 400
    population, draw = np.zeros(size), generator(3)
    population[:20], population[20:300] = 1.0, 0.002
    held = 0
    for _ in range(campaigns):
        units = population[draw.choice(size, n, replace=False)]
        held += population.mean() <= guaranteed_high(units, 0.05, end=1.0, population=size)
    assert held / campaigns >= 0.94


# Coverage, on a fault population like one that was injected exhaustively


@pytest.mark.parametrize(("n", "least"), [(50, 0.90), (200, 0.90), (1000, 0.93)])
def test_intervals_over_faults_hold_the_truth(n: int, least: float) -> None:
    assert coverage(lambda units: fault_interval(units, population=30_272), n) >= least


def adaptive_campaign(draw: np.random.Generator, n: int, pilot: int) -> list[tuple[int, NDArray[np.float64]]]:
    """Return the units by bit: a pilot of each, then as many as Neyman gives."""
    order = [draw.permutation(bits) for bits in fault_population()]
    deviations = pilot_deviations([units[:pilot] for units in order])
    shared = neyman([len(units) for units in order], deviations, n, floor=pilot + 2)
    return [(len(units), units[:given]) for units, given in zip(order, shared, strict=True)]


def test_neyman_with_its_pilot_is_unbiased_covers_and_saves_faults() -> None:
    n, pilot, campaigns = 1000, 20, 800
    faults, draw = fault_population().ravel(), generator(4)
    runs = [adaptive_campaign(draw, n, pilot) for _ in range(campaigns)]
    means = np.array([stratified_mean(run, pilot=[pilot] * 8) for run in runs])
    assert abs(means.mean() - faults.mean()) < 3 * means.std() / math.sqrt(campaigns)
    intervals = [stratified_interval(run, pilot=[pilot] * 8) for run in runs]
    assert np.mean([i.low <= faults.mean() <= i.high for i in intervals]) >= 0.93
    # Pilot included, and against simple random sampling of as many faults.
    assert means.var() / (faults.var() / n * (1 - n / faults.size)) < 0.65
    assert np.mean([stratified_mean(run) for run in runs]) < faults.mean()  # the pilot counted with the rest


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: fault_interval([], population=5), "unit_means: "),
        (lambda: fault_interval([0.5, 1.5], population=5), "unit_means: 0.5 to 1.5"),
        (lambda: fault_interval([0.5, 0.6], population=1), "n: 2"),
        (lambda: fault_interval([0.5, 0.6], 95, population=5), "confidence: 95"),
        (lambda: stratified_interval([]), "strata: 0"),
        (lambda: stratified_interval([(10, [])]), "strata: number 0 has 0 units"),
        (lambda: stratified_interval([(10, [0.1, 0.2])], pilot=[2]), "2 of them the pilot"),
        (lambda: stratified_mean([(10, [0.1, 0.2])], pilot=[1, 1]), "strata: 1, with pilots for 2"),
    ],
)
def test_an_impossible_interval_over_faults_is_named(call: Callable[[], object], named: str) -> None:
    with pytest.raises(CampaignError, match=named):
        call()
