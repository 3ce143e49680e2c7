"""A user's own convolution or linear layer, quantised."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ftnas.quantization.choices import Quantization
from ftnas.quantization.normalisation import cleaned
from ftnas.quantization.quantized_layer import ONLY_ZEROS, QuantizedLayer
from ftnas.quantization.taps import skipped

FloatLayer: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear

_CONVOLUTIONS: Mapping[int, Callable[..., Tensor]] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


class ConvertedLayer(QuantizedLayer):
    """What ``layer`` computes, and then ``norm``, with the weight and the result on their grids.

    It owns the parameters of both under their names, and has the attributes of ``layer``, such as ``stride`` or
    ``in_features``. Its quantisation is part of its state, since calibration decides whether features have a sign.

    Args:
        layer: a convolution of one to three dimensions or a linear layer.
        quantization: its numbers.
        norm: the batch norm that alone reads the result of ``layer``.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str

    def __init__(self, layer: FloatLayer, quantization: Quantization, *, norm: _BatchNorm | None = None) -> None:
        super().__init__((quantization,), has_weight=True)
        self.kind = "linear" if isinstance(layer, nn.Linear) else "conv"
        for name in layer.__constants__:
            setattr(self, name, getattr(layer, name))
        self.weight = layer.weight
        self.bias = layer.bias
        self.edges = None if isinstance(layer, nn.Linear) or layer.padding_mode == "zeros" else _edges(layer)
        self.train(layer.training)
        self.norm = None if norm is None else cleaned(norm)
        self.to(layer.weight.device)

    def forward(self, input: Tensor) -> Tensor:
        """Return the quantised, normalised result for ``input``."""
        if (known := skipped(self)) is not None:
            return known
        y = self.product(input, self.quantized_weight(self.weight, self.quantization))
        return self.quantized_output(y, self.quantization)

    def product(self, input: Tensor, weight: Tensor) -> Tensor:
        """Return the normalised result for ``input`` with ``weight``, not on a grid."""
        y = self.operate(input, weight, self.bias, getattr(self, "groups", 1))
        y = y if self.norm is None else self.norm(y)
        return y if self.storage is None else self.storage.product(y, self)

    def operate(self, input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        """Return the result for ``input`` with any ``weight`` of the layer's geometry, not normalised."""
        if self.kind == "linear":
            return F.linear(input, weight, bias)
        padding: tuple[int, ...] | str | int = self.padding
        if self.edges is not None:
            input, padding = F.pad(input, self.edges, mode=self.padding_mode), 0
        return _CONVOLUTIONS[weight.dim()](input, weight, bias, self.stride, padding, self.dilation, groups)

    @torch.no_grad()
    def settle_(self, quantization: Quantization, *, low: float, high: float) -> None:
        """Take ``quantization`` for features from ``low`` to ``high``, without a sign where none is negative."""
        self._take(replace(quantization, feature_signed=low < 0))
        limit = max(high, -low, ONLY_ZEROS)
        self.feature_limit.fill_(limit)
        if hasattr(self, "learned_feature_limit"):
            self.learned_feature_limit.fill_(limit)
        if hasattr(self, "learned_weight_limit"):
            self.learned_weight_limit.copy_(self.weight.abs().amax())

    def _take(self, quantization: Quantization) -> None:
        self.quantization, self.choices = quantization, (quantization,)

    def get_extra_state(self) -> Tensor:
        """Return the quantisation as the bytes of its JSON, a tensor, so that any format of weights can hold it."""
        return torch.tensor(list(json.dumps(self.quantization.to_dict()).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the quantisation that ``get_extra_state`` returned."""
        self._take(Quantization.from_dict(json.loads(bytes(state.tolist()))))

    def extra_repr(self) -> str:
        """Return what a print of the model says."""
        return f"{self.kind}, weight={tuple(self.weight.shape)}, {self.quantization}"


def is_convertible(module: nn.Module) -> bool:
    """Return whether ``module`` computes what torch's own convolution or linear layer does."""
    return any(_computes_like(module, kind) for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))


def _computes_like(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether ``module`` is a ``kind`` that no subclass has taught to compute something else."""
    methods = ("forward", "_conv_forward")
    return isinstance(module, kind) and all(getattr(type(module), m, 0) is getattr(kind, m, 0) for m in methods)


def _edges(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[int]:
    """Return the padding as ``F.pad`` takes it: the last dimension first, before and after."""
    if layer.padding == "valid":
        return [0, 0] * len(layer.kernel_size)
    if isinstance(layer.padding, str):
        totals = [step * (size - 1) for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [edge for total in reversed(totals) for edge in (total // 2, total - total // 2)]
    return [edge for padding in reversed(layer.padding) for edge in (padding, padding)]
