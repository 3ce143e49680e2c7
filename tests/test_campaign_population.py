"""Populations of single faults: every bit once, drawn alike, nested, without repeats, at any size."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from ftnas.campaign.population import KINDS, LARGEST, STRATA, By, Population, Stratum
from ftnas.errors import CampaignError

SITES = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 5)), min_size=1, max_size=4)
POPULATIONS = st.builds(
    lambda rows, kinds: Population(tuple((f"site {i}", *row) for i, row in enumerate(rows)), KINDS[:kinds]),
    SITES,
    st.integers(1, 3),
)
WAYS = st.sampled_from(STRATA)


def keyed(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


@given(POPULATIONS)
def test_every_fault_of_every_bit_has_one_number(population: Population) -> None:
    place = population.locate(np.arange(population.size))
    found = list(zip(*(column.tolist() for column in place), strict=True))
    expected = [
        (site, *rest)
        for site, (_, values, bits) in enumerate(population.sites)
        for rest in itertools.product(range(values), range(bits), range(len(population.kinds)))
    ]
    assert found == expected


@given(POPULATIONS, WAYS)
def test_strata_share_no_fault_and_leave_none_out(population: Population, by: By) -> None:
    strata = population.strata(by)
    drawn = [population.draw(stratum, stratum.size, keyed()) for stratum in strata]
    assert sorted(np.concatenate(drawn).tolist()) == list(range(population.size))
    for index, (stratum, numbers) in enumerate(zip(strata, drawn, strict=True)):
        assert set(population.stratum_of(numbers, by).tolist()) == {index}
        place = population.locate(numbers)
        assert stratum.bit is None or set(place.bit.tolist()) == {stratum.bit}
        assert stratum.site is None or {population.sites[site][0] for site in place.site} == {stratum.site}


@given(POPULATIONS, WAYS, st.data())
def test_a_draw_repeats_nothing_and_starts_every_longer_one(
    population: Population, by: By, data: st.DataObject
) -> None:
    stratum = data.draw(st.sampled_from(population.strata(by)))
    n = data.draw(st.integers(0, stratum.size))
    m = data.draw(st.integers(0, n))
    long, short = (population.draw(stratum, count, keyed()).tolist() for count in (n, m))
    assert len(set(long)) == n
    assert short == long[:m]


@given(POPULATIONS, WAYS, st.data())
def test_what_is_excluded_does_not_come_and_all_else_can(population: Population, by: By, data: st.DataObject) -> None:
    stratum = data.draw(st.sampled_from(population.strata(by)))
    barred = data.draw(st.sets(st.integers(0, population.size - 1)))
    members = set(population.draw(stratum, stratum.size, keyed(1)).tolist())
    left = members - barred
    assert set(population.draw(stratum, len(left), keyed(), exclude=sorted(barred)).tolist()) == left
    with pytest.raises(CampaignError, match="allowed is 0 to"):
        population.draw(stratum, len(left) + 1, keyed(), exclude=sorted(barred))


def test_long_draws_are_nested_too() -> None:
    population = Population((("a", 10_000, 8), ("b", 3, 4)))
    whole = population.strata()[0]
    every = population.draw(whole, population.size, keyed())
    for n in (1, 1023, 1024, 1025, 50_000):
        assert np.array_equal(population.draw(whole, n, keyed()), every[:n])
    assert len(np.unique(every)) == population.size


def test_all_orders_of_a_draw_are_alike() -> None:
    population, generator = Population((("a", 2, 2),)), keyed()
    whole = population.strata()[0]
    draws = [tuple(population.draw(whole, 2, generator).tolist()) for _ in range(6000)]
    counts = [draws.count(pair) for pair in itertools.permutations(range(4), 2)]
    assert chisquare(counts).pvalue > 1e-3


def test_a_sites_share_of_the_draws_is_its_share_of_the_bits() -> None:
    # Drawing the layer first would give the small one, 432 of 272,816 bits, half of the faults.
    population = Population((("small", 54, 8), ("large", 34_048, 8)))
    drawn = population.draw(population.strata()[0], 20_000, keyed())
    small = int((population.locate(drawn).site == 0).sum())
    assert small == pytest.approx(20_000 * 432 / 272_816, abs=5 * (20_000 * 432 / 272_816) ** 0.5)


def test_a_population_of_2_to_the_40_is_drawn_from_without_being_listed() -> None:
    population = Population((("a", 2**36, 8), ("b", 2**34, 32)))
    assert population.size == LARGEST
    tracemalloc.start()
    drawn = population.draw(population.strata("bit")[7], 5000, keyed())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    place = population.locate(drawn)
    assert set(place.bit.tolist()) == {7}
    assert 0.75 < (place.site == 0).mean() < 0.85
    assert place.element.max() > 2**35
    assert peak < 4 * 2**20


def test_it_says_what_is_drawn_from() -> None:
    resnet = Population((("first", 432, 8), ("others", 270_464, 8)))
    assert resnet.describe() == "270,896 weights x 8 bits of 2 sites = 2,167,168 faults (flip), every bit alike"
    mixed = Population((("a", 10, 4), ("b", 5, 8)), ("stuck_at_0", "stuck_at_1"))
    assert mixed.describe() == (
        "15 weights x 4 to 8 bits x 2 kinds of 2 sites = 160 faults (stuck_at_0, stuck_at_1), every bit alike"
    )


def test_strata_are_named_and_sized() -> None:
    population = Population((("a", 10, 2), ("b", 5, 3)), ("flip", "stuck_at_0"))
    assert population.strata() == (Stratum(None, None, 70),)
    assert population.strata("layer") == (Stratum("a", None, 40), Stratum("b", None, 30))
    assert population.strata("bit") == (Stratum(None, 0, 30), Stratum(None, 1, 30), Stratum(None, 2, 10))
    assert [stratum.name for stratum in population.strata("layer_bit")] == [
        *("a bit 0", "a bit 1", "b bit 0", "b bit 1", "b bit 2"),
    ]
    assert population.strata()[0].name == "network"


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Population(()), "sites: "),
        (lambda: Population((("a", 1, 8), ("a", 2, 8))), "sites: "),
        (lambda: Population((("a", 0, 8),)), "a has 0 values"),
        (lambda: Population((("a", 1, 65),)), "65 bits"),
        (lambda: Population((("a", 2**40, 2),)), "allowed is at most"),
        (lambda: Population((("a", 1, 8),), ("melt",)), "kinds: .*flip, stuck_at_0, stuck_at_1"),
        (lambda: Population((("a", 1, 8),), ()), "kinds: "),
        (lambda: Population((("a", 1, 8),)).strata("row"), "by: 'row'"),  # type: ignore[arg-type]
        (lambda: Population((("a", 1, 8),)).stratum_of([0], "row"), "by: 'row'"),  # type: ignore[arg-type]
        (lambda: Population((("a", 1, 8),)).locate([8]), "index: 8"),
        (lambda: Population((("a", 1, 8),)).locate([-1]), "index: -1"),
        (lambda: Population((("a", 1, 8),)).draw(Stratum("b", None, 8), 1, keyed()), "stratum: b"),
        (lambda: Population((("a", 1, 8),)).draw(Stratum("a", None, 9), 1, keyed()), "stratum: a of 9"),
        (lambda: Population((("a", 1, 8),)).draw(Stratum("a", 3, 1), 2, keyed()), "n: 2 faults of a bit 3"),
    ],
)
def test_an_impossible_population_is_named(call: Callable[[], object], named: str) -> None:
    with pytest.raises(CampaignError, match=named):
        call()
