"""Which of N positions fail: the first arrivals of a Poisson process, exact from 1e-9 to 1.

Every position owns a clock that rings after an Exp(1) time, and fails at rate ``p`` when it has rung by
``-log(1 - p)``. All clocks together are one Poisson process of rate N whose arrivals hit uniform positions, so only
the arrivals are drawn, never N values. What has failed at a low rate has failed at every higher one, with the same
attributes, because a rate only says where the one stream of arrivals is cut.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]

# Arrivals are drawn in chunks of 64, 128, ... 4096, whatever the rate is: at most twice as many as asked for.
FIRST_CHUNK = 64
GROWING = 6  # chunks, each twice as large as the one before
LARGEST_CHUNK = FIRST_CHUNK << GROWING
# Past this time one draw for every position is cheaper than more arrivals (measured: 20 ns against 40 ns).
SPARSE_UNTIL = 0.5
DENSE_CHUNK = 2**18
FEW = 256


class Hits(NamedTuple):
    """Failing positions, ascending and distinct ``[k]``, each with a mark uniform in [0, 1) ``[k]``.

    A mark decides the attributes of a hit (which bit, which sign). It has 53 - log2(N) random bits.
    """

    position: Integers
    mark: Reals


NONE = Hits(np.empty(0, np.int64), np.empty(0, np.float64))


def failure_time(rate: float) -> float:
    """Return the time by which a unit clock has rung with probability ``rate``."""
    return math.inf if rate >= 1 else -math.log1p(-rate)


def draw_hits(population: int, time: float, stream: Callable[[str], torch.Generator]) -> Hits:
    """Draw the positions in ``[0, population)`` whose clock rings by ``time``.

    Args:
        population: how many positions there are.
        time: ``failure_time(rate)``, or M times that where M parts must all survive.
        stream: returns a fresh generator, seeded the same each time, for ``"arrivals"`` and for ``"rest"``.
    """
    if population == 0 or time <= 0:
        return NONE
    place = _arrivals(population, min(time, SPARSE_UNTIL), stream("arrivals"))
    hits = _earliest(place) if len(place) else NONE
    return hits if time <= SPARSE_UNTIL else _with_rest(hits, population, time - SPARSE_UNTIL, stream("rest"))


def _arrivals(population: int, time: float, generator: torch.Generator) -> Reals:
    """Return the arrivals up to ``time`` in order, as places in ``[0, population)``; the fraction is the mark."""
    left, chunks = time * population, 0
    parts: list[Reals] = []
    while True:
        first, chunks = chunks, _enough_chunks(chunks, left)
        clock, place = _draw_chunks(first, chunks, generator)
        # Runs backwards from 0, as u and 1 - u are alike. Torch adds in the same order as numpy, and 4 times faster.
        clock = torch.from_numpy(np.log(clock, out=clock)).cumsum(0).numpy()
        count = len(clock) if clock[-1] >= -left else int(np.count_nonzero(clock >= -left))
        parts.append(place[:count] * population)
        if count < len(clock):
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        left += float(clock[-1])


def _enough_chunks(first: int, expected: float) -> int:
    """Return up to which chunk, from ``first`` on, there are hardly ever too few for a Poisson number of that mean."""
    missing = expected + 3 * math.sqrt(expected) + 1
    chunks = first
    while missing > 0 and chunks < GROWING:
        missing -= FIRST_CHUNK << chunks
        chunks += 1
    return chunks + max(0, math.ceil(missing / LARGEST_CHUNK))


def _draw_chunks(first: int, last: int, generator: torch.Generator) -> tuple[Reals, Reals]:
    """Return the uniform numbers of clocks and of places of the chunks from ``first`` up to, without it, ``last``.

    One draw numbers them no differently from one for each chunk.
    """
    clocks, places = _halves(first, last)
    uniform = torch.rand(places[-1].stop, dtype=torch.float64, generator=generator).numpy()
    if len(clocks) == 1:
        return uniform[clocks[0]], uniform[places[0]]
    return np.concatenate([uniform[part] for part in clocks]), np.concatenate([uniform[part] for part in places])


@lru_cache(maxsize=1024)
def _halves(first: int, last: int) -> tuple[list[slice], list[slice]]:
    """Return where in the stream the clocks of each chunk are, and where its places."""
    sizes = [FIRST_CHUNK << min(chunk, GROWING) for chunk in range(first, last) for _ in range(2)]
    ends = itertools.accumulate(sizes)
    halves = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    return halves[::2], halves[1::2]


def _earliest(place: Reals) -> Hits:
    """Return the hits of ``place``, sorted; where a position was hit twice the first arrival counts."""
    position, order = _sorted_stably(place.astype(np.int64))
    differs = position[1:] != position[:-1]
    if not differs.all():
        first = np.flatnonzero(np.append(True, differs))
        position, order = position[first], order[first]
    return Hits(position, place[order] - position)


def _sorted_stably(position: Integers) -> tuple[Integers, Integers]:
    """Return ``position`` sorted, and where each was; many are sorted fastest as (position, index) in 63 bits."""
    shift = len(position).bit_length()
    if len(position) < FEW or int(position.max()).bit_length() + shift > 63:
        order = np.argsort(position, kind="stable")
        return position[order], order
    position <<= shift
    position |= np.arange(len(position))
    position.sort()
    return position >> shift, position & ((1 << shift) - 1)


def _with_rest(hits: Hits, population: int, time: float, generator: torch.Generator) -> Hits:
    """Add to ``hits`` the positions that ring in the ``time`` after them, by one draw for every position."""
    failed, mark = np.empty(population, np.bool_), np.empty(population, np.float64)
    threshold = -math.expm1(-time)
    for start in range(0, population, DENSE_CHUNK):
        size = min(DENSE_CHUNK, population - start)
        uniform = torch.rand(2, size, dtype=torch.float64, generator=generator).numpy()
        failed[start : start + size] = uniform[0] < threshold
        mark[start : start + size] = uniform[1]
    failed[hits.position], mark[hits.position] = True, hits.mark
    position = np.flatnonzero(failed)
    return Hits(position, mark[position])


def mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return ``x`` with every bit depending on every bit (SplitMix64's finaliser, Steele et al., OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixture: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixture
