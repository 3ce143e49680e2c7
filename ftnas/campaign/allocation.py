"""How many units each stratum gets: exact integers, the same every time, and never fewer when the total grows.

Both ways hand units out one by one, each to the stratum where it takes most off the variance, which is the exact
integer optimum (Wright, The American Statistician 2012) and, unlike rounding n_h = n N_h s_h / sum(N s), never takes
a unit back: what was injected for a smaller total is part of every larger one.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ftnas.campaign.moments import moments_of
from ftnas.errors import CampaignError

FLOOR = 2  # one unit has no spread, so no interval
LENT = 3  # degrees of freedom that a stratum's deviation borrows from all strata
BISECTIONS = 200

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]


def proportional(sizes: Sequence[int], n: int, floor: int = FLOOR) -> tuple[int, ...]:
    """Share ``n`` units out in proportion to ``sizes``; each stratum gets ``floor`` of them, or all it has.

    Raises:
        CampaignError: ``n`` is more than there are, or too few for the floor.
    """
    return neyman(sizes, [1.0] * len(sizes), n, floor)


def neyman(sizes: Sequence[int], deviations: Sequence[float], n: int, floor: int = FLOOR) -> tuple[int, ...]:
    """Share ``n`` units out so that the mean over all strata varies least (Neyman 1934: n_h as N_h s_h).

    Args:
        sizes: N_h, how many units each stratum has.
        deviations: s_h, the standard deviation within each, from a pilot (see ``pilot_deviations``).
        n: how many units there are to give.
        floor: what each stratum gets at least, or all it has where that is less.

    Raises:
        CampaignError: ``n`` is more than there are, or too few for the floor.
    """
    capacity = np.asarray(sizes, np.int64)
    least = np.minimum(capacity, floor)
    _check(capacity, np.asarray(deviations, np.float64), least, n)
    weight: Reals = capacity.astype(np.float64) * np.asarray(deviations, np.float64)
    if not weight.any():
        weight = capacity.astype(np.float64)  # no stratum has shown any spread: in proportion to sizes
    return _hand_out(_most_of(n, weight, least, capacity), n, weight, capacity)


def bit_deviations(bits: Sequence[int]) -> tuple[float, ...]:
    """Return deviations of strata by bit, for ``neyman``, before any fault was injected: in proportion to 2^bit.

    A fault of bit b moves an integer by 2^b, and what it does to a net grows about as fast. The true deviations of two
    nets grew by 1.5 to 3.4 a bit from bit 4 on (benchmarks/README.md). Nothing is spent on a pilot, and no unit
    decides how many come after it, so that all of them count.
    """
    return tuple(2.0**bit for bit in bits)


def pilot_deviations(pilots: Sequence[ArrayLike]) -> tuple[float, ...]:
    """Return the standard deviation of each stratum from its pilot's unit means ``[n_h]``, for ``neyman``.

    A few dozen faults of a stratum often show no effect at all. Taken as s = 0, that stratum would get its floor and
    keep it. So each variance, of n - 1 degrees of freedom, is averaged with 3 more of the mean variance of all pilots:
    with 20 to 30 faults a stratum, that came closest to the variance that the true deviations give (measured with
    0, 1, 3, 10, 30 and 100).

    Raises:
        CampaignError: a pilot is empty or holds what is not a number.
    """
    samples = [moments_of(pilot) for pilot in pilots]
    pooled = statistics.fmean(sample.variance for sample in samples) if samples else 0.0
    return tuple(
        math.sqrt(((sample.n - 1) * sample.variance + LENT * pooled) / (sample.n - 1 + LENT)) for sample in samples
    )


def _check(capacity: Integers, deviation: Reals, least: Integers, n: int) -> None:
    if len(capacity) != len(deviation):
        raise CampaignError(f"deviations: {len(deviation)} for {len(capacity)} strata; allowed is one each")
    if not len(capacity) or capacity.min() < 1:
        raise CampaignError(f"sizes: {capacity.tolist()}; allowed is 1 or more each")
    if not np.all(np.isfinite(deviation) & (deviation >= 0)):
        raise CampaignError(f"deviations: {deviation.tolist()}; allowed is 0 or more each")
    if not int(least.sum()) <= n <= int(capacity.sum()):
        raise CampaignError(
            f"n: {n} units for {len(capacity)} strata; allowed is {least.sum()} (the floor of each) to {capacity.sum()}"
        )


def _most_of(n: int, weight: Reals, least: Integers, capacity: Integers) -> Integers:
    """Return the counts after all but the last few of ``n`` units: those of priority above a bisected threshold.

    The j-th unit of a stratum has priority w / sqrt(j (j - 1)), so j (j - 1) < (w / threshold)^2 counts them.
    """

    def counts(threshold: float) -> Integers:
        # Beyond the largest capacity the exact number does not matter, and its square must not overflow.
        reach = np.minimum(weight / threshold, 2.0 * capacity)
        whole: Integers = ((1 + np.sqrt(1 + 4 * reach**2)) / 2).astype(np.int64)
        return whole.clip(least, capacity)

    low, high = 0.0, float(weight.max()) * 2
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if counts(middle).sum() <= n else (middle, high)
    most = counts(high)
    return most if most.sum() <= n else least


def _hand_out(given: Integers, n: int, weight: Reals, capacity: Integers) -> tuple[int, ...]:
    """Give the units still missing one by one; where no spread is left to reduce, by size."""
    result = given.tolist()

    def entry(stratum: int) -> tuple[float, float, int]:
        have = result[stratum]
        scale = math.sqrt(have * (have + 1)) if have else 0.0
        first, second = float(weight[stratum]), float(capacity[stratum])
        return (-first / scale, -second / scale, stratum) if have else (-math.inf, -second, stratum)

    queue = [entry(stratum) for stratum in range(len(result)) if result[stratum] < capacity[stratum]]
    heapq.heapify(queue)
    for _ in range(n - sum(result)):
        stratum = heapq.heappop(queue)[2]
        result[stratum] += 1
        if result[stratum] < capacity[stratum]:
            heapq.heappush(queue, entry(stratum))
    return tuple(result)
