"""A net's whole fault population, made up to be like one that was injected exhaustively.

8 bits of 3,784 weights, 500 images: 77 % of the faults change no image, 0.9 % at least 1 % of them, the mean is 0.07 %,
from 0.01 % for the lowest bit to 0.25 % for the sign, as measured on a small net for digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ftnas.campaign import Interval

IMAGES = 500
WEIGHTS = 3784
HARMFUL = (0.05, 0.06, 0.10, 0.15, 0.23, 0.33, 0.47, 0.45)  # share of each bit's faults that change an image
FURTHER = (0.0, 0.0, 0.0, 0.02, 0.03, 0.08, 0.25, 1.95)  # images that these change beyond the first, on average


@lru_cache
def fault_population(tail: float = 1.3) -> NDArray[np.float64]:
    """Return the share of images that each fault changes ``[8, 3784]``; a higher ``tail`` has rarer, worse faults."""
    generator, rows = np.random.default_rng(0), []
    for harmful, further in zip(HARMFUL, FURTHER, strict=True):
        size = generator.standard_exponential(WEIGHTS) ** tail * further / math.gamma(1 + tail)
        changed = 1 + np.floor(size + generator.random(WEIGHTS))
        rows.append(np.where(generator.random(WEIGHTS) < harmful, changed, 0) / IMAGES)
    return np.array(rows)


def coverage(campaign: Callable[[NDArray[np.float64]], Interval], n: int, *, campaigns: int = 1500) -> float:
    """Return how often the interval that ``campaign`` makes of ``n`` faults drawn at random holds the truth."""
    faults, draw, held = fault_population().ravel(), np.random.default_rng(11), 0
    for _ in range(campaigns):
        interval = campaign(faults[draw.choice(faults.size, n, replace=False)])
        held += interval.low <= faults.mean() <= interval.high
    return held / campaigns
