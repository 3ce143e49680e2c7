"""The quantised layers of a model, and what is said to all of them."""

from __future__ import annotations

import torch
from torch import nn

from ftnas.quantization.normalisation import CleanBatchNorm
from ftnas.quantization.quantized_layer import QuantizedLayer


def set_momentum(model: nn.Module, momentum: float) -> None:
    """Give the running statistics of every layer of ``model`` this ``momentum``; 1 forgets what was there."""
    for layer in model.modules():
        if isinstance(layer, (QuantizedLayer, CleanBatchNorm)):
            layer.momentum = momentum


def quantized_layers(model: nn.Module) -> dict[str, QuantizedLayer]:
    """Return the quantised layers of ``model`` by module path."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantizedLayer)}


def weighted_layers(model: nn.Module) -> dict[str, QuantizedLayer]:
    """Return those of the quantised layers of ``model`` that have a weight, by module path."""
    return {name: layer for name, layer in quantized_layers(model).items() if layer.kind != "sum"}


def assume_ranges(model: nn.Module) -> None:
    """End each range of ``model`` that waits to be measured at 1: for a pass of which only shapes and costs count."""
    for layer in quantized_layers(model).values():
        for limit in (layer.feature_limit, getattr(layer, "learned_feature_limit", layer.feature_limit)):
            with torch.no_grad():
                limit.masked_fill_(limit == 0, 1.0)
