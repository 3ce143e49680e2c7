"""Units shared out among strata: exact integers that nothing beats."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from fault_population import fault_population
from hypothesis import given
from hypothesis import strategies as st

from ftnas.campaign.allocation import neyman, pilot_deviations, proportional
from ftnas.errors import CampaignError

STRATA = st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 10)), min_size=1, max_size=8)


def variance(sizes: list[int], deviations: list[float], given: tuple[int, ...]) -> float:
    parts = zip(sizes, deviations, given, strict=True)
    return sum((size * deviation) ** 2 * (1 / n - 1 / size) for size, deviation, n in parts)


@given(STRATA, st.integers(0, 3), st.data())
def test_units_add_up_and_none_gets_more_than_it_has(
    rows: list[tuple[int, float]], floor: int, data: st.DataObject
) -> None:
    sizes, deviations = [size for size, _ in rows], [deviation for _, deviation in rows]
    n = data.draw(st.integers(sum(min(size, floor) for size in sizes), sum(sizes)))
    for shared in (neyman(sizes, deviations, n, floor), proportional(sizes, n, floor)):
        assert sum(shared) == n
        assert all(min(size, floor) <= units <= size for units, size in zip(shared, sizes, strict=True))
        assert all(isinstance(units, int) for units in shared)


@given(STRATA, st.data())
def test_a_larger_total_takes_no_unit_back(rows: list[tuple[int, float]], data: st.DataObject) -> None:
    sizes, deviations = [size for size, _ in rows], [deviation for _, deviation in rows]
    least = sum(min(size, 2) for size in sizes)
    n = data.draw(st.integers(least, sum(sizes)))
    more = data.draw(st.integers(n, sum(sizes)))
    pairs = zip(neyman(sizes, deviations, n), neyman(sizes, deviations, more), strict=True)
    assert all(few <= many for few, many in pairs)


@given(
    st.lists(st.tuples(st.integers(1, 8), st.floats(0.1, 10)), min_size=2, max_size=3),
    st.data(),
)
def test_no_other_integers_have_less_variance(rows: list[tuple[int, float]], data: st.DataObject) -> None:
    sizes, deviations = [size for size, _ in rows], [deviation for _, deviation in rows]
    n = data.draw(st.integers(len(sizes), sum(sizes)))
    every = itertools.product(*(range(1, size + 1) for size in sizes))
    best = min(variance(sizes, deviations, shared) for shared in every if sum(shared) == n)
    assert variance(sizes, deviations, neyman(sizes, deviations, n, floor=1)) == pytest.approx(best, abs=1e-9)


def test_many_units_follow_size_times_deviation() -> None:
    assert neyman([10**6, 10**6, 2 * 10**6], [0.1, 0.3, 0.05], 5000) == (1000, 3000, 1000)
    assert proportional([10**6, 3 * 10**6, 4 * 10**6], 800) == (100, 300, 400)


def test_what_a_full_stratum_cannot_take_goes_to_the_others() -> None:
    assert neyman([10, 1000, 1000], [100.0, 0.1, 0.3], 410) == (10, 100, 300)


def test_strata_without_spread_get_their_floor_and_then_what_is_left() -> None:
    assert neyman([1000, 10], [0.0, 1.0], 12, floor=2) == (2, 10)
    assert neyman([1000, 10], [0.0, 1.0], 500, floor=2) == (490, 10)
    assert neyman([300, 100], [0.0, 0.0], 40) == proportional([300, 100], 40) == (30, 10)


def test_a_campaign_of_half_a_million_over_layers_and_bits_is_shared_out_at_once() -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 10**6, 168).tolist()
    shared = neyman(sizes, generator.random(168).tolist(), 665_485, floor=10)
    assert sum(shared) == 665_485


def test_a_pilot_that_found_nothing_does_not_count_as_certain() -> None:
    silent, loud = pilot_deviations([[0.0] * 20, [0.0, 0.1] * 10])
    assert 0 < silent < loud < np.std([0.0, 0.1] * 10, ddof=1)
    many = pilot_deviations([[0.0] * 20_000, [0.0, 0.1] * 10_000])
    assert many == pytest.approx([0, 0.05], abs=1e-3)


def test_by_bit_neyman_needs_at_most_60_percent_of_the_faults_of_simple_sampling() -> None:
    population = fault_population()
    sizes, deviations = [population.shape[1]] * 8, population.std(1, ddof=1).tolist()
    n = 1000
    shared = neyman(sizes, deviations, n)
    strata = variance(sizes, deviations, shared) / population.size**2
    # Simple sampling has the variance s^2 (1/n - 1/N), so as much as the strata at 1/n = variance/s^2 + 1/N.
    simple = 1 / (strata / population.var(ddof=1) + 1 / population.size)
    assert n / simple <= 0.6
    even = variance(sizes, deviations, proportional(sizes, n)) / population.size**2
    assert strata < 0.7 * even


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: neyman([10, 10], [1.0, 1.0], 21), "n: 21 units for 2 strata; allowed is 4"),
        (lambda: neyman([10, 10], [1.0, 1.0], 3, floor=2), "n: 3"),
        (lambda: neyman([10], [1.0, 1.0], 3), "deviations: 2"),
        (lambda: neyman([10, 0], [1.0, 1.0], 3), "sizes: "),
        (lambda: neyman([], [], 0), "sizes: "),
        (lambda: neyman([10, 10], [1.0, -1.0], 5), "deviations: "),
        (lambda: neyman([10, 10], [1.0, float("nan")], 5), "deviations: "),
        (lambda: pilot_deviations([[1.0], []]), "unit_means: "),
    ],
)
def test_an_impossible_allocation_is_named(call: Callable[[], object], named: str) -> None:
    with pytest.raises(CampaignError, match=named):
        call()
