"""The arrival process: right rates from 1e-9 to 1, uniform positions, nested in the rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ftnas.errors import FaultError
from ftnas.faults.kernels import FIRST_CHUNK, LARGEST_CHUNK
from ftnas.faults.sampling import Hits, draw_hits, failure_time

# Rate and a population in which about a hundred to some ten thousand positions fail.
CASES = [(1e-9, 2**36), (1e-8, 2**33), (1e-5, 10**7), (1e-3, 10**6), (0.1, 10**5), (0.438, 20_000), (0.9, 20_000)]
RATES = st.floats(1e-9, 1.0)
SURELY = 1e-4  # a right sampler fails a test at this level once in ten thousand seeds, and the seeds are fixed


def hits_at(rate: float, population: int, *key: str | int) -> Hits:
    return draw_hits(population, failure_time(rate), ("test", *key))


@pytest.mark.parametrize(("rate", "population"), CASES)
def test_the_number_of_hits_is_binomial(rate: float, population: int) -> None:
    counts = np.array([len(hits_at(rate, population, seed).position) for seed in range(40)])
    mean, variance = population * rate, population * rate * (1 - rate)
    assert abs(counts.mean() - mean) < 4 * math.sqrt(variance / 40)
    low, high = stats.chi2(39).ppf([SURELY, 1 - SURELY])
    assert low < counts.var(ddof=1) * 39 / variance < high


@pytest.mark.parametrize(("rate", "population"), CASES)
def test_positions_are_uniform(rate: float, population: int) -> None:
    positions = np.concatenate([hits_at(rate, population, seed).position for seed in range(10)])
    counts = np.bincount(positions * 16 // population, minlength=16)
    assert stats.chisquare(counts).pvalue > SURELY


@pytest.mark.parametrize(("rate", "population"), CASES)
def test_marks_are_uniform(rate: float, population: int) -> None:
    marks = np.concatenate([hits_at(rate, population, seed).mark for seed in range(10)])
    assert stats.kstest(marks, "uniform").pvalue > SURELY


@pytest.mark.parametrize("rate", [0.3, 0.45, 0.9])
def test_neighbours_fail_independently(rate: float) -> None:
    failed = np.zeros(200_000)
    failed[hits_at(rate, 200_000, 1).position] = 1
    assert abs(np.corrcoef(failed[1:], failed[:-1])[0, 1]) < 4 / math.sqrt(200_000)


def test_rate_one_hits_every_position() -> None:
    assert np.array_equal(hits_at(1.0, 1000, 0).position, np.arange(1000))


@pytest.mark.parametrize("population", [0, 1000])
def test_rate_zero_hits_nothing(population: int) -> None:
    assert len(hits_at(0.0, population, 0).position) == 0


@given(rate=RATES, population=st.integers(1, 5000), seed=st.integers(0, 1000))
def test_positions_are_distinct_sorted_and_in_range(rate: float, population: int, seed: int) -> None:
    hits = hits_at(rate, population, seed)
    assert np.all(np.diff(hits.position) > 0)
    assert np.all((hits.position >= 0) & (hits.position < population))
    assert np.all((hits.mark >= 0) & (hits.mark < 1))


@given(rates=st.tuples(RATES, RATES), population=st.integers(1, 20_000), seed=st.integers(0, 1000))
def test_hits_at_a_low_rate_are_hits_at_a_higher_one_with_the_same_marks(
    rates: tuple[float, float], population: int, seed: int
) -> None:
    few, many = (hits_at(rate, population, seed) for rate in sorted(rates))
    places = np.searchsorted(many.position, few.position)
    assert np.all(places < len(many.position))
    assert np.array_equal(many.position[places], few.position)
    assert np.array_equal(many.mark[places], few.mark)


@pytest.mark.parametrize("population", [3 * FIRST_CHUNK, 6 * LARGEST_CHUNK])
def test_hits_stay_nested_where_the_rate_crosses_a_chunk_or_becomes_dense(population: int) -> None:
    rates = np.concatenate([np.geomspace(1e-4, 0.35, 30), np.linspace(0.38, 1.0, 15)])
    before: set[tuple[int, float]] = set()
    for rate in rates:
        hits = hits_at(float(rate), population, 5)
        now = set(zip(hits.position.tolist(), hits.mark.tolist(), strict=True))
        assert before <= now
        before = now


def test_the_earliest_arrival_decides_the_mark() -> None:
    sparse = {rate: hits_at(rate, 50, 3) for rate in (0.01, 0.39)}
    first = dict(zip(sparse[0.01].position.tolist(), sparse[0.01].mark.tolist(), strict=True))
    later = dict(zip(sparse[0.39].position.tolist(), sparse[0.39].mark.tolist(), strict=True))
    assert len(later) > len(first)
    assert first.items() <= later.items()


def test_m_clocks_ring_at_the_rate_of_m_tries() -> None:
    rate, tries = 1e-3, 576
    assert -math.expm1(-failure_time(rate) * tries) == pytest.approx(1 - (1 - rate) ** tries)


def test_the_same_key_draws_the_same_hits_and_another_key_others() -> None:
    one, again, other = hits_at(0.01, 10**5, "a"), hits_at(0.01, 10**5, "a"), hits_at(0.01, 10**5, "b")
    assert np.array_equal(one.position, again.position)
    assert not np.array_equal(one.position, other.position)


def test_parts_beyond_all_counting_are_refused() -> None:
    with pytest.raises(FaultError, match=r"^4611686018427387904 parts of one tensor are too many to draw \d+ failing"):
        draw_hits(2**62, 1e-16, ("test", 1))
