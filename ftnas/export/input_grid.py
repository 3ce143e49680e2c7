"""The grid of a net's input where everything has to be integers."""

from __future__ import annotations

import math

import numpy as np

from ftnas.errors import ExportError
from ftnas.export.graph import Graph, Reals
from ftnas.export.integer import LARGEST_INPUT

# More different numbers in the images than these are no pixels of a few bits.
LEVELS = 2048


def input_scale(graph: Graph, images: Reals) -> float:
    """Return the input's scale.

    Pixels of 17 or 256 levels lie evenly spaced; a step that divides the distance of two levels rounds them far less
    than just any, and what a rounded input changes in the first layer grows from layer to layer.
    """
    levels = np.unique(images).astype(np.float64)
    peak = float(np.abs(levels).max(initial=0.0))
    if not 0 < peak < math.inf:
        raise ExportError(f"{graph.name}: the images for the input's range have a largest magnitude of {peak}")
    finest = peak / LARGEST_INPUT
    distance = float(np.median(np.diff(levels))) if 1 < len(levels) <= LEVELS else 0.0
    divisors = np.arange(int(distance / finest), int(distance / finest / 4), -1)
    power_of_two = math.ldexp(1.0, math.ceil(math.log2(finest)))
    scales: list[float] = [power_of_two, finest, *(distance / divisors).tolist()]
    errors = [scale * float(np.abs(levels / scale - np.rint(levels / scale)).mean()) for scale in scales]
    return scales[int(np.argmin(errors))]
