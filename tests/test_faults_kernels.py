"""The compiled loops: what numpy and torch come to in many steps, to the bit."""

from __future__ import annotations

import math
import threading
from functools import reduce

import numba
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ftnas.faults import kernels
from ftnas.faults.applying import storage_offsets
from ftnas.quantization import FixedPoint

SEEDS = st.integers(0, 2**63 - 1)
NUMBERS = st.integers(-(2**31), 2**31 - 1)


def arrivals_by_torch(seed: int, population: int, time: float) -> NDArray[np.float64]:
    """Draw the arrivals one chunk after the other, as ``torch.rand`` numbers them."""
    generator = torch.Generator().manual_seed(seed)
    left, chunk, found = time * population, kernels.FIRST_CHUNK, []
    while True:
        intervals, places = torch.rand(2, chunk, dtype=torch.float64, generator=generator).numpy()
        clock = np.cumsum(-np.log(intervals))
        found.append(places[clock <= left] * population)
        if clock[-1] > left:
            return np.concatenate(found)
        left -= clock[-1]
        chunk = min(2 * chunk, kernels.LARGEST_CHUNK)


@given(seed=SEEDS, population=st.integers(1, 10**6), expected=st.floats(1e-3, 2e4))
def test_arrivals_are_those_of_torch_s_generator(seed: int, population: int, expected: float) -> None:
    time = expected / population
    ours, theirs = kernels.draw_arrivals(seed, float(population), time), arrivals_by_torch(seed, population, time)
    assert np.array_equal(ours, theirs)


@given(
    fitting=st.integers(0, 255), share=st.floats(0.01, 0.99), seed=st.integers(0, 99), power=st.sampled_from([1, 20])
)
def test_as_many_intervals_fit_as_add_up(fitting: int, share: float, seed: int, power: int) -> None:
    intervals = np.random.default_rng(seed).random(256) ** power  # of 64 20th powers the product is 0
    ends = np.cumsum(-np.log(intervals))
    before = ends[fitting - 1] if fitting else 0.0
    rung, _ = kernels._rung(intervals, before + share * (ends[fitting] - before))
    assert rung == fitting


def test_an_interval_without_end_is_the_last() -> None:
    intervals = np.full(128, 0.9)
    intervals[100] = 0.0
    assert kernels._rung(intervals, 1e9) == (100, -math.inf)


@given(st.lists(st.tuples(st.integers(0, 8), NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=40))
def test_numbers_on_one_element_become_one(drawn: list[tuple[int, int, int, int, int]]) -> None:
    drawn.sort(key=lambda event: event[0])
    elements, numbers = np.array([event[0] for event in drawn]), np.array([event[1:] for event in drawn], np.int32).T
    once, together = kernels.joined_numbers(
        elements, numbers.copy(), np.array([kernels.AND, kernels.OR, kernels.XOR, kernels.ADD], np.int32)
    )
    assert once.tolist() == sorted({event[0] for event in drawn})
    joins = (np.bitwise_and, np.bitwise_or, np.bitwise_xor, lambda one, other: (one + other).astype(np.int32))
    with np.errstate(over="ignore"):
        for row, join in enumerate(joins):
            expected = [reduce(join, numbers[row][elements == element][:, None]).item() for element in once]
            assert together[row].tolist() == expected


@given(shape=st.lists(st.integers(1, 7), min_size=1, max_size=5).map(tuple), order=st.randoms(use_true_random=False))
def test_offsets_are_where_the_elements_lie(shape: tuple[int, ...], order: object) -> None:
    dimensions = list(range(len(shape)))
    order.shuffle(dimensions)  # type: ignore[attr-defined]
    there = torch.arange(math.prod(shape)).reshape([shape[d] for d in dimensions])
    values = there.permute([dimensions.index(d) for d in range(len(shape))])  # each holds its offset
    offsets = storage_offsets(np.arange(values.numel()), tuple(values.shape), values.stride())
    assert np.array_equal(offsets, values.reshape(-1).numpy())


def changed(codes: NDArray[np.int32], numbers: NDArray[np.int32], change: int, number: FixedPoint) -> NDArray[np.int32]:
    if change == kernels.MASKS:
        masked: NDArray[np.int32] = ((codes & numbers[0]) | numbers[1]) ^ numbers[2]
        return masked
    return codes ^ numbers[0] if change == kernels.FLIPS else np.clip(codes + numbers[0], number.low, number.high)


@given(
    bits=st.integers(2, 16),
    signed=st.booleans(),
    scale=st.floats(1e-3, 10),
    change=st.sampled_from([kernels.MASKS, kernels.FLIPS, kernels.SUM]),
    seed=st.integers(0, 2**32 - 1),
)
def test_codes_change_as_formats_and_masks_say(bits: int, signed: bool, scale: float, change: int, seed: int) -> None:
    number, rng = FixedPoint(bits, scale, signed), np.random.default_rng(seed)
    values = rng.normal(0, scale * 2**bits / 2, 50).astype(np.float32)  # on the grid, off it, and beyond its ends
    values[:3] = np.nan, np.inf, -np.inf
    offsets = rng.permutation(50)[:30]
    numbers = rng.integers(-(2**bits), 2**bits, (3 if change == kernels.MASKS else 1, 30)).astype(np.int32)
    before = values.copy()
    count = kernels.change_codes_(values, offsets, numbers, change, scale, number.low, number.high)
    codes = number.encode_at(before[offsets])
    faulty = changed(codes, numbers, change, number)
    before[offsets] = number.decode_at(faulty)
    assert np.array_equal(values, before, equal_nan=True)
    assert count == np.count_nonzero(faulty != codes)


@given(change=st.sampled_from([kernels.MASKS, kernels.FLIPS]), seed=st.integers(0, 2**32 - 1))
def test_words_change_as_masks_say(change: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = rng.integers(-(2**31), 2**31, 50).astype(np.int32)
    offsets = rng.permutation(50)[:30]
    numbers = rng.integers(-(2**31), 2**31, (3 if change == kernels.MASKS else 1, 30)).astype(np.int32)
    before = words.copy()
    count = kernels.change_words_(words, offsets, numbers, change)
    faulty = changed(before[offsets], numbers, change, FixedPoint(8, 1.0))
    assert count == np.count_nonzero(faulty != before[offsets])
    before[offsets] = faulty
    assert np.array_equal(words, before)


@pytest.mark.parametrize("beyond", [-1, 50, 2**62])
def test_nothing_beyond_the_values_is_touched(beyond: int) -> None:
    offsets, numbers = np.array([3, beyond]), np.ones((1, 2), np.int32)
    with pytest.raises(IndexError, match="a fault lies beyond what it hits"):
        kernels.change_codes_(np.zeros(50, np.float32), offsets, numbers, kernels.FLIPS, 1.0, -128, 127)
    with pytest.raises(IndexError, match="a fault lies beyond what it hits"):
        kernels.change_words_(np.zeros(50, np.int32), offsets, numbers, kernels.FLIPS)
    with pytest.raises(IndexError, match="a fault lies beyond what it hits"):
        kernels.looked_up(np.zeros((1, 50), np.int32), np.array([3, 50], np.uint16))


def test_threads_that_call_a_loop_at_once_get_what_one_gets() -> None:
    expected = [kernels.draw_arrivals(seed, 1e6, 0.01) for seed in range(8)]
    found: dict[int, NDArray[np.float64]] = {}
    threads = [
        threading.Thread(target=lambda seed=seed: found.update({seed: kernels.draw_arrivals(seed, 1e6, 0.01)}))
        for seed in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[seed], expected[seed]) for seed in range(8))


def test_where_machine_code_cannot_be_kept_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_folder(*_: object, **options: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.core.caching.FunctionCache.__init__", no_folder)
    doubled = kernels.compiled(lambda x: 2 * x)
    assert isinstance(doubled, numba.core.dispatcher.Dispatcher)
    assert doubled(21) == 42
