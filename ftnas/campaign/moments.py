"""What the intervals of ``ftnas.campaign.intervals`` are computed from: moments of means, and bounds without any."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from ftnas.errors import CampaignError

Reals = NDArray[np.float64]
Stratum = tuple[int, ArrayLike]  # size N_h and unit means [n_h]


@dataclass(frozen=True, slots=True)
class Moments:
    """Units of one sample.

    Attributes:
        n: how many.
        mean: of them.
        variance: of the units, with n - 1; 0 exactly where all are equal, and for one.
        third: their third central moment.
    """

    n: int
    mean: float
    variance: float
    third: float


@dataclass(frozen=True, slots=True)
class Part:
    """What one sample adds to the uncertainty of an estimate: variance, third cumulant, degrees of freedom."""

    variance: float
    third: float
    degrees: int


Weighted = tuple[float, Moments, int | None]  # weight of a stratum, its units, its size


def moments_of(unit_means: ArrayLike) -> Moments:
    """Return the moments of ``unit_means`` ``[n]``.

    Raises:
        CampaignError: there is none, or one is not a number.
    """
    units = np.asarray(unit_means, np.float64)
    if units.ndim != 1 or not len(units):
        raise CampaignError(f"unit_means: shape {units.shape}; allowed is one number each of 1 or more units")
    if not np.isfinite(units).all():
        raise CampaignError(f"unit_means: {int((~np.isfinite(units)).sum())} are not finite; allowed are numbers only")
    mean = statistics.fmean(units)
    if np.ptp(units) == 0:  # asked of the ends: rounding gives equal units a variance of 1e-34
        return Moments(len(units), mean, 0.0, 0.0)
    apart = units - mean
    return Moments(len(units), mean, float(apart @ apart) / (len(units) - 1), float((apart**3).mean()))


def part_of(sample: Moments, *, weight: float = 1.0, population: int | None = None) -> Part:
    """Return what ``sample``, weighted, adds; drawn without replacement where there is a population."""
    left = share_left(sample.n, population)
    return Part(
        variance=weight**2 * sample.variance / sample.n * left,
        third=weight**3 * sample.third / sample.n**2 * left**1.5,  # so that the skewness of the mean stays
        degrees=max(1, sample.n - 1),
    )


def share_left(n: int, population: int | None) -> float:
    """Return the share of the population that was not drawn, 1 where it has no end."""
    return 1.0 if population is None else 1 - n / population


def skewed_t(mean: float, parts: Sequence[Part], confidence: float, *, skewed: bool = True) -> tuple[float, float]:
    """Return Student's interval of ``mean``, corrected for the skewness of what it is the mean of.

    T is turned into T + a T^2 + a^2 T^3 / 3 + a / 2, with a a third of the estimate's skewness, which has no skewness
    left to the first order and is monotone, so its quantiles are turned back (Hall, J. R. Statist. Soc. B 1992).
    Degrees of freedom of several parts by Satterthwaite (Biometrics 1946). Without skewness it is Student's t.
    """
    variance = math.fsum(part.variance for part in parts)
    if variance == 0:
        return mean, mean
    error = math.sqrt(variance)
    degrees = 1 / math.fsum((part.variance / variance) ** 2 / part.degrees for part in parts)
    reach = float(stdtrit(degrees, 0.5 + confidence / 2))
    a = math.fsum(part.third for part in parts) / error**3 / 3 if skewed else 0.0
    low, high = mean - error * _turned_back(reach, a), mean - error * _turned_back(-reach, a)
    return min(low, mean), max(high, mean)


def _turned_back(quantile: float, a: float) -> float:
    """Return the T of which Hall's function is ``quantile``."""
    if abs(a) < 1e-9:
        return quantile
    return (math.cbrt(1 + 3 * a * (quantile - a / 2)) - 1) / a


def unseen_reach(samples: Sequence[Weighted], end: float, confidence: float) -> float:
    """Return how far towards ``end`` units unlike any seen can move an estimate whose strata show no spread."""
    gains = [weight * abs(end - sample.mean) for weight, sample, _ in samples]
    # Of N units n are known, so what n drawn say of N they say of N - (n - 1)/2 (see zero_event_bound).
    halves = [1.0 if size is None else 1 - (sample.n - 1) / (2 * size) for _, sample, size in samples]
    unseen = [gain * half for gain, half in zip(gains, halves, strict=True)]
    most = sum(gain * share_left(sample.n, size) for gain, (_, sample, size) in zip(gains, samples, strict=True))
    return min(most, largest_unseen(unseen, [sample.n for _, sample, _ in samples], confidence))


def largest_unseen(gains: Sequence[float], counts: Sequence[int], confidence: float) -> float:
    """Return the most that units unlike any seen can add to an estimate, where each stratum's units were all equal.

    A stratum of which the share u is unlike shows none of it in n units with chance (1 - u)^n. Returned is the largest
    sum of ``gain * u`` over the strata for which all together stay hidden with chance 1 - ``confidence`` or more.

    Args:
        gains: what a stratum adds to the estimate if all its units are unlike, 0 or more each.
        counts: n of each stratum.
        confidence: of the bound.
    """
    largest = max(gains, default=0.0)
    if not largest:
        return 0.0
    from scipy.optimize import brentq  # half a second that few campaigns need

    # Relative to the largest, so that no quotient overflows; what is left out could add 1e-12 of it.
    pairs = [(gain / largest, n) for gain, n in zip(gains, counts, strict=True) if gain > 1e-12 * largest]
    target = math.log1p(-confidence)
    # At the largest sum 1 - u = n / (multiplier * gain), but at most 1; the multiplier sets the chance.
    least = min(n / gain for gain, n in pairs)

    def excess(log_multiplier: float) -> float:
        return math.fsum(n * min(0.0, math.log(n / gain) - log_multiplier) for gain, n in pairs) - target

    # At the far end each stratum alone uses more than the whole chance, so the root lies between.
    far = math.log(max(n / gain for gain, n in pairs)) - target + 1
    multiplier = math.exp(brentq(excess, math.log(least), far, xtol=1e-14))
    return largest * math.fsum(gain * max(0.0, 1 - n / (multiplier * gain)) for gain, n in pairs)


def with_spread(sample: Moments, pooled: float) -> Moments:
    """Return ``sample``, or where its units are all equal, with 1/n of the variance ``pooled``."""
    return sample if sample.variance else Moments(sample.n, sample.mean, pooled / sample.n, 0.0)


def after_pilot(strata: Sequence[Stratum], pilot: Sequence[int]) -> tuple[float, list[tuple[int, Reals]]]:
    """Return the sum of the pilot's unit means, and the size and further units of what it left of each stratum."""
    if not strata or (pilot and len(pilot) != len(strata)):
        raise CampaignError(f"strata: {len(strata)}, with pilots for {len(pilot)}; allowed is 1 or more, a pilot each")
    known, rest = 0.0, []
    for index, ((size, unit_means), first) in enumerate(zip(strata, pilot or [0] * len(strata), strict=True)):
        units = np.asarray(unit_means, np.float64)
        known += math.fsum(units[:first])
        if len(units) <= first < size or not 0 <= first <= size:
            have = f"{len(units)} units of {size}, {first} of them the pilot"
            raise CampaignError(f"strata: number {index} has {have}; allowed is one after the pilot or more")
        if first < size:
            rest.append((size - first, units[first:]))
    return known, rest


def resampled_t(units: Reals, mean: float, generator: np.random.Generator, resamples: int) -> Reals:
    """Return the t of each resample, ascending; units of the same value are drawn together, by their count."""
    values, counts = np.unique(units, return_counts=True)
    n, apart = len(units), values - mean
    drawn = generator.multinomial(n, counts / n, size=resamples)
    means = drawn @ apart / n
    variances = np.maximum(drawn @ apart**2 / n - means**2, 0) * n / (n - 1)
    equal = np.count_nonzero(drawn, axis=1) == 1
    errors = np.where(equal, 1.0, np.sqrt(variances / n))
    return np.sort(np.where(equal, np.where(means > 0, np.inf, -np.inf), means / errors))


def hypergeometric_ends(events: int, n: int, error: float, population: int) -> tuple[int, int]:
    """Return the fewest and the most units with an event that the population may hold."""
    from scipy.stats import hypergeom  # nearly a second that few campaigns need

    least, most = events, population - (n - events)
    low = _first(least, most, lambda held: float(hypergeom.sf(events - 1, population, held, n)) > error)
    high = _first(low, most + 1, lambda held: held > most or float(hypergeom.cdf(events, population, held, n)) <= error)
    return low, high - 1


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the first number in ``low..high`` for which ``holds``, which then holds for all above."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
