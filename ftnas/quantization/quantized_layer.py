"""What all quantised layers have, the only modules that own fault sites: ranges, formats, and grids.

Each forward pass puts the weight on its grid, computes, normalises, and puts the result on its grid; an active
tap (see ``taps``) then sees the quantised weight and the quantised result, as the hardware would hold them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.distributed import largest_, sharing
from ftnas.errors import FaultError
from ftnas.quantization.choices import Quantization, Range
from ftnas.quantization.formats import FixedPoint, Number
from ftnas.quantization.host import stays_on_device
from ftnas.quantization.normalisation import MOMENTUM, CleanBatchNorm
from ftnas.quantization.ranges import end_of, ends_of, follow_, peak_of, start_
from ftnas.quantization.rounding import snap, snap_, snap_learned
from ftnas.quantization.storage import Storage
from ftnas.quantization.taps import current_tap, statistics_run

LayerKind = Literal["conv", "linear", "sum"]

# The measured limit of outputs that were all zero; 0 itself says that nothing was measured. Exact in float32.
ONLY_ZEROS = 2.0**-100


class Blend:
    """A mixture of quantisation choices, weighted by a tensor ``[choices]`` that sums to one (DARTS relaxation)."""

    def __init__(self, choices: Sequence[Quantization], weights: Tensor) -> None:
        self.choices = tuple(choices)
        self.weights = weights


class QuantizedLayer(nn.Module):
    """Ranges of one layer's weight and output.

    Args:
        choices: every quantisation that a forward pass may ask for; the first is the layer's own.

    Attributes:
        kind: what the layer computes; a sum holds no weight.
        stores_output: whether the output is a fault site; sums that go straight into a membrane are stored nowhere.
        is_step: whether the layer is one step in time of a register that its parent module is.
        feature_limit: the largest magnitude of an output so far, as a running mean; 0 before the first.
        storage: how weight and output are stored, if not as they are.
        measured: whether a pass in training, through this object, has measured the range of the output.
    """

    kind: LayerKind = "sum"
    stores_output = True
    is_step = False
    measured = False
    weight: Tensor
    feature_limit: Tensor

    def __init__(self, choices: Sequence[Quantization], *, has_weight: bool) -> None:
        super().__init__()
        self.choices = tuple(choices)
        self.quantization = self.choices[0]
        self.storage: Storage | None = None
        self.momentum = MOMENTUM
        self.register_buffer("feature_limit", torch.zeros(()))
        if has_weight and any(c.weight_range.policy == "learned" for c in choices):
            self.learned_weight_limit = nn.Parameter(torch.zeros(()))
        if any(c.feature_range.policy == "learned" for c in choices):
            self.learned_feature_limit = nn.Parameter(torch.zeros(()))

    @property
    def macs_per_value(self) -> int:
        """Multiply-accumulates behind one output value, the bias not counted (arXiv 2003.10375, MiBB).

        Input channels of one group times the kernel's extent; 0 for a sum.
        """
        return 0 if self.kind == "sum" else math.prod(self.weight.shape[1:])

    def constant(self) -> Tensor:
        """Return what each channel gives where every input is 0, in evaluation, not on a grid ``[C]``."""
        bias: Tensor | None = getattr(self, "bias", None)
        norm: CleanBatchNorm | None = getattr(self, "norm", None)
        constant = self.weight.new_zeros(len(self.weight)) if bias is None else bias
        if norm is None:
            return constant
        mean, variance = norm.running_mean, norm.running_var
        return F.batch_norm(constant[None], mean, variance, norm.weight, norm.bias, eps=norm.eps)[0]

    @property
    def stored_again(self) -> int:
        """Parameters of another layer that this one, a copy of it, stores once more."""
        return 0

    def weight_number(self, weight: Tensor, quantization: Quantization | None = None) -> Number:
        """Return the number format of ``weight`` under ``quantization`` (the layer's own by default)."""
        choice = quantization or self.quantization
        limits, bits = choice.weight_range, choice.weight_bits
        if choice.float_word is not None:
            return choice.float_word
        if self.training and limits.policy != "fixed" and stays_on_device(weight):
            return FixedPoint(bits, ends_of(limits, self._weight_peaks(weight, limits)) / 2 ** (bits - 1))
        if limits.per_channel:
            peaks: list[float] = self._weight_peaks(weight, limits).tolist()
            return FixedPoint(bits, tuple(end_of(limits, peak) / 2 ** (bits - 1) for peak in peaks))
        return FixedPoint(bits, self._weight_limit(weight, limits) / 2 ** (bits - 1))

    def feature_number(self, quantization: Quantization | None = None) -> Number:
        """Return the number format of the output under ``quantization`` (the layer's own by default).

        Raises:
            FaultError: the range is to be measured, and was not.
        """
        choice = quantization or self.quantization
        if choice.float_word is not None:
            return choice.float_word
        limit = self._feature_limit(choice.feature_range)
        if limit is None:
            remedy = "let the model see a batch in training mode first, or give it a range such as fixed(4)"
            raise FaultError(f"{self._description()}: the range of its output was never measured; {remedy}")
        magnitude_bits = choice.feature_bits - 1 if choice.feature_signed else choice.feature_bits
        return FixedPoint(choice.feature_bits, limit / 2**magnitude_bits, choice.feature_signed)

    @property
    def feature_range_is_known(self) -> bool:
        """Whether the layer's own quantisation states the range of the output, or a training pass has measured it."""
        return self.quantization.word != "integer" or self._feature_limit(self.quantization.feature_range) is not None

    def quantized_weight(self, weight: Tensor, quantization: Quantization | Blend) -> Tensor:
        """Return ``weight`` on its grid, faulty where a tap says so; a blend sums its choices."""
        if isinstance(quantization, Blend):
            parts = zip(quantization.weights, quantization.choices, strict=True)
            return torch.stack([share * self.quantized_weight(weight, choice) for share, choice in parts]).sum(0)
        tap, (stored, number) = current_tap(), self.stored_weight(weight, quantization)
        faulty = stored if tap is None else tap.weight(self, stored, number)
        return faulty if self.storage is None else self.storage.read(faulty, stored)

    def stored_weight(self, weight: Tensor, quantization: Quantization) -> tuple[Tensor, Number]:
        """Return what is stored of ``weight`` without faults, and its format."""
        is_learned = quantization.weight_range.policy == "learned"
        if is_learned and statistics_run():
            start_(self.learned_weight_limit, weight)
        number = self.weight_number(weight, quantization)
        if is_learned and isinstance(number, FixedPoint):
            on_grid = snap_learned(weight, self.learned_weight_limit, number)
        else:
            on_grid = snap(weight, number)
        return (on_grid if self.storage is None else self.storage.weight(on_grid, number)), number

    def quantized_output(self, y: Tensor, quantization: Quantization | Blend) -> Tensor:
        """Return ``y`` on its grid, faulty where a tap says so. Changes ``y`` in place where it can."""
        choices = quantization.choices if isinstance(quantization, Blend) else (quantization,)
        if self.training and statistics_run():
            self._watch(y, choices)
        if not isinstance(quantization, Blend):
            return self._on_grid(y, quantization)
        parts = zip(quantization.weights, choices, strict=True)
        return torch.stack([share * self._on_grid(y.clone(), choice) for share, choice in parts]).sum(0)

    def _on_grid(self, y: Tensor, quantization: Quantization) -> Tensor:
        tap = current_tap()
        policy, number = quantization.feature_range.policy, self.feature_number(quantization)
        if policy == "learned" and isinstance(number, FixedPoint):
            y = snap_learned(y, self.learned_feature_limit, number, parts=sharing().size)
        else:
            if policy == "fixed" and isinstance(number, FixedPoint):
                # What a fixed range cuts off must get no gradient, or it grows without bound behind the clip.
                y = y.clamp(*number.ends)
            y = snap_(y, number)
        if self.storage is not None:
            y = self.storage.unseen(y, number) if tap is None else self.storage.output(y, number)
        if tap is not None:
            tap.output(self, y, number)
        return y

    def _watch(self, y: Tensor, choices: Sequence[Quantization]) -> None:
        """Note the range of ``y``, once however many of ``choices`` want to know it."""
        asking = [choice for choice in choices if choice.word == "integer"]
        policies = {choice.feature_range.policy for choice in asking}
        signed = any(choice.feature_signed for choice in asking)
        if "learned" in policies:
            start_(self.learned_feature_limit, y, signed=signed)
        if not policies <= {"learned", "fixed"}:
            peak = largest_(peak_of(y, signed=signed)).clamp_min_(ONLY_ZEROS).to(self.feature_limit.dtype)
            follow_(self.feature_limit, peak, self.momentum, nothing=ONLY_ZEROS)
        self.measured = True

    def _weight_limit(self, weight: Tensor, limits: Range) -> float:
        if limits.policy == "fixed":
            return limits.limit
        learned = float(self._learned("learned_weight_limit")) if limits.policy == "learned" else 0.0
        return end_of(limits, learned if learned > 0 else float(weight.detach().abs().amax()))

    def _weight_peaks(self, weight: Tensor, limits: Range) -> Tensor:
        """Return what the range of ``weight``, or of each of its channels, must reach: ``[]`` or ``[out]``."""
        if limits.per_channel:
            return weight.detach().abs().flatten(1).amax(1)
        peak = weight.detach().abs().amax()
        if limits.policy != "learned":
            return peak
        learned = self._learned("learned_weight_limit")
        return torch.where(learned > 0, learned, peak)

    def _feature_limit(self, limits: Range) -> float | Tensor | None:
        """Return the end of the output's range; ``None`` where it is not known yet."""
        if limits.policy == "fixed":
            return limits.limit
        limit = self._learned("learned_feature_limit") if limits.policy == "learned" else self.feature_limit
        if self.training and stays_on_device(limit):
            # Looked at once: what a pass has measured, later ones need not ask the device for.
            self.measured = self.measured or bool(limit)
            return ends_of(limits, limit) if self.measured else None
        known = float(limit)
        return end_of(limits, known) if known else None

    def _learned(self, name: str) -> Tensor:
        parameter: Tensor | None = getattr(self, name, None)
        if parameter is None:
            raise ValueError("a learned range must be among the choices that the layer was built with")
        return parameter.detach()

    def _description(self) -> str:
        return type(self).__name__ + (f" with a weight {tuple(self.weight.shape)}" if self.kind != "sum" else "")
