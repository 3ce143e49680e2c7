"""Groups of outputs that fail together: which values they are, and what these become."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from slow_faults import SURELY, applied, plan, site

from ftnas.errors import FaultError
from ftnas.faults import OutputPattern, SitePlan, parse_fault
from ftnas.faults.events import BIT
from ftnas.faults.models import CHOICES
from ftnas.faults.patterns import groups_of, members_of
from ftnas.quantization import FixedPoint

SHAPES, VALUES = CHOICES["shape"], CHOICES["value"]
MAP = (6, 7, 9)
# What the values of one group have in common, as a function of channel, row, column and the size of a block.
COMMON: dict[str, Callable[[int, int, int, int], tuple[int, ...]]] = {
    "point": lambda c, y, x, size: (c, y, x),
    "row": lambda c, y, x, size: (c, y),
    "channel": lambda c, y, x, size: (c,),
    "block": lambda c, y, x, size: (c, y // size, x // size),
    "across_channels": lambda c, y, x, size: (y, x),
}


def slow_groups(fault: OutputPattern, shape: tuple[int, int, int]) -> set[frozenset[int]]:
    groups: dict[tuple[int, ...], set[int]] = {}
    for element, place in enumerate(itertools.product(*map(range, shape))):
        groups.setdefault(COMMON[fault.shape](*place, fault.size), set()).add(element)
    return {frozenset(group) for group in groups.values()}


def groups(fault: OutputPattern, shape: tuple[int, ...]) -> list[frozenset[int]]:
    count = groups_of(fault, shape)
    element, owner = members_of(fault, np.arange(count), shape)
    return [frozenset(element[owner == group].tolist()) for group in range(count)]


@pytest.mark.parametrize("shape", SHAPES)
@given(sizes=st.tuples(*[st.integers(1, 7)] * 3), size=st.integers(1, 9))
def test_groups_are_disjoint_cut_at_the_edges_and_cover_the_output(
    shape: str, sizes: tuple[int, int, int], size: int
) -> None:
    fault = OutputPattern(0.1, shape=shape, size=size)  # type: ignore[arg-type]
    found = groups(fault, sizes)
    assert len(set(found)) == len(found)
    assert set(found) == slow_groups(fault, sizes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("given_shape", "meant"), [((5,), (5, 1, 1)), ((3, 8), (3, 1, 8))])
def test_a_vector_is_channels_of_one_value_and_a_sequence_rows(
    shape: str, given_shape: tuple[int, ...], meant: tuple[int, int, int]
) -> None:
    fault = OutputPattern(0.1, shape=shape, size=3)  # type: ignore[arg-type]
    assert set(groups(fault, given_shape)) == slow_groups(fault, meant)


def test_an_output_of_four_dimensions_is_refused() -> None:
    with pytest.raises(FaultError, match=r"pattern needs outputs of 1 to 3 dimensions, got \(2, 3, 4, 5\)"):
        plan(OutputPattern(0.1), site((2, 3, 4, 5)))


def pattern(shape: str, value: str = "in_range", rate: float = 0.05) -> OutputPattern:
    return OutputPattern(rate, shape=shape, value=value, size=4)  # type: ignore[arg-type]


def failed_groups(fault: OutputPattern, planned: SitePlan) -> list[np.ndarray]:
    """Return the positions among ``planned`` of each group that failed; fails where one is not whole."""
    values = int(np.prod(MAP))
    known = {element: group for group in slow_groups(fault, MAP) for element in group}
    places: dict[tuple[int, frozenset[int]], list[int]] = {}
    for place, (image, element) in enumerate(np.stack(np.divmod(planned.events.element, values), 1).tolist()):
        places.setdefault((image, known[element]), []).append(place)
    assert all(len(found) == len(group) for (_, group), found in places.items())
    return [np.array(found) for found in places.values()]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("value", VALUES)
def test_whole_groups_fail_at_the_rate(shape: str, value: str) -> None:
    fault = pattern(shape, value)
    failed = failed_groups(fault, plan(fault, site(MAP), images=range(0, 256)))
    assert stats.binomtest(len(failed), 256 * len(slow_groups(fault, MAP)), 0.05).pvalue > SURELY


@pytest.mark.parametrize("shape", SHAPES)
def test_all_values_of_a_group_flip_the_same_bit(shape: str) -> None:
    fault = pattern(shape, "flip", 0.2)
    planned = plan(fault, site(MAP))
    bits = [BIT[planned.events.what[group]] for group in failed_groups(fault, planned)]
    assert all(len(set(group.tolist())) == 1 for group in bits)
    counts = np.bincount([int(group[0]) for group in bits])
    assert len(counts) == 8
    assert stats.chisquare(counts).pvalue > SURELY


def new_codes(fault: OutputPattern, number: FixedPoint) -> np.ndarray:
    """Return what the failed ones among values of code 1 become."""
    events = plan(fault, site(MAP, bits=number.bits)).events
    events = events._replace(element=np.arange(len(events.element)))
    return np.array(applied([1] * len(events.element), fault, events, number))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("number", [FixedPoint(4, 0.5), FixedPoint(5, 0.5, signed=False)], ids=["signed", "unsigned"])
def test_values_in_range_are_uniform_over_the_codes(shape: str, number: FixedPoint) -> None:
    counts = np.bincount(new_codes(pattern(shape), number) - number.low)
    assert len(counts) == 2**number.bits
    assert stats.chisquare(counts).pvalue > SURELY


@pytest.mark.parametrize("shape", SHAPES)
def test_values_of_a_group_in_range_are_their_own(shape: str) -> None:
    fault = pattern(shape, rate=0.2)
    planned = plan(fault, site(MAP))
    large = [group for group in failed_groups(fault, planned) if len(group) >= 6]
    assert all(len(set(planned.events.amount[group].tolist())) > len(group) // 2 for group in large)
    assert large or shape == "point"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("number", [FixedPoint(8, 0.5), FixedPoint(8, 0.5, signed=False)], ids=["signed", "unsigned"])
def test_values_out_of_range_are_either_end_equally_often(shape: str, number: FixedPoint) -> None:
    new = new_codes(pattern(shape, "out_of_range"), number)
    high = int((new == number.high).sum())
    assert high + int((new == number.low).sum()) == len(new)
    assert stats.binomtest(high, len(new), 0.5).pvalue > SURELY


@pytest.mark.parametrize("shape", SHAPES)
def test_values_of_zero_are_zero(shape: str) -> None:
    assert set(new_codes(pattern(shape, "zero"), FixedPoint(8, 0.5)).tolist()) == {0}


def test_a_pattern_reads_as_text() -> None:
    assert parse_fault("features.pattern:1e-3:shape=block:value=zero:size=2") == OutputPattern(1e-3, "block", "zero", 2)
