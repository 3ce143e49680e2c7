"""A bound on the mean of a population within bounds, whatever else the population is like.

Gaffke's bound weighs the units of a sample, and one more at the end of the range, by the gaps between as many uniform
numbers, which is what the population's distribution function does to the units; an upper bound is the 1 - error
quantile of that random mean (Learned-Miller and Thomas, arXiv 1905.06208, section 2). For yes or no it is Clopper and
Pearson's, for units all alike what as many can hide. That it holds for every population is a conjecture that no one
has found an exception to; Phan, Thomas and Learned-Miller (ICML 2021) prove a bound that lies close above.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from ftnas.campaign.moments import Reals, share_left


def guaranteed_high(units: ArrayLike, error: float, *, end: float, population: int) -> float:
    """Return the upper bound that the mean of ``population`` units passes with a chance of at most ``error``.

    Of N units n are known, so what n say of all they say of N - (n - 1)/2 (see ``sample_size.zero_event_bound``).

    Args:
        units: drawn without replacement, not all equal ``[n]``.
        error: in (0, 1).
        end: of the range, at least the largest unit.
        population: how many units there are.
    """
    from scipy.optimize import brentq  # half a second that few campaigns need

    values, times = np.unique(np.append(np.asarray(units, np.float64), end), return_counts=True)
    counts: Reals = times.astype(np.float64)
    n = int(times.sum()) - 1
    mean = (float(values @ counts) - end) / n
    least, most = float(values[0]), end

    def missing(bound: float) -> float:
        return _chance_within(values, counts, bound) - (1 - error)

    inside = (most - least) * 1e-9
    bound = float(brentq(missing, least + inside, most - inside, xtol=1e-12 * (most - least)))
    return mean + min((bound - mean) * (1 - (n - 1) / (2 * population)), (end - mean) * share_left(n, population))


def _chance_within(values: Reals, counts: Reals, bound: float) -> float:
    """Return the chance that the mean of ``values``, weighed by gaps between uniform numbers, is at most ``bound``.

    Gaps are exponential numbers over their sum, so it is that of sum E (x - bound) <= 0, from its cumulants by the
    saddlepoint of Lugannani and Rice (Adv. Appl. Probab. 1980). Bounds of yes or no come within 0.2 % of theirs.

    Args:
        values: distinct, not all equal ``[k]``.
        counts: how often each is there ``[k]``.
        bound: between the smallest and the largest.
    """
    from scipy.optimize import brentq

    apart = values - bound

    def slope(at: float) -> float:
        return float(counts @ (apart / (1 - at * apart)))

    lowest, highest = ((1 - 1e-13) / float(apart[outermost]) for outermost in (0, -1))
    at = float(brentq(slope, lowest, highest, xtol=1e-300, rtol=1e-13))
    terms = apart / (1 - at * apart)
    deviation = math.sqrt(float(counts @ terms**2))
    height = 2 * float(counts @ np.log1p(-at * apart))  # -2 K, K the cumulant function at its lowest
    if height < 1e-8:  # at the middle, where the formula is 0 / 0; this is its limit
        return 0.5 + float(counts @ terms**3) / (3 * math.sqrt(2 * math.pi) * deviation**3)
    root, scaled = math.copysign(math.sqrt(height), at), at * deviation
    density = math.exp(-height / 2) / math.sqrt(2 * math.pi)
    return float(ndtr(root)) + density * (1 / root - 1 / scaled)
