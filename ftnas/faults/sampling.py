"""Which of N positions fail: the first arrivals of a Poisson process, exact from 1e-9 to 1.

Every position owns a clock that rings after an Exp(1) time, and fails at rate ``p`` when it has rung by
``-log(1 - p)``. All clocks together are one Poisson process of rate N whose arrivals hit uniform positions, so only
the arrivals are drawn, never N values. What has failed at a low rate has failed at every higher one, with the same
attributes, because a rate only says where the one stream of arrivals is cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ftnas.errors import FaultError
from ftnas.faults.events import Integers
from ftnas.faults.kernels import Reals, draw_keys, earliest
from ftnas.runtime import key_seed, keyed_generator

# Past this time one draw for every position takes over. Chips depend on when, so it stays, though arrivals cost less by
# now than when it was chosen (6 ns against 20 ns a position).
SPARSE_UNTIL = 0.5
DENSE_CHUNK = 2**18


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


def draw_hits(population: int, time: float, key: Sequence[str | int]) -> Hits:
    """Draw the positions in ``[0, population)`` whose clock rings by ``time``.

    Args:
        population: how many positions there are.
        time: ``failure_time(rate)``, or M times that where M parts must all survive.
        key: of the streams, which ``"arrivals"`` or ``"rest"`` is added to.
    """
    if population == 0 or time <= 0:
        return NONE
    hits = _draw_earliest(population, min(time, SPARSE_UNTIL), key_seed(*key, "arrivals"))
    if time <= SPARSE_UNTIL:
        return hits
    return _with_rest(hits, population, time - SPARSE_UNTIL, keyed_generator(*key, "rest"))


def _draw_earliest(population: int, time: float, seed: int) -> Hits:
    """Draw the hits up to ``time``, sorted; where a position is hit twice the first arrival counts."""
    keys, places, shift = draw_keys(seed, float(population), time)
    if population.bit_length() + shift > 63:
        raise FaultError(f"{population} parts of one tensor are too many to draw {len(places)} failing ones of them")
    keys.sort()
    return Hits(*earliest(keys, places, shift))


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
