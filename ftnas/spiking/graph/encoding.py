"""Numbers as spikes: two input neurons for each feature, one for below the middle and one for above ("flip-flop")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ftnas.configuration import Section

Array = NDArray[np.float32]


class Encoding(Section):
    """How a feature becomes spikes.

    ``spikes``: of a feature at the end of its range; one in the middle gives none. ``interval``: steps from one of its
    spikes to the next. ``steps``: for how long a net runs, spikes and all.
    """

    spikes: int = Field(8, ge=1, le=64)
    interval: int = Field(3, ge=1, le=16)
    steps: int = Field(24, ge=1, le=1024)


def scaled(values: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return features ``[N, F]`` as -1 to 1 between ``low`` and ``high`` ``[F]``, cut off there; constant ones as 0."""
    span = np.where(high > low, high - low, 1.0)
    return np.clip(2 * (values - low) / span - 1, -1.0, 1.0) * (high > low)


def encoded(features: NDArray[np.float64], encoding: Encoding) -> Array:
    """Return spikes ``[steps, 2 F, N]``, 0 or 1, of features ``[N, F]`` in -1 to 1.

    Of feature f, neuron 2 f fires for negative values and 2 f + 1 for positive ones: round(spikes |x|) times, at step
    0, interval, 2 interval and so on, as far as ``steps`` reach.
    """
    return spikes_of(spike_numbers(features, encoding).T, encoding)


def spike_numbers(features: NDArray[np.float64], encoding: Encoding) -> Array:
    """Return how often each input neuron fires, ``[..., 2 F]``, for features ``[..., F]`` in -1 to 1."""
    sides = np.stack([np.maximum(-features, 0), np.maximum(features, 0)], axis=-1)
    return np.asarray(np.rint(encoding.spikes * sides), np.float32).reshape(*features.shape[:-1], -1)


def spikes_of(numbers: Array, encoding: Encoding) -> Array:
    """Return spikes ``[steps, I, N]`` of neurons that fire ``numbers`` ``[I, N]`` times."""
    spikes = np.zeros((encoding.steps, *numbers.shape), np.float32)
    due = spikes[:: encoding.interval]
    np.less(np.arange(len(due), dtype=np.float32)[:, None, None], numbers, out=due, casting="unsafe")
    return spikes
