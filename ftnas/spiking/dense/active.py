"""The faults of spiking hardware that the current forward passes meet, for as long as a ``with`` block lasts.

They are set for the current thread of execution, never on a net (as ``quantization.taps`` does it for the others), so
an exception leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ftnas.errors import FaultError


class CodeChange(NamedTuple):
    """What becomes of some weights' codes: ``kind`` at ``elements`` ``[k]``, with a ``values`` ``[k]`` where needed."""

    kind: str
    elements: Tensor
    values: Tensor


@dataclass(frozen=True)
class SynapseFaults:
    """Faults of one layer's synapses.

    Attributes:
        lasting: those that are there in every step.
        fleeting: by step, those of that step only.
    """

    lasting: tuple[CodeChange, ...] = ()
    fleeting: Mapping[int, tuple[CodeChange, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class NeuronFaults:
    """Faults of one layer's neurons; each tensor is ``[T, ...]``, the rest the shape of the layer; ``None`` for none.

    Attributes:
        silent: whether the neuron cannot fire.
        firing: whether it fires whatever its membrane is.
        stuck: the membrane's value, NaN where it is free.
        unreset: whether a spike leaves the membrane as it is.
        threshold: factor of the threshold.
        leak: factor of the share of the membrane that a step keeps.
        refractory: further steps in which a neuron that has fired takes no input.
    """

    silent: Tensor | None = None
    firing: Tensor | None = None
    stuck: Tensor | None = None
    unreset: Tensor | None = None
    threshold: Tensor | None = None
    leak: Tensor | None = None
    refractory: Tensor | None = None


LayerFaults = SynapseFaults | NeuronFaults

_ACTIVE: ContextVar[Mapping[nn.Module, LayerFaults] | None] = ContextVar("ftnas_spiking_faults", default=None)


def synapse_faults(layer: nn.Module) -> SynapseFaults:
    """Return the active faults of the synapses ``layer``."""
    found = (_ACTIVE.get() or {}).get(layer)
    return found if isinstance(found, SynapseFaults) else SynapseFaults()


def neuron_faults(layer: nn.Module) -> NeuronFaults:
    """Return the active faults of the neurons ``layer``."""
    found = (_ACTIVE.get() or {}).get(layer)
    return found if isinstance(found, NeuronFaults) else NeuronFaults()


@contextmanager
def active(faults: Mapping[nn.Module, LayerFaults]) -> Iterator[None]:
    """Let the layers of ``faults`` meet them.

    Raises:
        FaultError: others are active.
    """
    if _ACTIVE.get() is not None:
        raise FaultError("faults of spiking hardware are active already; join the maps and inject them at once")
    token = _ACTIVE.set(faults)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def at(values: Tensor | None, step: int) -> Tensor | None:
    """Return ``values`` ``[T, ...]`` of one step."""
    return None if values is None else torch.select(values, 0, step)
