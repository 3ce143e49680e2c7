"""What a campaign found out about one quantity: its mean over units, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftnas.campaign.fault_intervals import fault_interval, stratified_interval, stratified_mean
from ftnas.campaign.intervals import SHARE, Bounds, Interval, cluster_interval

DROP: Bounds = (-1.0, 1.0)  # faults may help


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over units (chips or faults), with its interval.

    Attributes:
        mean: over the population that the units stand for.
        interval: of the mean.
        units: how many were measured.
        lowest: of the units.
        highest: of the units.
    """

    mean: float
    interval: Interval
    units: int
    lowest: float
    highest: float

    def __str__(self) -> str:
        low, high = self.interval.low, self.interval.high
        return f"{100 * self.mean:.3g} % ({100 * low:.3g} to {100 * high:.3g})"


def bounds_of(outcome: str) -> Bounds:
    """Return between what a unit's share of images lies."""
    return DROP if outcome == "accuracy_drop" else SHARE


def estimate(
    unit_means: Sequence[float], confidence: float, *, population: int | None = None, bounds: Bounds = SHARE
) -> Estimate:
    """Return the estimate from one number a unit: chips (None: without end), or faults drawn from ``population``."""
    if population is None:
        interval = cluster_interval(unit_means, confidence, bounds=bounds)
    else:
        interval = fault_interval(unit_means, confidence, population=population, bounds=bounds)
    return Estimate(float(np.mean(unit_means)), interval, len(unit_means), min(unit_means), max(unit_means))


def stratified_estimate(
    strata: Sequence[tuple[int, Sequence[float]]],
    confidence: float,
    *,
    pilot: Sequence[int] = (),
    bounds: Bounds = SHARE,
) -> Estimate:
    """Return the estimate over strata, of size N_h and unit means each; ``pilot`` as for ``stratified_mean``."""
    interval = stratified_interval(strata, confidence, pilot=pilot, bounds=bounds)
    every = [value for _, units in strata for value in units]
    return Estimate(stratified_mean(strata, pilot=pilot), interval, len(every), min(every), max(every))
