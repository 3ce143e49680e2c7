"""Intervals of means over single faults, drawn from a population of which a few may do nearly all of the damage.

A sample ends at the largest value that it met. One more unit would pass that with a chance of 1 in n + 1, whatever the
population is like, since each of the n + 1 may be the largest: this share of the population lies beyond the sample,
and a mean and a deviation of the sample alone take it for nothing. So each end of an interval is taken as if one unit
more had been drawn there. One more unit is also how empirical likelihood is made to cover what it should (Chen,
Variyath and Abraham, J. Comput. Graph. Statist. 2008).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ftnas.campaign.guaranteed import guaranteed_high
from ftnas.campaign.intervals import SHARE, Bounds, Interval, checked, clipped, unseen
from ftnas.campaign.moments import (
    Moments,
    Part,
    Reals,
    Stratum,
    after_pilot,
    moments_of,
    part_of,
    share_left,
    skewed_t,
    with_spread,
)
from ftnas.campaign.sample_size import CONFIDENCE, check_open

LOW, HIGH = 0, 1  # ends of an interval
ALIKE = 1 - 1e-9  # sides of an interval that differ by less are equally long, but for rounding
METHOD = "t over units, corrected for skewness and the largest not drawn, within Gaffke's bound"


def fault_interval(
    unit_means: ArrayLike, confidence: float = CONFIDENCE, *, population: int, bounds: Bounds = SHARE
) -> Interval:
    """Return the interval of the mean over ``population`` faults, of which some were drawn without replacement.

    Student's t corrected for skewness, as ``cluster_interval``, with one unit added for what was not drawn: as far out
    as ``next_out`` puts it. The longer side of the interval is nowhere wider than the bound that holds for every
    population (``guaranteed_high``), which for faults that change all or nothing is that of Clopper and Pearson.
    Equal units leave open what as many can have hidden.

    Args:
        unit_means: a number for each fault drawn ``[n]``.
        confidence: in (0, 1).
        population: how many faults there are.
        bounds: what a fault can do at least and at most.

    Raises:
        CampaignError: an argument is out of its range.
    """
    sample = checked(unit_means, confidence, population, bounds)
    if sample.n == population or not sample.variance:
        return stratified_interval([(population, unit_means)], confidence, bounds=bounds)
    units = np.asarray(unit_means, np.float64)
    seen = [_Seen(1.0, units, sample, population)]
    low, high = (_end(sample.mean, seen, [next_out(units, end, bounds)], confidence, end) for end in (LOW, HIGH))
    error, above, below = (1 - confidence) / 2, high - sample.mean, sample.mean - low
    if above >= below * ALIKE:
        high = min(high, guaranteed_high(units, error, end=bounds[1], population=population))
    if below >= above * ALIKE:
        low = max(low, -guaranteed_high(-units, error, end=-bounds[0], population=population))
    return clipped((low, high), confidence, METHOD, bounds)


def stratified_interval(
    strata: Sequence[Stratum], confidence: float = CONFIDENCE, *, pilot: Sequence[int] = (), bounds: Bounds = SHARE
) -> Interval:
    """Return the interval of ``stratified_mean``, the mean over all units of all strata.

    Each stratum weighs by its size, its units were drawn without replacement, and one is added to them as in
    ``fault_interval``, but no larger than the largest drawn of its stratum: that all strata at once reach far beyond
    their samples is too much (by bit that covered 99 to 100 %). Satterthwaite's degrees of freedom. A stratum whose
    n units are all equal does not count as certain: it borrows a variance of 1/n of the mean one of all strata.

    Args:
        strata: size N_h and unit means ``[n_h]`` of each, in the order drawn.
        confidence: in (0, 1).
        pilot: see ``stratified_mean``.
        bounds: what a unit can be at least and at most.

    Raises:
        CampaignError: an argument is out of its range.
    """
    check_open("confidence", confidence)
    total = sum(size for size, _ in strata)
    known, rest = after_pilot(strata, pilot)
    seen = [_Seen(size / total, units, checked(units, confidence, size, bounds), size) for size, units in rest]
    mean = math.fsum([known / total, *(part.weight * part.sample.mean for part in seen)])
    if all(part.sample.n == part.size for part in seen):
        return Interval(mean, mean, confidence, "exhaustive")
    if not any(part.sample.variance for part in seen):
        return unseen(mean, [(part.weight, part.sample, part.size) for part in seen], confidence, bounds)
    outermost = [[float(part.units.min()) for part in seen], [float(part.units.max()) for part in seen]]
    low, high = (_end(mean, seen, outermost[end], confidence, end) for end in (LOW, HIGH))
    method = f"t over units of {len(strata)} strata, corrected for skewness and the largest not drawn"
    return clipped((low, high), confidence, method, bounds)


def stratified_mean(strata: Sequence[Stratum], *, pilot: Sequence[int] = ()) -> float:
    """Return the mean over all units of all strata, of size N_h and unit means ``[n_h]`` each: sum N_h q_h / N.

    Args:
        strata: size N_h and unit means ``[n_h]`` of each, in the order drawn.
        pilot: how many units at the front of each stratum decided how many came after them. Those stand for
            themselves alone, and the rest for what the pilot left. Counted with the rest they would bias the mean,
            since a pilot that found nothing is followed by few units to correct it: by -1 % with 20 of 125 units a
            stratum, -4 % with 10 of 25, which the interval then missed 10 % of the time (measured).

    Raises:
        CampaignError: a stratum has no unit, or none after its pilot.
    """
    total = sum(size for size, _ in strata)
    known, rest = after_pilot(strata, pilot)
    return math.fsum([known / total, *(size / total * moments_of(units).mean for size, units in rest)])


@dataclass(frozen=True, eq=False)
class _Seen:
    """What was drawn of a stratum: its weight, units ``[n]``, their moments, and how many units it has."""

    weight: float
    units: Reals
    sample: Moments
    size: int


def _end(mean: float, seen: Sequence[_Seen], added: Sequence[float], confidence: float, end: int) -> float:
    """Return one end of the interval of ``mean``, with a unit added to each stratum."""
    pooled = math.fsum(part.weight * part.sample.variance for part in seen)
    with_one_more = [_with_one_more(part, unit, pooled) for part, unit in zip(seen, added, strict=True)]
    moved = math.fsum([mean, *(move for move, _ in with_one_more)])
    return skewed_t(moved, [part for _, part in with_one_more], confidence)[end]


def _with_one_more(seen: _Seen, unit: float, pooled: float) -> tuple[float, Part]:
    """Return how far the added ``unit`` moves the estimate, and the stratum's uncertainty with it."""
    sample, weight, size = seen.sample, seen.weight, seen.size
    if not sample.variance:
        return 0.0, part_of(with_spread(sample, pooled), weight=weight, population=size)
    more = moments_of(np.append(seen.units, unit))
    part = part_of(more, weight=weight, population=size + 1)
    # It stands for what was not drawn, and is no evidence of its own.
    move = weight * (more.mean - sample.mean) * share_left(sample.n, size)
    return move, replace(part, degrees=max(1, sample.n - 1))


def next_out(units: ArrayLike, end: int, bounds: Bounds = SHARE) -> float:
    """Return where a unit beyond the outermost one drawn is to be expected: x^2 / x', both counted from the median.

    x is the outermost unit, x' the next. What faults do spans orders of magnitude; beyond x a power-law tail goes on
    by as large a factor, in the mean of its logarithm, as lies between x' and x (Hill, Annals of Statistics 1975, with
    one gap). A single unit on its side of the median says nothing of a tail: then it is the end of the range.
    """
    ordered = np.sort(np.asarray(units, np.float64))
    middle = float(np.median(ordered))
    last, second = (ordered[0], ordered[1]) if end == LOW else (ordered[-1], ordered[-2])
    if last == middle:  # no tail on this side
        return middle
    if second == middle:
        return bounds[end]
    return float(np.clip(middle + (last - middle) ** 2 / (second - middle), *bounds))
