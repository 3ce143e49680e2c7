"""Fronts of accuracy, faulty accuracy and size: what nothing dominates, how crowded it is, and its volume."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnas.search.candidates import Score
from ftnas.spiking.graph.genome import Genome, Synapse
from ftnas.spiking.graph.selection import (
    Individual,
    by_dominance,
    crowding,
    draw_parent,
    front_of,
    hypervolume,
    ranks,
)

points = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), min_size=1, max_size=14)
shares = st.integers(0, 5).map(lambda tenth: tenth / 5)


def of_size(size: int) -> Genome:
    return Genome(1, 1, {1: 1}, tuple(Synapse(0, 1, 1, delay) for delay in range(1, size + 1)))


@st.composite
def individuals(draw: st.DrawFn, least: int = 1) -> list[Individual]:
    one = st.builds(lambda size, c, f: Individual(of_size(size), Score(c, f, ())), st.integers(0, 14), shares, shares)
    return draw(st.lists(one, min_size=least, max_size=10))


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


@given(points)
def test_a_rank_is_the_longest_chain_of_those_that_dominate(items: list[tuple[float, ...]]):
    found = ranks(np.array(items))
    for item, rank in zip(items, found, strict=True):
        above = [found[i] for i, other in enumerate(items) if dominates(other, item)]
        assert rank == (max(above) + 1 if above else 0)


def test_crowding_is_infinite_at_the_ends_and_else_the_gap_between_neighbours():
    found = crowding(np.array([[0.0, 4.0], [1.0, 3.0], [4.0, 0.0]]))
    assert found.tolist() == [np.inf, 2.0, np.inf]


@given(individuals())
def test_the_front_is_mutually_non_dominated_and_dominates_all_others(items: list[Individual]):
    front = front_of(items)
    kept = [one.objectives for one in front]
    assert not any(dominates(one, other) for one in kept for other in kept)
    assert len(set(kept)) == len(kept)
    assert all(one.objectives in kept or any(dominates(k, one.objectives) for k in kept) for one in items)
    assert [one.genome.size for one in front] == sorted(one.genome.size for one in front)


@given(individuals())
def test_ordering_loses_nobody_and_puts_the_front_first(items: list[Individual]):
    ordered = by_dominance(items)
    assert sorted(map(id, ordered)) == sorted(map(id, items))
    front = {one.objectives for one in front_of(items)}
    assert {one.objectives for one in ordered[: len(front)]} == front


@given(individuals())
def test_the_hypervolume_is_that_of_moocore(items: list[Individual]):
    moocore = pytest.importorskip("moocore")
    expected = moocore.hypervolume(np.array([one.objectives for one in items]), ref=[0, 0, -12], maximise=True)
    assert hypervolume(items, largest=12) == pytest.approx(float(expected))


@given(individuals(), individuals())
def test_a_front_that_is_joined_by_others_never_shrinks(first: list[Individual], more: list[Individual]):
    front = front_of(first)
    assert hypervolume(front_of([*front, *more]), largest=30) >= hypervolume(front, largest=30) - 1e-12


def test_of_two_contestants_the_better_one_wins_nine_times_in_ten():
    ordered = [Individual(Genome(1, 1, {1: n}, ()), Score(0.5, 0.5, ())) for n in range(1, 11)]
    rng = Random(0)
    places = [ordered.index(draw_parent(ordered, 2, rng)) for _ in range(4000)]
    # The smaller of two places in 0..9 is 2.85 on average, the larger 6.15.
    assert np.mean(places) == pytest.approx(0.9 * 2.85 + 0.1 * 6.15, abs=0.15)
