"""How many units a margin takes: the published values, and what each count promises."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from ftnas.campaign.sample_size import (
    normal_quantile,
    relative_sample_size,
    sample_size,
    stratified_sample_size,
    units_needed,
    zero_event_bound,
)
from ftnas.errors import CampaignError

RESNET20_BITS = 2_167_168
MARGINS = st.floats(1e-3, 0.5)
SHARES = st.floats(0.01, 0.99)


@pytest.mark.parametrize(
    ("margin", "confidence", "quantile", "population", "published"),
    [
        (0.05, 0.95, None, None, 385),
        (0.05, 0.99, None, None, 664),
        (0.01, 0.95, None, None, 9_604),
        (0.01, 0.99, 2.576, None, 16_590),
        (0.001, 0.95, 1.96, None, 960_400),
        (0.01, 0.99, 2.576, RESNET20_BITS, 16_464),
        (0.001, 0.95, 1.96, RESNET20_BITS, 665_485),
    ],
)
def test_published_sample_sizes_come_out(
    margin: float, confidence: float, quantile: float | None, population: int | None, published: int
) -> None:
    found = sample_size(margin, confidence=confidence, population=population, quantile=quantile)
    assert found == published


def test_the_exact_quantile_of_99_percent_needs_two_faults_less_than_the_rounded_one() -> None:
    assert sample_size(0.01, confidence=0.99) == 16_588


@given(MARGINS, SHARES, st.integers(2, 10**9))
def test_no_fewer_units_would_keep_the_margin(margin: float, share: float, population: int) -> None:
    n = sample_size(margin, share=share, population=population)

    def half_width(units: int) -> float:
        left = (population - units) / (population - 1)
        return normal_quantile(0.95) * math.sqrt(share * (1 - share) / units * left)

    assert half_width(n) <= margin * (1 + 1e-9)
    assert n == 1 or half_width(n - 1) >= margin * (1 - 1e-9)


@given(MARGINS, SHARES)
def test_a_large_population_is_like_one_without_end(margin: float, share: float) -> None:
    unlimited = sample_size(margin, share=share)
    assert sample_size(margin, share=share, population=10**15) == unlimited
    assert sample_size(margin, share=share, population=7) <= min(7, unlimited)


@given(st.floats(0.01, 0.9), SHARES)
def test_a_relative_margin_is_the_absolute_one_of_that_share(relative: float, share: float) -> None:
    margin = relative * share
    expected = sample_size(margin, share=share, population=10**6)
    assert abs(relative_sample_size(relative, share=share, population=10**6) - expected) <= 1


def test_a_rare_outcome_to_within_a_tenth_takes_half_a_million_faults() -> None:
    assert relative_sample_size(0.1, share=0.0007) == 548_396


@given(MARGINS, SHARES, st.integers(2, 10**8))
def test_units_by_their_deviation_are_as_many_as_by_their_share(margin: float, share: float, population: int) -> None:
    deviation = math.sqrt(share * (1 - share))
    found = units_needed(margin, deviation=deviation, population=population)
    assert found == pytest.approx(max(2, sample_size(margin, share=share, population=population)), abs=1)


def test_units_that_do_not_differ_need_two() -> None:
    assert units_needed(0.01, deviation=0.0) == 2


@given(MARGINS, st.lists(st.tuples(st.integers(2, 10**6), st.floats(0.01, 1)), min_size=1, max_size=8))
def test_strata_never_need_more_units_than_one_heap(margin: float, rows: list[tuple[int, float]]) -> None:
    sizes, deviations = zip(*rows, strict=True)
    total = sum(sizes)
    within = math.sqrt(sum(size * deviation**2 for size, deviation in rows) / total)
    heap = units_needed(margin, deviation=within, population=total)
    assert stratified_sample_size(margin, sizes=sizes, deviations=deviations) <= heap + 1


def test_strata_alike_need_as_many_units_as_one_heap() -> None:
    found = stratified_sample_size(0.01, sizes=[5000, 3000], deviations=[0.5, 0.5])
    assert found == pytest.approx(sample_size(0.01, population=8000), abs=1)


def test_strata_are_summed_as_cochran_has_it() -> None:
    n = stratified_sample_size(0.02, sizes=[1000, 4000], deviations=[0.5, 0.1], confidence=0.95)
    # (0.2 * 0.5 + 0.8 * 0.1)^2 / ((0.02 / 1.96)^2 + (0.2 * 0.25 + 0.8 * 0.01) / 5000)
    assert n == math.ceil(0.0324 / ((0.02 / normal_quantile(0.95)) ** 2 + 0.058 / 5000))


@given(st.integers(1, 10**6), st.floats(0.5, 0.999))
def test_what_no_event_rules_out_would_have_shown_itself(n: int, confidence: float) -> None:
    bound = zero_event_bound(n, confidence)
    assert n * math.log1p(-bound) == pytest.approx(math.log(1 - confidence), rel=1e-9)


def test_the_rule_of_three() -> None:
    assert zero_event_bound(1000) == pytest.approx(3 / 1000, rel=5e-3)
    assert zero_event_bound(1) == pytest.approx(0.95)


@given(st.integers(1, 200), st.data())
def test_a_finite_population_is_bounded_as_exactly_as_counting_does(population: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, population))
    bound = zero_event_bound(n, population=population)
    hidden = [held for held in range(population - n + 1) if hypergeom.pmf(0, population, held, n) > 0.05]
    assert max(hidden) <= bound * population + 1e-9
    assert bound <= zero_event_bound(n) + 1e-12
    assert zero_event_bound(population, population=population) == 0


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: sample_size(0.0), "margin: 0.0"),
        (lambda: sample_size(1.0), "margin: 1.0"),
        (lambda: sample_size(math.nan), "margin: nan"),
        (lambda: sample_size(0.01, confidence=95), "confidence: 95"),
        (lambda: sample_size(0.01, share=0.0), "share: 0.0"),
        (lambda: sample_size(0.01, population=0), "population: 0"),
        (lambda: relative_sample_size(0.1, share=1.0), "share: 1.0"),
        (lambda: units_needed(-1, deviation=1.0), "margin: -1"),
        (lambda: units_needed(0.1, deviation=-1.0), "deviation: -1.0"),
        (lambda: zero_event_bound(0), "n: 0"),
        (lambda: zero_event_bound(5, population=4), "n: 5"),
    ],
)
def test_an_impossible_argument_is_named(call: Callable[[], object], named: str) -> None:
    with pytest.raises(CampaignError, match=named):
        call()
