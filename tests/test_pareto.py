"""Fronts, knees, hypervolumes and leaders of (accuracy, cost) points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnas.search import pareto

Point = tuple[float, float]
points = st.lists(st.tuples(st.integers(0, 8).map(float), st.integers(0, 8).map(float)), max_size=12)


def accuracy(point: Point) -> float:
    return point[0]


def cost(point: Point) -> float:
    return point[1]


def front(items: list[Point]) -> list[Point]:
    return pareto.front(items, accuracy=accuracy, cost=cost)


def dominates(a: Point, b: Point) -> bool:
    return a != b and a[0] >= b[0] and a[1] <= b[1]


@given(points)
def test_the_front_is_what_nothing_dominates_cheapest_first(items: list[Point]) -> None:
    expected = [item for item in items if not any(dominates(other, item) for other in items)]
    assert front(items) == sorted(expected, key=cost)


def test_the_knee_is_where_accuracy_begins_to_cost_more() -> None:
    items = [(0.1, 1.0), (0.8, 2.0), (0.85, 6.0), (0.9, 10.0), (0.2, 9.0)]
    assert pareto.knee(items, accuracy=accuracy, cost=cost) == (0.8, 2.0)


@pytest.mark.parametrize("items", [[(0.5, 1.0)], [(0.5, 1.0), (0.9, 3.0)], [(0.5, 1.0), (0.5, 1.0)]])
def test_the_knee_of_one_or_two_points_is_the_most_accurate(items: list[Point]) -> None:
    assert pareto.knee(items, accuracy=accuracy, cost=cost) == items[-1]


def test_the_knee_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        pareto.knee([], accuracy=accuracy, cost=cost)


@given(points)
def test_the_hypervolume_is_that_of_moocore(items: list[Point]) -> None:
    moocore = pytest.importorskip("moocore")
    reference = (2.0, 7.0)
    expected = 0.0
    if items:
        expected = float(moocore.hypervolume(np.array(items), ref=reference, maximise=[True, False]))
    assert pareto.hypervolume_2d(items, reference=reference) == pytest.approx(expected)


@given(points, st.integers(1, 6))
def test_a_more_accurate_item_is_passed_over_only_if_another_dominates_it(items: list[Point], count: int) -> None:
    chosen = pareto.leaders(items, count, accuracy=accuracy, cost=cost)
    assert len(chosen) == min(count, len(items))
    assert chosen == sorted(chosen, key=lambda point: (-point[0], point[1]))
    for item in items:
        if item not in chosen and chosen and item[0] > chosen[-1][0]:
            assert any(dominates(other, item) for other in items)


def test_leaders_come_from_the_front_before_they_come_from_behind_it() -> None:
    items = [(0.9, 9.0), (0.8, 5.0), (0.85, 9.5), (0.3, 1.0)]
    assert pareto.leaders(items, 3, accuracy=accuracy, cost=cost) == [(0.9, 9.0), (0.8, 5.0), (0.3, 1.0)]
    assert pareto.leaders(items, 4, accuracy=accuracy, cost=cost)[1] == (0.85, 9.5)
