"""Synapses: quantised weights that turn the spikes of all steps into currents.

The sums go straight into membranes, so they are no fault site; the weights are one, the membranes another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ftnas.faults.applying import replace_value
from ftnas.quantization import (
    Blend,
    FixedPoint,
    FloatWord,
    Number,
    Quantization,
    QuantizedConv2d,
    QuantizedLinear,
    current_tap,
)
from ftnas.quantization.taps import skipped
from ftnas.spiking.dense.active import CodeChange, synapse_faults
from ftnas.spiking.dense.specification import SpikingSpec

WIDE = FloatWord("float32")  # of the sums: an accumulator as wide as they need

# (codes [k], values [k], format) -> faulty codes [k]
CODE_CHANGES: Mapping[str, Callable[[Tensor, Tensor, FixedPoint], Tensor]] = {
    "dead": lambda codes, values, number: torch.zeros_like(codes),
    "saturated": lambda codes, values, number: torch.where(codes < 0, number.low, number.high),
    "stuck": lambda codes, values, number: values.clamp(number.low, number.high),
    "flipped": lambda codes, values, number: _as_code(codes ^ (1 << values), number),
    "stuck_at_0": lambda codes, values, number: _as_code(codes & ~(1 << values), number),
    "stuck_at_1": lambda codes, values, number: _as_code(codes | (1 << values), number),
}


class SpikingLinear(QuantizedLinear):
    """Synapses ``[N, T, C_in] -> [N, T, C_out]`` from all neurons of a layer to all of the next."""

    stores_output = False
    stored_number: FixedPoint | None = None
    bias: nn.Parameter

    def __init__(self, channels_in: int, channels_out: int, spec: SpikingSpec) -> None:
        super().__init__(channels_in, channels_out, choices=(spec.synapse_numbers,))
        self.spec = spec

    def forward(self, x: Tensor, quantization: Quantization | Blend | None = None) -> Tensor:
        """Return the currents of the spikes ``x``; where ``x`` has one step, it is the same in all of them."""
        return _currents(self, x, self.spec)

    def weight_number(self, weight: Tensor, quantization: Quantization | None = None) -> Number:
        """Return the number format of ``weight``: that of the file that it came from, or its quantisation's."""
        return self.stored_number or super().weight_number(weight, quantization)


class SpikingConv2d(QuantizedConv2d):
    """Synapses ``[N, T, C_in, H, W] -> [N, T, C_out, H/2, W/2]`` of 3x3 convolutions of stride 2."""

    stores_output = False
    stored_number: FixedPoint | None = None
    bias: nn.Parameter

    def __init__(self, channels_in: int, channels_out: int, spec: SpikingSpec) -> None:
        super().__init__(
            channels_in, channels_out, 3, stride=2, norm="none", bias=True, choices=(spec.synapse_numbers,)
        )
        self.spec = spec

    def forward(self, x: Tensor, quantization: Quantization | Blend | None = None) -> Tensor:
        """Return the currents of the spikes ``x``; where ``x`` has one step, it is the same in all of them."""
        return _currents(self, x, self.spec)

    def weight_number(self, weight: Tensor, quantization: Quantization | None = None) -> Number:
        """Return the number format of ``weight``: that of the file that it came from, or its quantisation's."""
        return self.stored_number or super().weight_number(weight, quantization)


Synapses = SpikingLinear | SpikingConv2d


def _currents(layer: Synapses, x: Tensor, spec: SpikingSpec) -> Tensor:
    if (known := skipped(layer)) is not None:
        return known
    stored = layer.quantized_weight(layer.weight, layer.quantization)
    faults = synapse_faults(layer)
    lasting = read_weight(layer, stored, faults.lasting)
    # A constant input makes the same current in all steps.
    y = _of_steps(layer, x, lasting).expand(-1, spec.steps, *[-1] * (x.dim() - 2))
    if faults.fleeting:
        rows = list(y.unbind(1))
        for step, changes in faults.fleeting.items():
            weight = read_weight(layer, stored, (*faults.lasting, *changes))
            rows[step] = layer.product(x[:, min(step, x.shape[1] - 1)], weight)
        y = torch.stack(rows, 1)
    tap = current_tap()
    if tap is not None:
        tap.output(layer, y, WIDE)
    return y


def _of_steps(layer: Synapses, x: Tensor, weight: Tensor) -> Tensor:
    y: Tensor = layer.product(x.flatten(0, 1), weight).unflatten(0, x.shape[:2])
    return y


def read_weight(layer: Synapses, stored: Tensor, changes: Sequence[CodeChange]) -> Tensor:
    """Return what the neurons read where ``stored`` is in memory: ``changes`` made, then the bounding of the net."""
    faulty = _changed(layer, stored, changes) if changes else stored
    if layer.spec.bounding == "none":
        return faulty
    return _bounded(faulty, limits_of(layer), method=layer.spec.bounding)


@torch.no_grad()
def limits_of(layer: Synapses) -> Tensor:
    """Return the largest magnitude of the clean weights on their grid: ``[]``, or for each neuron ``[C_out, 1, ...]``.

    Hardware holds it as a constant (SoftSNN's bound).
    """
    number = layer.weight_number(layer.weight)
    clean = number.decode(number.encode(layer.weight)).abs()
    if layer.spec.bound_of == "layer":
        return clean.amax()
    return clean.flatten(1).amax(1).view(-1, *[1] * (clean.dim() - 1))


def _bounded(weight: Tensor, limits: Tensor, *, method: str) -> Tensor:
    if method == "zero":
        return weight * (weight.abs() <= limits)
    return torch.minimum(torch.maximum(weight, -limits), limits)


def _changed(layer: Synapses, stored: Tensor, changes: Sequence[CodeChange]) -> Tensor:
    number = layer.weight_number(layer.weight)
    assert isinstance(number, FixedPoint), "a spiking net's specification knows integer weights only"
    codes = number.encode(stored.detach())
    flat = codes.view(-1)
    for kind, elements, values in changes:
        flat[elements] = CODE_CHANGES[kind](flat[elements], values, number).to(torch.int32)
    # What is broken cannot be trained.
    return replace_value(stored, number.decode(codes), masked=[change.elements.cpu().numpy() for change in changes])


def _as_code(words: Tensor, number: FixedPoint) -> Tensor:
    """Return what the lowest bits of ``words`` are in two's complement."""
    word = words & ((1 << number.bits) - 1)
    return torch.where(word > number.high, word - (1 << number.bits), word)
