"""Groups of output values that fail together, as arithmetic on flat CHW positions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ftnas.errors import FaultError
from ftnas.faults.events import Integers
from ftnas.faults.models import OutputPattern


def groups_of(fault: OutputPattern, shape: tuple[int, ...]) -> int:
    """Return how many groups of ``fault.shape`` one output of ``shape`` has; groups do not overlap."""
    channels, height, width = _three(shape)
    if fault.shape == "block":
        return channels * math.ceil(height / fault.size) * math.ceil(width / fault.size)
    return {
        "point": channels * height * width,
        "row": channels * height,
        "channel": channels,
        "across_channels": height * width,
    }[fault.shape]


def members_of(fault: OutputPattern, group: Integers, shape: tuple[int, ...]) -> tuple[Integers, Integers]:
    """Return the elements of the groups ``[k]``, ``[m]``, and for each of them which group it belongs to, ``[m]``."""
    channels, height, width = _three(shape)
    if fault.shape == "block":
        return _blocks(group, (height, width), fault.size)
    if fault.shape == "across_channels":
        inside = np.arange(channels) * (height * width)
        element = group[:, None] + inside
    else:
        size = {"point": 1, "row": width, "channel": height * width}[fault.shape]
        element = group[:, None] * size + np.arange(size)
    return element.reshape(-1), np.repeat(np.arange(len(group)), element.shape[1])


def _blocks(group: Integers, extent: tuple[int, int], size: int) -> tuple[Integers, Integers]:
    """Return members of square blocks, which are cut off at the lower and right edge."""
    height, width = extent
    down, across = math.ceil(height / size), math.ceil(width / size)
    channel, place = np.divmod(group, down * across)
    top, left = np.divmod(place, across)
    y = top[:, None, None] * size + np.arange(size)[:, None]
    x = left[:, None, None] * size + np.arange(size)
    element = channel[:, None, None] * (height * width) + y * width + x
    inside: NDArray[np.bool_] = np.broadcast_to((y < height) & (x < width), element.shape)
    owner = np.broadcast_to(np.arange(len(group))[:, None, None], element.shape)
    return element[inside], owner[inside]


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return channels, height and width; a vector is channels of one value, a sequence ``[C, L]`` rows of length L."""
    if not 1 <= len(shape) <= 3:
        raise FaultError(f"features.pattern needs outputs of 1 to 3 dimensions, got {shape}")
    channels, *rest = shape
    height, width = {0: (1, 1), 1: (1, *rest), 2: tuple(rest)}[len(rest)]
    return channels, height, width
