"""Stopping when the interval is narrow enough, without paying for it in coverage.

Whoever looks after every chip, and stops at the first look that pleases, has more than the 5 % of errors that each
interval allows. Here the looks are fixed beforehand and share the error: each gets its part, and its interval is
taken at a confidence such that all together miss with probability 1 - confidence (Lan and DeMets, Biometrika 1983,
with the recursion of Armitage, McPherson and Rowe 1969 over looks that share their units).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ftnas.campaign.sample_size import check_open, normal_quantile
from ftnas.errors import CampaignError

Spending = Literal["even", "pocock", "obrien_fleming"]
Reals = NDArray[np.float64]

LEAST_ERROR = 1e-12  # what a look spends at least: the first of O'Brien and Fleming would spend 1e-30, no double
FINEST = 200  # steps of the sum that its range may hold; more would be looks that differ by one unit in thousands


def _even(error: float, time: float, part: float) -> float:
    return error * part


def _pocock(error: float, time: float, part: float) -> float:
    return error * math.log1p((math.e - 1) * time)


def _obrien_fleming(error: float, time: float, part: float) -> float:
    # Half the error on each side, as tables of two-sided bounds have it.
    return 4 * float(ndtr(-normal_quantile(1 - error / 2) / math.sqrt(time)))


# (overall error, share of the largest campaign's units, share of the looks) -> error spent up to and with this look.
SPENDING: Mapping[str, Callable[[float, float, float], float]] = {
    "even": _even,
    "pocock": _pocock,
    "obrien_fleming": _obrien_fleming,
}


@dataclass(frozen=True)
class Looks:
    """When a campaign may stop, and at which confidence the interval of each look is taken.

    Attributes:
        confidence: of whichever interval is reported in the end.
        schedule: how many units there are at each look, ascending; the last look is the largest campaign.
        spending: how much of the error a is spent by a look with the share t of the last look's units. ``even``
            gives each look the same, for schedules that grow by a factor; ``pocock`` spends a ln(1 + (e - 1) t),
            nearly the same at evenly spaced looks; ``obrien_fleming`` 4 - 4 F(z(a/4) / sqrt(t)), nearly all late.
        population: how many units there are; None for no end.

    Raises:
        CampaignError: the confidence, the schedule or the spending is impossible.
    """

    confidence: float
    schedule: tuple[int, ...]
    spending: Spending = "even"
    population: int | None = None

    def __post_init__(self) -> None:
        check_open("confidence", self.confidence)
        steps = (0, *self.schedule)
        if len(steps) < 2 or any(a >= b for a, b in pairwise(steps)):
            raise CampaignError(f"schedule: {list(self.schedule)}; allowed is one or more looks, ascending from 1")
        if self.population is not None and self.schedule[-1] > self.population:
            raise CampaignError(f"schedule: {self.schedule[-1]} units; allowed is at most all {self.population}")
        if self.spending not in SPENDING:
            raise CampaignError(f"spending: {self.spending!r} is unknown; allowed is {', '.join(SPENDING)}")

    def confidence_at(self, look: int) -> float:
        """Return the confidence at which to take the interval of this look, counted from 0.

        Raises:
            CampaignError: there is no such look.
        """
        if not 0 <= look < len(self.schedule):
            raise CampaignError(f"look: {look} of {len(self.schedule)}; allowed is 0 to {len(self.schedule) - 1}")
        return 1 - 2 * float(ndtr(-self.quantiles[look]))

    @property
    def quantiles(self) -> tuple[float, ...]:
        """How many standard errors the interval of each look reaches, with a normal mean."""
        return _quantiles(self.confidence, self.schedule, self.spending, self.population)


def growing_schedule(first: int, last: int, factor: float = 1.5) -> tuple[int, ...]:
    """Return looks at ``first``, at ``factor`` times that, and so on, the last one at ``last``.

    The interval narrows with the root of the units, so looks at equal steps would be wasted on the late ones.

    Raises:
        CampaignError: an argument is out of its range.
    """
    if not 1 <= first <= last or not factor > 1:
        raise CampaignError(f"schedule: {first} to {last} by {factor}; allowed is 1 <= first <= last and factor > 1")
    looks = [first]
    while looks[-1] < last:
        looks.append(min(last, max(looks[-1] + 1, math.ceil(looks[-1] * factor))))
    return tuple(looks)


@lru_cache(maxsize=64)
def _quantiles(
    confidence: float, schedule: tuple[int, ...], spending: Spending, population: int | None
) -> tuple[float, ...]:
    """Return the bounds look by look; the sum of the units walks on as a normal one, of the information's variance."""
    information = [_information(n, population) for n in schedule]
    nodes, mass = np.zeros(1), np.ones(1)  # where the sum is at the last look, if it has left no bound
    before, spent, result = 0.0, 0.0, []
    for look, (n, now, after) in enumerate(zip(schedule, information, [*information[1:], math.inf], strict=True)):
        target = SPENDING[spending](1 - confidence, n / schedule[-1], (look + 1) / len(schedule))
        # A step too short for the nodes to tell is made longer, which gives a little too much confidence.
        step = max(math.sqrt(now - before), float(nodes[-1]) / FINEST)
        end = _end(nodes, mass, step, max(target - spent, LEAST_ERROR))
        result.append(end / math.sqrt(now))
        nodes, mass = _carried(nodes, mass, step, end, count=_nodes_for(end / math.sqrt(after - now)))
        before, spent = now, target
    return tuple(result)


def _nodes_for(steps: float) -> int:
    """Return how many places resolve a range of plus or minus so many of the next look's steps, in hundreds."""
    return 100 * math.ceil(min(max(4 * steps, 100), 4 * FINEST) / 100)


def _information(n: int, population: int | None) -> float:
    """Return one over the variance of the mean of ``n`` units, in units of theirs; huge once all were seen."""
    return float(n) if population is None else n / max(1 - n / population, 1e-9)


def _end(nodes: Reals, mass: Reals, step: float, error: float) -> float:
    """Return the bound that the sum, so far spread over ``nodes``, leaves in its next step with chance ``error``."""
    from scipy.optimize import brentq  # half a second that only campaigns with looks need

    def excess(end: float) -> float:
        outside = ndtr((nodes - end) / step) + ndtr((-end - nodes) / step)
        return math.log(max(float(outside @ mass), 1e-300) / error)

    reach = float(nodes[-1])
    return float(brentq(excess, 0.0, reach + 40 * step, xtol=1e-12 * (reach + step)))


def _carried(nodes: Reals, mass: Reals, step: float, end: float, *, count: int) -> tuple[Reals, Reals]:
    """Return ``count`` places within plus or minus ``end`` and the mass of the sum at each."""
    points, weights = _gauss_legendre(count)
    places = points * end
    kernel = np.exp(-(((places[:, None] - nodes) / step) ** 2) / 2) / (step * math.sqrt(2 * math.pi))
    return places, (kernel @ mass) * weights * end


@lru_cache
def _gauss_legendre(count: int) -> tuple[Reals, Reals]:
    points, weights = np.polynomial.legendre.leggauss(count)
    return points, weights
