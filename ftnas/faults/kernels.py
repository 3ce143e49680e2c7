"""Loops over faults, compiled to machine code by Numba: numpy would walk over the same arrays dozens of times.

All of them stand in this file, as Numba's cache takes a function's code for unchanged when the function's own file is,
whatever it calls. Indices count from slices, as one that may be negative keeps the compiler from doing many at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from ftnas.faults.events import Integers, Words

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

Reals = NDArray[np.float64]
State = NDArray[np.uint32]

# How numbers that change one code become one.
AND, OR, XOR, ADD = range(4)

# How numbers change a code: three say what it keeps, what is set in it and what flips then; one, what flips; or one,
# what is added before it saturates.
MASKS, FLIPS, SUM = range(3)

# Arrivals are drawn in chunks of 64, 128, ... 4096, whatever the rate is: at most twice as many as asked for.
FIRST_CHUNK = 64
LARGEST_CHUNK = 4096

# MT19937 has 624 words, two of which make a float64.
_WORDS, _MIDDLE = 624, 397
_BEYOND, _PAIRS = _WORDS - _MIDDLE, _WORDS // 2
_WORD = np.uint32


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return ``function``, compiled when it is first called, once for each machine; other threads run meanwhile.

    The machine code is kept beside this file, or in the user's cache folder; where neither can be written, each process
    compiles for itself.
    """
    try:
        kept = numba.njit(function, nogil=True, cache=True)
    except RuntimeError:  # no folder for the cache
        kept = numba.njit(function, nogil=True)
    return cast(Callable[Arguments, Result], kept)


@compiled
def _seeded(seed: int) -> State:
    """Return the state of MT19937 that ``torch.Generator().manual_seed(seed)`` has: of 32 bits of the seed."""
    state = np.empty(_WORDS, np.uint32)
    word = _WORD(seed & 0xFFFFFFFF)
    state[0] = word
    for i in range(1, _WORDS):
        word = _WORD(np.uint64(1812433253) * np.uint64(word ^ (word >> _WORD(30))) + np.uint64(i))
        state[i] = word
    return state


@compiled
def _twisted(upper: np.uint32, lower: np.uint32) -> np.uint32:
    word = (upper & _WORD(0x80000000)) | (lower & _WORD(0x7FFFFFFF))
    return (word >> _WORD(1)) ^ ((_WORD(0) - (lower & _WORD(1))) & _WORD(0x9908B0DF))


@compiled
def _twist_(state: State) -> None:
    """Replace all words, in pieces none of which reads what it writes."""
    for i in range(_BEYOND):
        state[i] = state[i + _MIDDLE] ^ _twisted(state[i], state[i + 1])
    for i in range(_BEYOND, 2 * _BEYOND):
        state[i] = state[i - _BEYOND] ^ _twisted(state[i], state[i + 1])
    for i in range(2 * _BEYOND, _WORDS - 1):
        state[i] = state[i - _BEYOND] ^ _twisted(state[i], state[i + 1])
    state[_WORDS - 1] = state[_MIDDLE - 1] ^ _twisted(state[_WORDS - 1], state[0])


@compiled
def _tempered(word: np.uint32) -> np.uint32:
    word ^= word >> _WORD(11)
    word ^= (word << _WORD(7)) & _WORD(0x9D2C5680)
    word ^= (word << _WORD(15)) & _WORD(0xEFC60000)
    return word ^ (word >> _WORD(18))


@compiled
def _fill_(numbers: Reals, state: State, used: int) -> int:
    """Fill ``numbers`` with the next float64 of ``torch.rand``, five times as fast as it does.

    MT19937: Matsumoto and Nishimura, TOMACS 8(1), 1998; multiples of 2^-53 in [0, 1).

    Args:
        numbers: to fill.
        state: of the generator, which moves on.
        used: how many pairs of its words have been, all of them in the beginning.

    Returns:
        How many have been used now.
    """
    done, size = 0, len(numbers)
    while done < size:
        if used == _PAIRS:
            _twist_(state)
            used = 0
        count = min(_PAIRS - used, size - done)
        words, filled = state[2 * used : 2 * (used + count)], numbers[done : done + count]
        for i in range(count):
            bits = (np.uint64(_tempered(words[2 * i])) << np.uint64(32)) | np.uint64(_tempered(words[2 * i + 1]))
            filled[i] = np.int64(bits & np.uint64((1 << 53) - 1)) * 2.0**-53
        done, used = done + count, used + count
    return used


@compiled
def draw_arrivals(seed: int, population: float, time: float) -> Reals:
    """Return the arrivals of a Poisson process of rate ``population`` up to ``time``, in order ``[k]``.

    Each is a place uniform in ``[0, population)``: the position it hits, and as fraction its mark. Of the numbers that
    ``torch.rand`` draws after ``manual_seed(seed)`` each chunk takes first those of its intervals, then of its places.
    """
    state, used = _seeded(seed), _PAIRS
    left = time * population
    places = np.empty(int(left + 6 * math.sqrt(left)) + 2 * FIRST_CHUNK)
    intervals, count, chunk = np.empty(LARGEST_CHUNK), 0, FIRST_CHUNK
    while True:
        used = _fill_(intervals[:chunk], state, used)
        rung, left = _rung(intervals[:chunk], left)
        if count + chunk > len(places):
            longer = np.empty(2 * len(places) + chunk)
            longer[:count] = places[:count]
            places = longer
        used = _fill_(places[count : count + chunk], state, used)
        places[count : count + rung] *= population
        count += rung
        if rung < chunk:
            return places[:count]
        chunk = min(2 * chunk, LARGEST_CHUNK)


@compiled
def _rung(intervals: Reals, left: float) -> tuple[int, float]:
    """Return how many of the next ``intervals`` fit into the time ``left``, and what is left after them.

    Each is ``-log(u)``, as u and 1 - u are alike; their number is a multiple of 64. As long as they fit, 64 of them
    have one logarithm, that of the product of their u (1e-28 as a rule, and never trusted below 1e-300).
    """
    for first in range(0, len(intervals), 64):
        product = 1.0
        for start in range(first, first + 64, 8):
            u = intervals[start : start + 8]
            product *= (u[0] * u[1]) * (u[2] * u[3]) * ((u[4] * u[5]) * (u[6] * u[7]))
        after = left + math.log(product) if product > 1e-300 else -math.inf
        if after >= 0:
            left = after
            continue
        for i in range(first, first + 64):
            left = left + math.log(intervals[i]) if intervals[i] > 0 else -math.inf
            if left < 0:
                return i, left
    return len(intervals), left


@compiled
def draw_keys(seed: int, population: float, time: float) -> tuple[Integers, Reals, int]:
    """Return keys of ``draw_arrivals``, the arrivals, and how many bits of a key are an arrival's index.

    The bits above are its position. So sorted keys have ascending positions, and of one hit twice the first arrival is
    ahead.
    """
    places = draw_arrivals(seed, population, time)
    keys, shift = np.empty(len(places), np.int64), 0
    while len(places) >> shift:
        shift += 1
    for i in range(len(places)):
        keys[i] = (np.int64(places[i]) << shift) | i
    return keys, places, shift


@compiled
def earliest(keys: Integers, places: Reals, shift: int) -> tuple[Integers, Reals]:
    """Return the positions ``[k]`` of sorted ``keys``, each once, and the mark of the first arrival there ``[k]``."""
    positions, marks = np.empty(len(keys), np.int64), np.empty(len(keys))
    count, last, mask = 0, np.int64(-1), (np.int64(1) << shift) - 1
    for key in keys:
        position = key >> shift
        if position != last:
            positions[count], marks[count] = position, places[key & mask] - position
            count, last = count + 1, position
    return positions[:count], marks[:count]


@compiled
def _checked(offset: int, size: int) -> int:
    """Return ``offset`` if so many values are there: compiled loops would read and write beyond them."""
    if not 0 <= offset < size:
        raise IndexError("a fault lies beyond what it hits")
    return offset


@compiled
def looked_up(table: Words, what: NDArray[np.uint16]) -> Words:
    """Return the columns ``[n, k]`` of ``table`` ``[n, m]`` that ``what`` ``[k]`` asks for."""
    rows, size = len(table), len(what)
    numbers = np.empty((rows, size), np.int32)
    for row in range(rows):
        values, found = table[row], numbers[row]
        for i in range(size):
            found[i] = values[_checked(what[i], len(values))]
    return numbers


@compiled
def joined_numbers(elements: Integers, numbers: Words, joins: Words) -> tuple[Integers, Words]:
    """Return ascending ``elements`` ``[k]`` each once, and what their ``numbers`` ``[n, k]`` come to together.

    Args:
        elements: ascending.
        numbers: of each element.
        joins: ``[n]``, by what the numbers of a row that belong to one element become one: ``AND``, ``OR``, ``XOR`` or
            ``ADD``.
    """
    rows, size = numbers.shape
    once, together = np.empty(size, np.int64), np.empty((rows, size), np.int32)
    count, last = -1, np.int64(-1)
    for i in range(size):
        if elements[i] != last:
            last = elements[i]
            count += 1
            once[count] = last
    for row in range(rows):
        count, last, join, row_numbers, row_together = -1, np.int64(-1), joins[row], numbers[row], together[row]
        for i in range(size):
            if elements[i] != last:
                last = elements[i]
                count += 1
                row_together[count] = row_numbers[i]
            elif join == AND:
                row_together[count] &= row_numbers[i]
            elif join == OR:
                row_together[count] |= row_numbers[i]
            elif join == XOR:
                row_together[count] ^= row_numbers[i]
            else:
                row_together[count] += row_numbers[i]
    return once[: count + 1], together[:, : count + 1].copy()


@compiled
def storage_offsets(elements: Integers, sizes: Integers, exponents: Integers, strides: Integers) -> Integers:
    """Return where in memory, from its start, the logical ``elements`` ``[k]`` of a tensor of some dimensions lie.

    A division takes as long as all the rest, so ``exponents`` holds those of sizes that are powers of two, or -1.
    """
    offsets, rests = np.zeros(len(elements), np.int64), elements.copy()
    for dimension in range(len(sizes) - 1, 0, -1):
        size, exponent, stride = sizes[dimension], exponents[dimension], strides[dimension]
        for i in range(len(elements)):
            above = rests[i]
            rests[i] = above >> exponent if exponent >= 0 else above // size
            offsets[i] += (above - rests[i] * size) * stride
    offsets += rests * strides[0]
    return offsets


@compiled
def _masked(code: np.int32, numbers: Words, i: int) -> np.int32:
    masked: np.int32 = ((code & numbers[0, i]) | numbers[1, i]) ^ numbers[2, i]
    return masked


@compiled
def change_codes_(
    values: NDArray[np.float32],
    offsets: Integers,
    numbers: Words,
    change: int,
    scale: float,
    low: int,
    high: int,
) -> int:
    """Change the codes of some ``values`` of a fixed-point format with one scale, and return how many are now another.

    Args:
        values: flat; changed in place.
        offsets: of the values to change ``[k]``.
        numbers: ``[n, k]``, of each value.
        change: how they change its code: ``MASKS``, ``FLIPS`` or ``SUM``.
        scale: of the format.
        low: the smallest code.
        high: the largest code.

    Raises:
        IndexError: an offset lies beyond the values.
    """
    changed, step = 0, np.float32(scale)
    smallest, largest = np.float32(low), np.float32(high)
    for i in range(len(offsets)):
        place = _checked(offsets[i], len(values))
        steps = values[place] / step
        # The NaN of a diverged net has no code; it gets the lowest.
        steps = min(steps if steps > smallest else smallest, largest)
        code = np.int32(np.rint(steps))
        if change == MASKS:
            faulty = _masked(code, numbers, i)
        elif change == FLIPS:
            faulty = code ^ numbers[0, i]
        else:
            faulty = np.int32(min(max(code + numbers[0, i], low), high))
        values[place] = np.float32(faulty) * step
        changed += faulty != code
    return changed


@compiled
def change_words_(words: Words, offsets: Integers, numbers: Words, change: int) -> int:
    """Change some ``words``, the bits of float32 values, by ``MASKS`` or ``FLIPS``, as ``change_codes_`` does codes."""
    changed = 0
    for i in range(len(offsets)):
        place = _checked(offsets[i], len(words))
        word = words[place]
        faulty = _masked(word, numbers, i) if change == MASKS else word ^ numbers[0, i]
        words[place] = faulty
        changed += faulty != word
    return changed
