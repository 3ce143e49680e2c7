"""Intervals: what each must equal, and how often those of made-up campaigns hold the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from fault_population import IMAGES, coverage, fault_population
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from ftnas.campaign.fault_intervals import stratified_interval
from ftnas.campaign.intervals import (
    Interval,
    bootstrap_t,
    clopper_pearson,
    cluster_interval,
    student_interval,
    two_way_interval,
    wilson,
)
from ftnas.campaign.sample_size import normal_quantile, zero_event_bound
from ftnas.errors import CampaignError

UNITS = st.lists(st.integers(0, 300).map(lambda hits: hits / 300), min_size=2, max_size=30)
UNEQUAL = UNITS.filter(lambda units: len(set(units)) > 1)
CONFIDENCES = st.floats(0.5, 0.999)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Yes or no


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int, int | None]:
    n = draw(st.integers(1, 300))
    return draw(st.integers(0, n)), n, draw(st.none() | st.integers(n, 10 * n))


@given(counts(), CONFIDENCES)
def test_an_interval_of_a_share_holds_what_was_found(count: tuple[int, int, int | None], confidence: float) -> None:
    events, n, population = count
    for method in (wilson, clopper_pearson):
        interval = method(events, n, confidence, population)
        assert 0 <= interval.low <= events / n <= interval.high <= 1
        if population is not None:
            assert interval.low >= events / population - 1e-12
            assert interval.high <= 1 - (n - events) / population + 1e-12
        if population == n:
            assert interval.low == pytest.approx(interval.high)


@given(counts(), CONFIDENCES)
def test_wilson_is_its_formula(count: tuple[int, int, int | None], confidence: float) -> None:
    events, n, _ = count
    z, share = normal_quantile(confidence), events / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    for interval in (wilson(events, n, confidence), wilson(events, n, confidence, 10**13)):
        assert (interval.low, interval.high) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_wilson_of_half_the_population_is_that_of_twice_the_units() -> None:
    half, twice = wilson(30, 100, population=200), wilson(60, 200)
    assert (half.low, half.high) == pytest.approx((twice.low, twice.high), abs=2e-3)


@pytest.mark.parametrize("n", [1, 2, 5, 12])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_clopper_pearson_covers_every_share_as_often_as_it_says(n: int, confidence: float) -> None:
    intervals = [clopper_pearson(events, n, confidence) for events in range(n + 1)]
    for share in np.linspace(0, 1, 201):
        holds = np.array([interval.low <= share <= interval.high for interval in intervals])
        assert stats.binom.pmf(np.arange(n + 1), n, share) @ holds >= confidence - 1e-12


@pytest.mark.parametrize("n", [1, 4, 9, 20])
def test_clopper_pearson_covers_every_finite_population_as_often_as_it_says(n: int) -> None:
    population = 20
    intervals = [clopper_pearson(events, n, 0.9, population) for events in range(n + 1)]
    for held in range(population + 1):
        holds = np.array([i.low - 1e-9 <= held / population <= i.high + 1e-9 for i in intervals])
        assert stats.hypergeom.pmf(np.arange(n + 1), population, held, n) @ holds >= 0.9 - 1e-12


def test_clopper_pearson_of_no_event_is_what_zero_events_leave_at_half_the_error() -> None:
    assert clopper_pearson(0, 50).high == pytest.approx(zero_event_bound(50, 0.975))


def test_for_rare_faults_wilson_and_clopper_pearson_hold_where_wald_does_not() -> None:
    n, share = 100, 0.0092
    chance = stats.binom.pmf(np.arange(n + 1), n, share)

    def coverage(ends: Callable[[int], tuple[float, float]]) -> float:
        return float(chance @ [ends(events)[0] <= share <= ends(events)[1] for events in range(n + 1)])

    def wald(events: int) -> tuple[float, float]:
        half = normal_quantile(0.95) * math.sqrt(events / n * (1 - events / n) / n)
        return events / n - half, events / n + half

    assert coverage(wald) < 0.62
    assert coverage(lambda events: (wilson(events, n).low, wilson(events, n).high)) > 0.93
    assert coverage(lambda events: (clopper_pearson(events, n).low, clopper_pearson(events, n).high)) > 0.98


# Means over units


@given(UNEQUAL, CONFIDENCES)
def test_student_is_scipys(units: list[float], confidence: float) -> None:
    low, high = stats.t.interval(confidence, len(units) - 1, loc=np.mean(units), scale=stats.sem(units))
    interval = student_interval(units, confidence)
    assert (interval.low, interval.high) == pytest.approx((max(low, 0), min(high, 1)), abs=1e-9)


@given(st.lists(st.floats(-0.4, 0.4), min_size=1, max_size=15).filter(lambda apart: np.ptp(apart) > 1e-6))
def test_without_skewness_the_rule_is_students_t(apart: list[float]) -> None:
    units = [0.5 + x for x in apart] + [0.5 - x for x in apart]
    student, cluster = student_interval(units), cluster_interval(units)
    assert (cluster.low, cluster.high) == pytest.approx((student.low, student.high), abs=1e-6)


@given(UNEQUAL, CONFIDENCES)
def test_hall_turns_the_quantiles_of_a_skewed_t_back(units: list[float], confidence: float) -> None:
    n, x = len(units), np.array(units)
    interval = cluster_interval(units, confidence, bounds=(-100, 100))
    a = ((x - x.mean()) ** 3).mean() / x.std(ddof=1) ** 3 / math.sqrt(n) / 3
    quantile = stats.t.isf((1 - confidence) / 2, n - 1)
    for end, expected in ((interval.low, quantile), (interval.high, -quantile)):
        t = (x.mean() - end) / stats.sem(x)
        if t:  # an end that would pass the mean stays at it
            assert t + a * t**2 + a**2 * t**3 / 3 + a / 2 == pytest.approx(expected, abs=1e-5)


@given(UNEQUAL, CONFIDENCES)
def test_the_interval_of_losses_mirrors_that_of_accuracies(units: list[float], confidence: float) -> None:
    right, wrong = (cluster_interval(u, confidence) for u in (units, [1 - unit for unit in units]))
    assert (right.low, right.high) == pytest.approx((1 - wrong.high, 1 - wrong.low), abs=1e-9)


@given(UNITS, CONFIDENCES, st.integers(1, 100))
def test_an_interval_holds_its_mean_within_the_bounds_and_narrows_in_a_finite_population(
    units: list[float], confidence: float, more: int
) -> None:
    wide = cluster_interval(units, confidence)
    narrow = cluster_interval(units, confidence, population=len(units) + more)
    mean = np.mean(units)
    assert 0 <= wide.low <= narrow.low + 1e-12 <= mean + 2e-12
    assert mean <= narrow.high + 1e-12 <= wide.high + 2e-12 <= 1 + 2e-12


@given(UNITS)
def test_the_whole_population_leaves_no_doubt(units: list[float]) -> None:
    for interval in (
        cluster_interval(units, population=len(units)),
        stratified_interval([(len(units), units), (1, [0.5])]),
        bootstrap_t(units, 0.95, generator(), population=len(units), resamples=10),
    ):
        assert interval.high - interval.low == 0
        assert interval.method == "exhaustive"


@given(st.integers(1, 300), st.floats(0, 1), CONFIDENCES, st.none() | st.integers(301, 10**6))
def test_equal_units_leave_open_what_as_many_can_hide(
    n: int, value: float, confidence: float, population: int | None
) -> None:
    interval = cluster_interval([value] * n, confidence, population=population)
    bound = zero_event_bound(n, confidence, population)
    assert interval.low == pytest.approx(value - bound * value, abs=1e-9)
    assert interval.high == pytest.approx(value + bound * (1 - value), abs=1e-9)
    assert interval.high > interval.low


def test_a_spread_too_small_to_square_still_counts() -> None:
    interval = cluster_interval([0.5, 0.5 + 1e-15, 0.5, 0.5])
    assert 0 < interval.high - interval.low < 1e-14


def test_accuracy_drops_may_be_negative() -> None:
    assert cluster_interval([-0.2, 0.1, -0.1], bounds=(-1, 1)).low < -0.2
    assert cluster_interval([0.0] * 9, bounds=(-1, 1)).low < 0


def test_half_the_width_is_compared_with_a_margin() -> None:
    assert Interval(0.2, 0.5, 0.95, "some").half_width == pytest.approx(0.15)


def test_the_bootstrap_is_that_of_its_generator_and_near_the_rule() -> None:
    units = generator(1).beta(2, 20, 200)
    first, again, other = (bootstrap_t(units, 0.95, generator(seed)) for seed in (0, 0, 1))
    assert first == again != other
    rule = cluster_interval(units)
    assert (first.low, first.high) == pytest.approx((rule.low, rule.high), abs=0.15 * (rule.high - rule.low))


def test_the_bootstrap_of_few_unlike_units_is_wide_instead_of_wrong() -> None:
    interval = bootstrap_t([0.0] * 19 + [0.1], 0.95, generator())
    assert interval.high == 1
    assert bootstrap_t([0.0] * 20, 0.95, generator()) == cluster_interval([0.0] * 20)


# Two ways


def test_images_that_are_a_sample_too_add_their_variance() -> None:
    units, images = generator(0).beta(5, 5, 40), generator(1).beta(5, 5, 60)
    images += units.mean() - images.mean()
    both = two_way_interval(units, images)
    for alone in (cluster_interval(units), cluster_interval(images)):
        assert both.half_width > alone.half_width
    squares = sum(student_interval(x).half_width ** 2 for x in (units, images))
    assert both.half_width == pytest.approx(math.sqrt(squares), rel=0.05)


def test_equal_units_and_images_leave_open_what_the_fewer_can_hide() -> None:
    assert two_way_interval([0.0] * 50, [0.0] * 9) == cluster_interval([0.0] * 9)


def test_95_of_100_two_way_intervals_hold_the_mean_over_all_faults_and_images() -> None:
    draw, held, campaigns = generator(5), 0, 600
    for _ in range(campaigns):
        outcomes = 0.5 + 0.05 * draw.normal(size=(30, 1)) + 0.05 * draw.normal(size=(1, 40))
        outcomes = outcomes + 0.05 * draw.normal(size=(30, 40))
        interval = two_way_interval(outcomes.mean(1), outcomes.mean(0))
        held += interval.low <= 0.5 <= interval.high
    assert held / campaigns == pytest.approx(0.95, abs=0.03)


# Coverage, on a fault population like one that was injected exhaustively


def test_the_made_up_population_is_like_the_measured_one() -> None:
    population = fault_population()
    assert population.mean() == pytest.approx(0.0007, abs=2e-5)
    assert (population == 0).mean() == pytest.approx(0.77, abs=0.01)
    assert (population >= 0.01).mean() == pytest.approx(0.0092, abs=5e-4)


@pytest.mark.parametrize(("n", "least"), [(50, 0.90), (200, 0.90), (1000, 0.93)])
def test_cluster_intervals_hold_the_truth(n: int, least: float) -> None:
    assert coverage(lambda units: cluster_interval(units, population=30_272), n) >= least


@pytest.mark.parametrize(("n", "least"), [(200, 0.90), (1000, 0.93)])
def test_bootstrap_intervals_hold_the_truth(n: int, least: float) -> None:
    draw = generator(2)
    assert coverage(lambda x: bootstrap_t(x, 0.95, draw, population=30_272, resamples=499), n, campaigns=600) >= least


def test_faults_times_images_is_the_wrong_count() -> None:
    def naive(units: NDArray[np.float64]) -> Interval:
        return wilson(round(units.sum() * IMAGES), len(units) * IMAGES)

    assert coverage(naive, 200, campaigns=400) < 0.85


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: wilson(3, 2), "events: 3 of 2"),
        (lambda: wilson(-1, 2), "events: -1"),
        (lambda: wilson(0, 0), "n: 0"),
        (lambda: clopper_pearson(1, 5, population=4), "n: 5 units of a population of 4"),
        (lambda: clopper_pearson(1, 5, 95), "confidence: 95"),
        (lambda: cluster_interval([]), "unit_means: "),
        (lambda: cluster_interval([[0.1, 0.2]]), "unit_means: shape"),
        (lambda: cluster_interval([0.5, math.nan]), "unit_means: 1 are not finite"),
        (lambda: cluster_interval([0.5, 1.5]), "unit_means: 0.5 to 1.5"),
        (lambda: cluster_interval([0.5, 0.6], population=1), "n: 2"),
        (lambda: two_way_interval([0.1, 0.2], [0.5, 0.6]), "image_means: "),
    ],
)
def test_an_impossible_interval_is_named(call: Callable[[], object], named: str) -> None:
    with pytest.raises(CampaignError, match=named):
        call()
