"""A trained quantised net as plain data: what every exporter reads, whatever module the net was.

Shapes leave the batch out. A value is named by the node that computes it; the graph's input is called ``input``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ftnas.networks.correction import Method, Rule
from ftnas.quantization import FixedPoint

INPUT = "input"

Codes = NDArray[np.int32]
Reals = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """The integers of a weight ``[out, in / groups, *kernel]`` or ``[out, in]`` and their format."""

    codes: Codes
    number: FixedPoint


@dataclass(frozen=True, slots=True, eq=False)
class Convolve:
    """``gain * (conv(x, weight) + bias) + offset``; gain and offset are a batch norm in evaluation, per channel.

    ``padding``: zeros before and after, for each spatial dimension.
    """

    weight: Weight
    bias: Reals | None
    gain: Reals | None
    offset: Reals | None
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True, slots=True, eq=False)
class Multiply:
    """``gain * (x @ weight.T + bias) + offset``, over the last dimension."""

    weight: Weight
    bias: Reals | None
    gain: Reals | None = None
    offset: Reals | None = None


@dataclass(frozen=True, slots=True)
class Add:
    """The sum of one or more values of one shape."""


@dataclass(frozen=True, slots=True)
class Clamp:
    """Values cut off below ``low`` and above ``high``; ReLU is ``Clamp(0, inf)``."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Pool:
    """Pooling over the spatial dimensions.

    ``padding``: before and after, for each of them; ``ceil``: whether a last window that is cut off counts.
    ``count_padding``: whether an average divides by the kernel's size where part of it lies in the padding.
    """

    kind: Literal["max", "average"]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    ceil: bool = False
    count_padding: bool = True


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean over all spatial dimensions; ``keep`` leaves them there with size 1."""

    keep: bool


@dataclass(frozen=True, slots=True)
class Concatenate:
    """Values joined along ``axis``, 0 being the channels."""

    axis: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Every ``step``-th index of ``axis`` from ``start`` to before ``stop``; axis 0 is the channels."""

    axis: int
    start: int
    stop: int
    step: int = 1


@dataclass(frozen=True, slots=True)
class Pad:
    """Zeros before and after, for each dimension, the channels first."""

    amounts: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same values in the node's shape."""


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """``gain * x + offset`` per channel: a batch norm that belongs to no layer."""

    gain: Reals
    offset: Reals


@dataclass(frozen=True, slots=True)
class Zeros:
    """Zeros, for each image of the batch; the input, if there is one, only says how many those are."""


@dataclass(frozen=True, slots=True)
class Gather:
    """The channels ``channels``, in this order."""

    channels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Halve:
    """Half of each code in ``channels``, rounded up where it is the ``upper`` one; see ``quantization.CodeHalf``.

    The input is on the node's own grid, as those of ``Correct`` are.
    """

    channels: tuple[int, ...]
    upper: bool


@dataclass(frozen=True, slots=True)
class Correct:
    """What a correction unit makes of a value and the copies of its ``channels``; see ``networks.correction``.

    The first input has all channels, the others have these only. ``limits`` are codes, each one for each of them.
    """

    method: Method
    rule: Rule
    channels: tuple[int, ...]
    limits: tuple[tuple[int, ...], ...] = ()


Operation: TypeAlias = (
    Convolve
    | Multiply
    | Add
    | Clamp
    | Pool
    | Mean
    | Concatenate
    | Slice
    | Pad
    | Reshape
    | Scale
    | Zeros
    | Gather
    | Halve
    | Correct
)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One step of a net.

    Attributes:
        name: of the value computed; letters, digits and ``_``, unique.
        operation: what computes it.
        inputs: names of the values read.
        shape: of the value.
        number: the grid it is rounded to, or ``None`` where it stays as it is.
        path: of the quantised layer in the PyTorch net, or of the module nearest to the operation; for messages.
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    number: FixedPoint | None = None
    path: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A net of one input and one output, its nodes in an order in which they can be computed.

    Attributes:
        name: of the net.
        input_shape: of one image.
        output: name of the value that holds the logits.
        facts: what else a file should say of the net: versions, fault-free or which chip, data set.
    """

    name: str
    input_shape: tuple[int, ...]
    nodes: tuple[Node, ...]
    output: str
    facts: Mapping[str, str] = field(default_factory=dict)
