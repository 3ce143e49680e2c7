"""Which of N positions fail: the first arrivals of a Poisson process, exact from 1e-9 to 1.

Every position owns a clock that rings after an Exp(1) time, and fails at rate ``p`` when it has rung by
``-log(1 - p)``. All clocks together are one Poisson process of rate N whose arrivals hit uniform positions, so only
the arrivals are drawn, never N values. What has failed at a low rate has failed at every higher one, with the same
attributes, because a rate only says where the one stream of arrivals is cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]

# Arrivals are drawn in chunks of 64, 128, ... 4096, whatever the rate is: at most twice as many as asked for.
FIRST_CHUNK = 64
LARGEST_CHUNK = 2**12
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
    parts = list(_arrivals(population, min(time, SPARSE_UNTIL), stream("arrivals")))
    hits = _earliest(parts[0] if len(parts) == 1 else np.concatenate(parts)) if parts else NONE
    return hits if time <= SPARSE_UNTIL else _with_rest(hits, population, time - SPARSE_UNTIL, stream("rest"))


def _arrivals(population: int, time: float, generator: torch.Generator) -> Iterator[Reals]:
    """Yield the arrivals up to ``time`` in order, as places in ``[0, population)``; the fraction is the mark."""
    left, size = time * population, FIRST_CHUNK
    while True:
        # Several of the largest chunks in one draw, which numbers them no differently.
        chunks = max(1, int(left / LARGEST_CHUNK)) if size == LARGEST_CHUNK else 1
        uniform = torch.rand(chunks, 2, size, dtype=torch.float64, generator=generator).numpy()
        clock = np.log(uniform[:, 0]).reshape(-1).cumsum()  # runs backwards from 0; u and 1 - u are alike
        count = len(clock) if clock[-1] >= -left else int(np.count_nonzero(clock >= -left))
        if count:
            yield uniform[:, 1].reshape(-1)[:count] * population
        if count < len(clock):
            return
        left, size = left + float(clock[-1]), min(2 * size, LARGEST_CHUNK)


def _earliest(place: Reals) -> Hits:
    """Return the hits of ``place``, sorted; where a position was hit twice the first arrival counts."""
    position = place.astype(np.int64)
    order = _stable_order(position)
    position = position[order]
    differs = position[1:] != position[:-1]
    if not differs.all():
        first = np.flatnonzero(np.concatenate(([True], differs)))
        position, order = position[first], order[first]
    return Hits(position, place[order] - position)


def _stable_order(position: Integers) -> Integers:
    """Return the stable sorting order; many are sorted 15 times faster as (position, index) packed in 63 bits."""
    shift = len(position).bit_length()
    if len(position) < FEW or int(position.max()).bit_length() + shift > 63:
        return np.argsort(position, kind="stable")
    packed = (position << shift) | np.arange(len(position))
    packed.sort()
    return packed & ((1 << shift) - 1)


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
