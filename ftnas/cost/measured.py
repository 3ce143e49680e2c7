"""The cost of any model, counted while it runs."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ftnas.cost.work import Cost
from ftnas.quantization import QuantizedLayer, Unchanging, assume_ranges, quantized_layers, tapped, weighted_layers

_LEARNED_RANGES = ("learned_weight_limit", "learned_feature_limit")


def measure(model: nn.Module, image_shape: tuple[int, int, int]) -> Cost:
    """Return the cost of ``model`` for one image ``[C, H, W]``; the model is left as it is.

    A copy sees one black image on the CPU. It cannot be a meta copy: a quantiser reads its range from the weights.
    Ranges that were never measured do not matter here. Weight bits are those of quantised layers, so 0 for a float
    model.
    """
    shadow = copy.deepcopy(model).cpu().eval()
    assume_ranges(shadow)
    # Under a tap redundant copies compute, which otherwise nobody would see.
    with torch.no_grad(), tapped(Unchanging()), FlopCounterMode(display=False) as counter:
        shadow(torch.zeros(1, *image_shape))
    return Cost(counter.get_total_flops() // 2, _parameters(model), _weight_bits(model))


def _parameters(model: nn.Module) -> int:
    """Count what is trained, but not learned quantisation ranges; what is stored more than once, as often."""
    trained = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and name.rpartition(".")[2] not in _LEARNED_RANGES
    )
    return trained + sum(layer.stored_again for layer in quantized_layers(model).values())


def _weight_bits(model: nn.Module) -> int:
    return sum(_stored_bits(layer) for layer in weighted_layers(model).values())


def _stored_bits(layer: QuantizedLayer) -> int:
    numbers = layer.quantization
    return layer.weight.numel() * (numbers.float_word.bits if numbers.float_word else numbers.weight_bits)
