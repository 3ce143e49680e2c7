"""Quantised layers: the only modules that own fault sites.

Each forward pass puts the weight on its grid, computes, normalises, and puts the result on its grid; an active
tap (see ``taps``) then sees the quantised weight and the quantised result, as the hardware would hold them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.quantization.choices import Quantization, Range
from ftnas.quantization.formats import FixedPoint
from ftnas.quantization.rounding import power_of_two_above, snap, snap_, snap_learned
from ftnas.quantization.taps import current_tap

BATCH_NORM_EPSILON = 1e-5
MOMENTUM = 0.1


class Blend:
    """A mixture of quantisation choices, weighted by a tensor ``[choices]`` that sums to one (DARTS relaxation)."""

    def __init__(self, choices: Sequence[Quantization], weights: Tensor) -> None:
        self.choices = tuple(choices)
        self.weights = weights


class CleanBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose running statistics come from clean passes only.

    While a tap is active nothing is updated. In training the faulty batch is then normalised by its own mean and
    variance: by the clean batch's, taken as constants, the gradient no longer knows that the scale of a weight does
    not matter (ResNet-20 at a quarter of its width on digits, MiBB 3e-3, 20 epochs: 41 % instead of 74 %).
    """

    def __init__(self, channels: int, *, affine: bool) -> None:
        super().__init__(channels, eps=BATCH_NORM_EPSILON, momentum=MOMENTUM, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` ``[N, C, H, W]`` normalised."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        if current_tap() is not None:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, eps=self.eps)
        momentum = self.momentum or 0.0
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, momentum, self.eps)


class QuantizedLayer(nn.Module):
    """Ranges of one layer's weight and output.

    Args:
        choices: every quantisation that a forward pass may ask for; the first is the layer's own.
    """

    feature_limit: Tensor

    def __init__(self, choices: Sequence[Quantization], *, has_weight: bool) -> None:
        super().__init__()
        self.choices = tuple(choices)
        self.quantization = self.choices[0]
        self.momentum = MOMENTUM
        self.register_buffer("feature_limit", torch.zeros(()))
        if has_weight and any(c.weight_range.policy == "learned" for c in choices):
            self.learned_weight_limit = nn.Parameter(torch.zeros(()))
        if any(c.feature_range.policy == "learned" for c in choices):
            self.learned_feature_limit = nn.Parameter(torch.zeros(()))

    @property
    def macs_per_value(self) -> int:
        """Multiply-accumulates behind one output value, the bias not counted (arXiv 2003.10375, MiBB)."""
        return 0

    def weight_number(self, weight: Tensor, quantization: Quantization | None = None) -> FixedPoint:
        """Return the number format of ``weight`` under ``quantization`` (the layer's own by default)."""
        choice = quantization or self.quantization
        limit = self._limit(choice.weight_range, "learned_weight_limit", lambda: float(weight.detach().abs().amax()))
        return _number(choice.weight_bits, limit)

    def feature_number(self, quantization: Quantization | None = None) -> FixedPoint:
        """Return the number format of the output under ``quantization`` (the layer's own by default)."""
        choice = quantization or self.quantization
        limit = self._limit(choice.feature_range, "learned_feature_limit", lambda: float(self.feature_limit))
        return _number(choice.feature_bits, limit)

    def quantized_weight(self, weight: Tensor, quantization: Quantization | Blend) -> Tensor:
        """Return ``weight`` on its grid, faulty where a tap says so; a blend sums its choices."""
        if isinstance(quantization, Blend):
            parts = zip(quantization.weights, quantization.choices, strict=True)
            return torch.stack([share * self.quantized_weight(weight, choice) for share, choice in parts]).sum(0)
        tap = current_tap()
        if quantization.weight_range.policy == "learned" and tap is None:
            _start(self.learned_weight_limit, weight)
        number = self.weight_number(weight, quantization)
        if quantization.weight_range.policy == "learned":
            on_grid = snap_learned(weight, self.learned_weight_limit, number)
        else:
            on_grid = snap(weight, number)
        return on_grid if tap is None else tap.weight(self, on_grid, number)

    def quantized_output(self, y: Tensor, quantization: Quantization | Blend) -> Tensor:
        """Return ``y`` on its grid, faulty where a tap says so. Changes ``y`` in place where it can."""
        if isinstance(quantization, Blend):
            parts = zip(quantization.weights, quantization.choices, strict=True)
            return torch.stack([share * self.quantized_output(y.clone(), choice) for share, choice in parts]).sum(0)
        tap = current_tap()
        self._watch(y, quantization.feature_range, observe=tap is None and self.training)
        number = self.feature_number(quantization)
        if quantization.feature_range.policy == "learned":
            y = snap_learned(y, self.learned_feature_limit, number)
        else:
            if quantization.feature_range.policy == "fixed":
                # What a fixed range cuts off must get no gradient, or it grows without bound behind the clip.
                y = y.clamp(number.low * number.scale, number.high * number.scale)
            y = snap_(y, number)
        if tap is not None:
            tap.output(self, y, number)
        return y

    def _watch(self, y: Tensor, policy: Range, *, observe: bool) -> None:
        if not observe or policy.policy == "fixed":
            return
        if policy.policy == "learned":
            _start(self.learned_feature_limit, y)
            return
        # Two passes without a copy: half the time of ``abs().amax()``, a thirtieth of the infinity norm's.
        peak = torch.maximum(y.detach().amax(), y.detach().amin().abs())
        first = float(self.feature_limit) == 0
        self.feature_limit.lerp_(peak, 1.0 if first else self.momentum)

    def _limit(self, policy: Range, learned: str, measured: Callable[[], float]) -> float:
        if policy.policy == "fixed":
            return policy.limit
        if policy.policy == "learned":
            parameter: Tensor | None = getattr(self, learned, None)
            if parameter is None:
                raise ValueError("a learned range must be among the choices that the layer was built with")
            value = float(parameter.detach())
            return max(value if value > 0 else measured(), 1e-5)
        value = measured()
        return power_of_two_above(value) if policy.policy == "power_of_two" else max(value, 1e-5)


class QuantizedConv2d(QuantizedLayer):
    """A convolution ``[N, C_in, H, W] -> [N, C_out, H', W']``, optionally with batch norm before the output's grid.

    Batch norm counts as part of the layer because hardware folds it: the value that is stored, and may be faulty,
    is the normalised one.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: Literal["none", "plain", "affine"] = "affine",
        bias: bool = False,
        choices: Sequence[Quantization] = (Quantization(),),
    ) -> None:
        super().__init__(choices, has_weight=True)
        convolution = nn.Conv2d(channels_in, channels_out, kernel, groups=groups, bias=bias)
        self.weight, self.bias = convolution.weight, convolution.bias
        nn.init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="relu")
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.padding = dilation * (kernel - 1) // 2
        self.norm = CleanBatchNorm2d(channels_out, affine=norm == "affine") if norm != "none" else None

    @property
    def macs_per_value(self) -> int:
        """Input channels of one group times the kernel's area."""
        return math.prod(self.weight.shape[1:])

    def forward(self, x: Tensor, quantization: Quantization | Blend | None = None) -> Tensor:
        """Return the quantised, normalised convolution of ``x``; ``quantization`` replaces the layer's own."""
        choice = quantization or self.quantization
        weight = self.quantized_weight(self.weight, choice)
        y = F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return self.quantized_output(y if self.norm is None else self.norm(y), choice)


class QuantizedLinear(QuantizedLayer):
    """A linear layer ``[N, C_in] -> [N, C_out]`` with bias; the bias stays wide, as accumulators are."""

    def __init__(
        self, channels_in: int, channels_out: int, *, choices: Sequence[Quantization] = (Quantization(),)
    ) -> None:
        super().__init__(choices, has_weight=True)
        linear = nn.Linear(channels_in, channels_out)
        self.weight, self.bias = linear.weight, linear.bias

    @property
    def macs_per_value(self) -> int:
        """One for each input."""
        return self.weight.shape[1]

    def forward(self, x: Tensor, quantization: Quantization | Blend | None = None) -> Tensor:
        """Return the quantised product; ``quantization`` replaces the layer's own."""
        choice = quantization or self.quantization
        y = F.linear(x, self.quantized_weight(self.weight, choice), self.bias)
        return self.quantized_output(y, choice)


class QuantizedSum(QuantizedLayer):
    """The sum of several feature maps, put on a grid of its own: what the next layer reads is 8 bits wide again."""

    def __init__(self, *, choices: Sequence[Quantization] = (Quantization(),)) -> None:
        super().__init__(choices, has_weight=False)

    def forward(self, terms: Sequence[Tensor]) -> Tensor:
        """Return the quantised sum of ``terms`` (one or more, all of one shape); no term is changed."""
        total = terms[0].clone() if len(terms) == 1 else terms[0] + terms[1]
        for term in terms[2:]:
            total = total + term
        return self.quantized_output(total, self.quantization)


def set_momentum(model: nn.Module, momentum: float) -> None:
    """Give the running statistics of every layer of ``model`` this ``momentum``; 1 forgets what was there."""
    for layer in model.modules():
        if isinstance(layer, (QuantizedLayer, CleanBatchNorm2d)):
            layer.momentum = momentum


def quantized_layers(model: nn.Module) -> dict[str, QuantizedLayer]:
    """Return the quantised layers of ``model`` by module path."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantizedLayer)}


def _number(bits: int, limit: float) -> FixedPoint:
    return FixedPoint(bits, limit / 2 ** (bits - 1))


def _start(limit: Tensor, values: Tensor) -> None:
    """Begin a learned range at the largest magnitude, and again where training drove it below zero."""
    if float(limit.detach()) <= 0:
        with torch.no_grad():
            limit.copy_(values.abs().amax().clamp_min(1e-5))
