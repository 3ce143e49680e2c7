"""Channels of a quantised layer computed once more, on hardware of their own: what redundancy is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.quantization.choices import Quantization
from ftnas.quantization.converted import ConvertedLayer
from ftnas.quantization.formats import FixedPoint, Number
from ftnas.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedSum
from ftnas.quantization.normalisation import CleanBatchNorm, normalised_by_batch
from ftnas.quantization.quantized_layer import Blend, QuantizedLayer
from ftnas.quantization.storage import Storage
from ftnas.quantization.taps import skipped

ComputingLayer = QuantizedConv2d | QuantizedLinear | ConvertedLayer


class RedundantCopy(QuantizedLayer):
    """Some channels of ``layer`` once more: a quantised layer with faults of its own.

    Weights, biases, batch norm and ranges are those of ``layer``, whatever training makes of them; in hardware they are
    stored once more, and ``stored_again`` counts them. Where a state dict holds a ``weight`` of the copy, as that of a
    faulty chip does, the copy keeps it instead.

    Args:
        layer: whose channels.
        channels: which of them ``[k]``, ascending; of a grouped convolution whole groups.
        storage: how the copy stores weight and output.
    """

    channels: Tensor

    def __init__(self, layer: QuantizedLayer, channels: Tensor, storage: Storage | None = None) -> None:
        # Not that of a quantised layer, which would make ranges of its own.
        nn.Module.__init__(self)
        self._whole = [layer]  # in a list, so that the layer is no module of the copy's
        self.kind = layer.kind
        self.storage = storage
        self.register_buffer("channels", channels, persistent=False)

    @property
    def whole(self) -> QuantizedLayer:
        """The layer that is copied."""
        return self._whole[0]

    @property
    def macs_per_value(self) -> int:
        """Those of the layer."""
        return self.whole.macs_per_value

    @property
    def stored_again(self) -> int:
        """Parameters of the layer that the copy holds once more: weights, biases and what batch norm has learned."""
        if self.kind == "sum":
            return 0
        norm: CleanBatchNorm | None = getattr(self.whole, "norm", None)
        per_channel = [getattr(self.whole, "bias", None), getattr(norm, "weight", None), getattr(norm, "bias", None)]
        return self.weight.numel() + len(self.channels) * sum(held is not None for held in per_channel)

    @property
    def has_own_weight(self) -> bool:
        """Whether the copy keeps a weight, as that of a faulty chip does."""
        return "weight" in self._buffers

    def __getattr__(self, name: str) -> Any:
        if name == "weight" and name not in self._buffers:
            return self.rows(self.whole.weight)
        if name in ("choices", "quantization", "momentum", "feature_limit") or name.startswith("learned_"):
            return getattr(self.whole, name)
        return super().__getattr__(name)

    @property
    def groups(self) -> int:
        """Of a grouped convolution those whose channels are copied; else 1."""
        groups: int = getattr(self.whole, "groups", 1)
        return groups * len(self.channels) // len(self.whole.weight) if groups > 1 else 1

    @property
    def bias(self) -> Tensor | None:
        """The channels' part of the layer's."""
        bias: Tensor | None = getattr(self.whole, "bias", None)
        return None if bias is None else self.rows(bias)

    def constant(self) -> Tensor:
        """Return what each channel gives where every input is 0."""
        return self.rows(self.whole.constant())

    def weight_number(self, weight: Tensor, quantization: Quantization | None = None) -> Number:
        """Return the number format of the copy's weight: that of the layer's."""
        number = self.whole.weight_number(self.whole.weight, quantization)
        if not isinstance(number, FixedPoint) or not number.per_channel:
            return number
        scale = number.scale
        if isinstance(scale, tuple):  # which the host knows, and has to know for what it computes itself
            return FixedPoint(number.bits, tuple(scale[channel] for channel in self.channels.tolist()), number.signed)
        return FixedPoint(number.bits, self.rows(torch.as_tensor(scale)), number.signed)

    def feature_number(self, quantization: Quantization | None = None) -> Number:
        """Return the number format of the output, which is the layer's."""
        return self.whole.feature_number(quantization)

    @property
    def feature_range_is_known(self) -> bool:
        """Whether that of the layer is."""
        return self.whole.feature_range_is_known

    def quantized_output(self, y: Tensor, quantization: Quantization | Blend) -> Tensor:
        """Return ``y`` on its grid, faulty where a tap says so; the layer alone measures ranges."""
        if isinstance(quantization, Blend):
            raise TypeError("a copy is of a derived net's layer, which mixes no quantisations")
        return self._on_grid(y, quantization)

    def forward(self, x: Tensor | Sequence[Tensor], quantization: Quantization | None = None) -> Tensor:
        """Return the quantised output of the channels; ``x`` holds what those read (see ``inputs_of``)."""
        if (known := skipped(self)) is not None:
            return known
        choice = quantization or self.quantization
        if not isinstance(x, Tensor):
            return self.quantized_output(self.total(x), choice)
        return self.quantized_output(self.product(x, self.quantized_weight(self.weight, choice)), choice)

    def total(self, terms: Sequence[Tensor]) -> Tensor:
        """Return the sum of ``terms``, not on a grid."""
        if not isinstance(self.whole, QuantizedSum):
            raise TypeError("only a sum has a total")
        return self.whole.total(terms)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return what the layer computes of ``x`` in these channels with ``weight``, not on a grid."""
        layer = self.whole
        if not isinstance(layer, ComputingLayer):
            raise TypeError(f"{type(layer).__name__} cannot be copied")
        y = layer.operate(x, weight, self.bias, self.groups)
        activation, norm = getattr(layer, "activation", None), getattr(layer, "norm", None)
        y = y if activation is None else activation(y)
        y = y if norm is None else self._normalised(y, norm)
        return y if self.storage is None else self.storage.product(y, self)

    def _normalised(self, y: Tensor, norm: CleanBatchNorm) -> Tensor:
        """Return ``y`` after the channels' part of ``norm``, whose statistics it does not touch."""
        scale, shift = (None if held is None else self.rows(held) for held in (norm.weight, norm.bias))
        mean, variance = norm.running_mean, norm.running_var
        if norm.training or mean is None or variance is None:
            return normalised_by_batch(y, scale, shift, eps=norm.eps)
        return F.batch_norm(y, self.rows(mean), self.rows(variance), scale, shift, eps=norm.eps)

    def rows(self, x: Tensor) -> Tensor:
        """Return the channels' part of ``x``, which has one entry or row for each channel of the layer."""
        return x if len(self.channels) == len(x) else x.index_select(0, self.channels)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Make room for a weight of the copy's own, if the state dict has one."""
        if f"{prefix}weight" in state_dict and self.kind != "sum":
            self._buffers["weight"] = torch.empty_like(self.rows(self.whole.weight.detach()))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def inputs_of(layer: QuantizedLayer, channels: Tensor) -> Tensor | None:
    """Return which input channels the output ``channels`` of ``layer`` read, ``None`` where it is all of them."""
    if layer.kind == "sum":
        return channels
    groups: int = getattr(layer, "groups", 1)
    if groups == 1:
        return None
    per_group = len(layer.weight) // groups
    read = layer.weight.shape[1]
    chosen = channels[::per_group] // per_group
    return (chosen[:, None] * read + torch.arange(read, device=channels.device)).flatten()
