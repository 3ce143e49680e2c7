"""How many faults or chips a wanted margin takes, before and after a pilot.

The count is of independent units, faults or chips: images seen by one fault are not independent trials, so they do
not count here. A margin is the half width of the interval, in the unit of the share (0.01 is one point).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import ndtri

from ftnas.errors import CampaignError

CONFIDENCE = 0.95


def sample_size(
    margin: float,
    *,
    confidence: float = CONFIDENCE,
    population: int | None = None,
    share: float = 0.5,
    quantile: float | None = None,
) -> int:
    """Return how many units of 0 or 1 give a share to within ``margin`` (Leveugle et al., DATE 2009).

    n = n0 / (1 + (n0 - 1) / N) with n0 = t^2 p (1 - p) / e^2.

    Args:
        margin: e, the half width of the interval, in (0, 1).
        confidence: of the two-sided interval.
        population: N, how many units there are; None for no end.
        share: p, the share expected; 0.5 asks for most.
        quantile: t, where the exact one of ``confidence`` is not wanted. Published tables round it to 1.96 (95 %)
            and 2.576 (99 %), which gives 16,590 instead of 16,588 at one point and 99 %.

    Raises:
        CampaignError: an argument is out of its range.
    """
    check_open("margin", margin)
    check_open("share", share)
    t = normal_quantile(confidence) if quantile is None else quantile
    return _within(t * t * share * (1 - share) / margin**2, population)


def relative_sample_size(
    relative_margin: float, *, share: float, confidence: float = CONFIDENCE, population: int | None = None
) -> int:
    """Return how many units of 0 or 1 give ``share`` to within ``relative_margin`` times itself.

    n0 = t^2 (1 - p) / (r^2 p). For rare outcomes this, not the absolute margin, is the question: one point says
    nothing of a share of 0.07 %.

    Raises:
        CampaignError: an argument is out of its range.
    """
    check_open("relative_margin", relative_margin)
    check_open("share", share)
    t = normal_quantile(confidence)
    return _within(t * t * (1 - share) / (relative_margin**2 * share), population)


def units_needed(
    margin: float, *, deviation: float, confidence: float = CONFIDENCE, population: int | None = None
) -> int:
    """Return how many units of standard deviation ``deviation``, from a pilot, give their mean to within ``margin``.

    At least two, since one has no spread.

    Raises:
        CampaignError: an argument is out of its range.
    """
    check_positive("margin", margin)
    if not 0 <= deviation < math.inf:
        raise CampaignError(f"deviation: {deviation} is not a standard deviation; allowed is 0 or more")
    return max(2, _within((normal_quantile(confidence) * deviation / margin) ** 2, population))


def stratified_sample_size(
    margin: float, *, sizes: Sequence[int], deviations: Sequence[float], confidence: float = CONFIDENCE
) -> int:
    """Return how many units, shared out among the strata by ``neyman``, give the mean of all to within ``margin``.

    n = (sum W s)^2 / (e^2 / t^2 + sum W s^2 / N), Cochran, Sampling Techniques, 3rd edition, 5.9.

    Args:
        margin: e, the half width of the interval.
        sizes: how many units each stratum has.
        deviations: s, of the units of each stratum, from a pilot.
        confidence: of the two-sided interval.

    Raises:
        CampaignError: an argument is out of its range.
    """
    check_positive("margin", margin)
    total = sum(sizes)
    pairs = list(zip(sizes, deviations, strict=True))
    first = sum(size * deviation for size, deviation in pairs) / total
    second = sum(size * deviation**2 for size, deviation in pairs) / total
    return min(total, _up(first**2 / ((margin / normal_quantile(confidence)) ** 2 + second / total)))


def zero_event_bound(n: int, confidence: float = CONFIDENCE, population: int | None = None) -> float:
    """Return the largest share that ``n`` units without an event leave possible: 1 - (1 - c)^(1/n), about 3/n.

    Of a finite population, that share of what N - (n - 1)/2 stands for, which is never too small (Cannon and Roe
    1982; it holds because the log of 1 - M/x is concave in x), and nothing once all units were seen.

    Raises:
        CampaignError: an argument is out of its range.
    """
    check_count(n, population)
    share = -math.expm1(math.log1p(-check_open("confidence", confidence)) / n)
    if population is None:
        return share
    return min(share * (population - (n - 1) / 2), population - n) / population


def normal_quantile(confidence: float) -> float:
    """Return t with a standard normal within plus or minus t with probability ``confidence``."""
    return -float(ndtri((1 - check_open("confidence", confidence)) / 2))


def check_open(name: str, value: float) -> float:
    """Return ``value``, which must lie in (0, 1)."""
    if not 0 < value < 1:
        raise CampaignError(f"{name}: {value} is out of range; allowed is more than 0 and less than 1")
    return value


def check_positive(name: str, value: float) -> float:
    """Return ``value``, which must be positive and finite."""
    if not 0 < value < math.inf:
        raise CampaignError(f"{name}: {value} is out of range; allowed is more than 0")
    return value


def check_count(n: int, population: int | None) -> None:
    """Refuse ``n`` units of a population that has none or fewer."""
    if n < 1:
        raise CampaignError(f"n: {n} units say nothing; allowed is 1 or more")
    if population is not None and n > population:
        raise CampaignError(f"n: {n} units of a population of {population}; allowed is at most all of it")


def _within(unlimited: float, population: int | None) -> int:
    """Return the units that a population of this size takes where one without end takes ``unlimited``."""
    if population is None:
        return max(1, _up(unlimited))
    if population < 1:
        raise CampaignError(f"population: {population} units; allowed is 1 or more")
    return min(population, max(1, _up(unlimited / (1 + (unlimited - 1) / population))))


def _up(n: float) -> int:
    """Round up, but for rounding errors: 9604.000000000002 is 9604."""
    return math.ceil(n * (1 - 1e-12))
