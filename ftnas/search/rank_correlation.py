"""How well one score predicts the ranking by another, and how much is gained over chance, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftnas.runtime import key_seed

RESAMPLES = 2000
CONFIDENCE = 0.95

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TauEstimate:
    """Kendall's tau-b of ``n`` pairs and its 95 % interval; not a number where one side is all equal."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Return plain data, ready for JSON; what is not a number becomes ``None``."""
        return {"value": _plain(self.value), "low": _plain(self.low), "high": _plain(self.high), "n": self.n}


@dataclass(frozen=True, slots=True)
class DifferenceEstimate:
    """A difference of means and its 95 % interval.

    Attributes:
        n: how many stand on the smaller side.
    """

    mean: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Return plain data, ready for JSON; what is not a number becomes ``None``."""
        return {"mean": _plain(self.mean), "low": _plain(self.low), "high": _plain(self.high), "n": self.n}


def kendall(x: Sequence[float], y: Sequence[float], *, seed: int) -> TauEstimate:
    """Return Kendall's tau-b of the pairs ``(x[i], y[i])`` with a percentile bootstrap interval over pairs.

    Raises:
        ValueError: the lengths differ, or there are fewer than three pairs.
    """
    if len(x) != len(y) or len(x) < 3:
        raise ValueError(f"a rank correlation needs at least three pairs, got {len(x)} and {len(y)} values")
    from scipy.stats import kendalltau  # nearly a second that only this needs

    value = float(kendalltau(x, y).statistic)
    low, high = _interval(_resampled_tau(_signs(x), _signs(y), _counts(len(x), seed, "kendall")))
    return TauEstimate(value, low, high, len(x))


def mean_difference(ours: Sequence[float], others: Sequence[float], *, seed: int) -> DifferenceEstimate:
    """Return how much larger the mean of ``ours`` is, with a percentile bootstrap interval over both groups.

    A group of one has no spread to resample: the interval is then that of the other group alone.

    Raises:
        ValueError: a group is empty.
    """
    if not ours or not others:
        raise ValueError(f"a mean difference needs values on both sides, got {len(ours)} and {len(others)}")
    resampled = _resampled_mean(ours, seed, "ours") - _resampled_mean(others, seed, "others")
    low, high = _interval(resampled)
    return DifferenceEstimate(float(np.mean(ours) - np.mean(others)), low, high, min(len(ours), len(others)))


def _counts(n: int, seed: int, name: str) -> Array:
    """Return how often each of ``n`` items is drawn in each resample, ``[resamples, n]``: rows sum to ``n``."""
    rng = np.random.default_rng(key_seed(seed, "bootstrap", name))
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


def _signs(values: Sequence[float]) -> Array:
    """Return the order of each pair of items, -1, 0 or 1: ``[n, n]``."""
    column = np.asarray(values, dtype=np.float64)
    return np.sign(column[:, None] - column[None, :])


def _resampled_tau(x: Array, y: Array, counts: Array) -> Array:
    """Return tau-b of each resample from pair orders ``[n, n]``; an item drawn twice is tied with itself."""

    def total(pairs: Array) -> Array:
        sums: Array = ((counts @ pairs) * counts).sum(axis=1)
        return sums

    with np.errstate(invalid="ignore"):
        tau: Array = total(x * y) / np.sqrt(total(x * x) * total(y * y))
    return tau


def _resampled_mean(values: Sequence[float], seed: int, name: str) -> Array:
    means: Array = _counts(len(values), seed, name) @ np.asarray(values, dtype=np.float64) / len(values)
    return means


def _interval(values: Array) -> tuple[float, float]:
    """Return the percentile interval of those resamples that have a value."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return math.nan, math.nan
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
