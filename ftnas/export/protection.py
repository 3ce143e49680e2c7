"""Redundancy and what corrects it, as operations of the graph: from hardened layers, in float and in integers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ftnas.errors import ExportError
from ftnas.export.graph import Correct, Gather, Halve, Operation
from ftnas.networks.correction import CORRECTIONS
from ftnas.networks.correction_unit import CorrectionUnit
from ftnas.quantization import CodeHalf, FixedPoint, QuantizedLayer, WeightHalf, half_of, half_range

Protecting = Gather | Halve | Correct


def correction_of(unit: CorrectionUnit) -> Correct:
    """Return the operation of ``unit``."""
    protection = unit.protection
    if not all(bool(held.isfinite().all()) for held in unit.limits):
        raise ExportError(f"{protection.method}: was never calibrated (see hardening.calibrate_)")
    limits = tuple(tuple(int(limit) for limit in held.tolist()) for held in unit.limits)
    return Correct(protection.method, protection.rule, protection.channels, limits)


def stored_operations(layer: QuantizedLayer, number: FixedPoint, channels: int) -> tuple[Operation, ...]:
    """Return what becomes of the codes of ``layer``, which has so many ``channels``, before they are stored."""
    storage = layer.storage
    if isinstance(storage, CodeHalf):
        return (Halve(_chosen(storage.channels, channels), storage.upper),)
    if isinstance(storage, WeightHalf):
        chosen = _chosen(storage.channels, channels)
        limits = tuple((end,) * len(chosen) for end in half_range(number))
        return (Correct("guard", "clip", chosen, limits),)
    return ()


def share_of_constants(layer: QuantizedLayer) -> Tensor | None:
    """Return which share of its bias each channel of ``layer`` has ``[C]``; ``None`` where it is the whole."""
    if not isinstance(layer.storage, WeightHalf):
        return None
    share = torch.ones(len(layer.weight))
    share[list(_chosen(layer.storage.channels, len(share)))] = 0.5
    return share


def _chosen(channels: Tensor | None, count: int) -> tuple[int, ...]:
    return tuple(range(count)) if channels is None else tuple(int(channel) for channel in channels.tolist())


class ProtectionStep(nn.Module):
    """One such operation in float, its channels and limits as buffers."""

    channels: Tensor

    def __init__(self, operation: Protecting, number: FixedPoint | None) -> None:
        super().__init__()
        self.operation, self.number = operation, number
        self.register_buffer("channels", torch.tensor(operation.channels))
        for index, limit in enumerate(operation.limits if isinstance(operation, Correct) else ()):
            self.register_buffer(f"limit_{index}", torch.tensor(limit))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the values that ``inputs`` ``[N, C, ...]`` make, on the grid that those are on."""
        if self.number is None:
            return inputs[0].index_select(1, self.channels)
        scale = self.number.scale_of(inputs[0])
        return self.on_codes([(x / scale).round() for x in inputs]) * scale

    def on_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """Return the codes that ``codes`` ``[N, C, ...]``, of any type, make."""
        first = codes[0].index_select(1, self.channels)
        if self.number is None:
            return first
        return codes[0].index_copy(1, self.channels, self._changed([first, *codes[1:]], self.number))

    def _changed(self, codes: Sequence[Tensor], number: FixedPoint) -> Tensor:
        operation = self.operation
        if isinstance(operation, Halve):
            return half_of(codes[0].clamp(max=number.high - 1), upper=operation.upper)
        if isinstance(operation, Gather):
            raise TypeError("to gather channels changes no code")
        limits = [getattr(self, f"limit_{index}").to(codes[0].dtype) for index in range(len(operation.limits))]
        shaped = [limit.view(-1, *[1] * (codes[0].dim() - 2)) for limit in limits]
        return CORRECTIONS[operation.method, operation.rule](codes, number, shaped)

    def before_rounding(self, steps: Tensor) -> Tensor:
        """Return what lies a half or less from the result, for a real input of so many ``steps`` ``[N, C, ...]``.

        Half of a number is a quarter below or above what its half rounds from; restricting it does not round.
        """
        if not isinstance(self.operation, Halve) or self.number is None:
            return self.on_codes([steps])
        own = steps.index_select(1, self.channels).clamp(max=self.number.high - 1)
        quarter = 0.25 if self.operation.upper else -0.25
        return steps.index_copy(1, self.channels, own / 2 + quarter)
