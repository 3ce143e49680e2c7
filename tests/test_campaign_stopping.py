"""Looks share the error: whenever a campaign stops, its interval is as sure as it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnas.campaign.sample_size import normal_quantile
from ftnas.campaign.stopping import LEAST_ERROR, SPENDING, Looks, Spending, growing_schedule
from ftnas.errors import CampaignError

SCHEDULES = st.lists(st.integers(1, 5000), min_size=1, max_size=8, unique=True).map(lambda n: tuple(sorted(n)))
KINDS = st.sampled_from(sorted(SPENDING))


@pytest.mark.parametrize(
    ("spending", "published"),
    [
        ("obrien_fleming", (4.877, 3.357, 2.680, 2.290, 2.031)),
        ("pocock", (2.438, 2.427, 2.410, 2.397, 2.386)),
    ],
)
def test_five_even_looks_have_the_published_bounds(spending: Spending, published: tuple[float, ...]) -> None:
    # As in the tables of Lan and DeMets' spending functions, two-sided 5 %, by the program ldbounds.
    assert Looks(0.95, (10, 20, 30, 40, 50), spending).quantiles == pytest.approx(published, abs=6e-4)


@given(st.floats(0.5, 0.999), st.integers(1, 10**6), KINDS)
def test_one_look_has_the_whole_error(confidence: float, n: int, spending: Spending) -> None:
    assert Looks(confidence, (n,), spending).confidence_at(0) == pytest.approx(confidence, abs=1e-9)


@given(SCHEDULES, KINDS)
def test_each_look_is_surer_than_the_whole_and_no_surer_than_its_own_share(
    schedule: tuple[int, ...], spending: Spending
) -> None:
    looks, spent = Looks(0.95, schedule, spending), 0.0
    for look, n in enumerate(schedule):
        target = SPENDING[spending](1 - 0.95, n / schedule[-1], (look + 1) / len(schedule))
        # If looks had nothing in common each would miss with what it spends; what they share is given back.
        assert 0.95 - 1e-8 <= looks.confidence_at(look) <= 1 - max(target - spent, LEAST_ERROR) + 1e-8
        spent = target


def missed(looks: Looks, quantiles: tuple[float, ...], campaigns: int = 4000) -> float:
    """Return how often some look's interval misses the mean 0 of normal units of deviation 1."""
    generator = np.random.default_rng(7)
    steps = np.diff((0, *looks.schedule))
    sums = np.cumsum(generator.normal(size=(campaigns, len(steps))) * np.sqrt(steps), axis=1)
    return float((np.abs(sums) > np.array(quantiles) * np.sqrt(looks.schedule)).any(1).mean())


@pytest.mark.parametrize("spending", SPENDING)
@pytest.mark.parametrize("schedule", [growing_schedule(20, 1000), tuple(range(50, 1050, 50))])
def test_looking_at_every_interval_misses_no_more_than_promised(spending: Spending, schedule: tuple[int, ...]) -> None:
    looks = Looks(0.95, schedule, spending)
    assert missed(looks, looks.quantiles) == pytest.approx(0.05, abs=0.01)
    assert missed(looks, (normal_quantile(0.95),) * len(schedule)) > 0.15


def test_looks_at_a_finite_population_share_the_error_too() -> None:
    looks = Looks(0.95, (100, 200, 300, 390), "pocock", population=400)
    generator, misses = np.random.default_rng(3), 0
    values = generator.normal(size=400)
    for _ in range(3000):
        drawn = generator.permutation(values)
        means = np.array([drawn[:n].mean() for n in looks.schedule]) - values.mean()
        errors = [values.std(ddof=1) * math.sqrt((1 - n / 400) / n) for n in looks.schedule]
        misses += bool((np.abs(means) > np.array(looks.quantiles) * errors).any())
    assert misses / 3000 == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("near", [1, 10, 100, 10_000])
def test_looks_close_together_are_nearly_one_look(near: int) -> None:
    # Two looks at nearly the same units miss together; two far apart would need 2.24 for this share each.
    first, second = Looks(0.95, (1_000_000, 1_000_000 + near)).quantiles
    assert first == pytest.approx(normal_quantile(0.975), abs=1e-6)
    assert normal_quantile(0.95) <= second < first


@given(st.integers(1, 500), st.integers(0, 5000), st.floats(1.01, 4))
def test_a_growing_schedule_ascends_from_first_to_last(first: int, more: int, factor: float) -> None:
    schedule = growing_schedule(first, first + more, factor)
    assert (schedule[0], schedule[-1]) == (first, first + more)
    assert all(a < b <= math.ceil(a * factor) for a, b in pairwise(schedule))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Looks(1.0, (10,)), "confidence: 1.0"),
        (lambda: Looks(0.95, ()), "schedule: "),
        (lambda: Looks(0.95, (10, 10)), "schedule: "),
        (lambda: Looks(0.95, (0, 10)), "schedule: "),
        (lambda: Looks(0.95, (10, 30), population=20), "schedule: 30"),
        (lambda: Looks(0.95, (10,), "greedy"), "spending: 'greedy'"),  # type: ignore[arg-type]
        (lambda: Looks(0.95, (10,)).confidence_at(1), "look: 1 of 1"),
        (lambda: Looks(0.95, (10,)).confidence_at(-1), "look: -1"),
        (lambda: growing_schedule(20, 10), "schedule: 20 to 10"),
        (lambda: growing_schedule(1, 10, 1.0), "by 1.0"),
    ],
)
def test_impossible_looks_are_named(call: Callable[[], object], named: str) -> None:
    with pytest.raises(CampaignError, match=named):
        call()
