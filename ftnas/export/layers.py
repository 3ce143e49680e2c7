"""The quantised layers of a net that is traced: stand-ins while it runs, then nodes with integer weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.errors import ExportError, FaultError
from ftnas.export.graph import Add, Clamp, Convolve, Multiply, Operation, Reals, Scale, Weight
from ftnas.export.protection import correction_of, share_of_constants, stored_operations
from ftnas.faults import Fault, inject, parse_faults
from ftnas.faults.codes import is_analogue
from ftnas.faults.models import duration
from ftnas.networks.correction_unit import CorrectionUnit
from ftnas.quantization import (
    Activation,
    Blend,
    CleanBatchNorm,
    ConvertedLayer,
    FixedPoint,
    Quantization,
    QuantizedConv2d,
    QuantizedLayer,
    RedundantCopy,
)


@dataclass(frozen=True, slots=True, eq=False)
class Called:
    """One call of a quantised layer: which, in which numbers, on a value of which shape (no batch)."""

    path: str
    quantization: Quantization
    shape: tuple[int, ...]

    @property
    def dimensions(self) -> int:
        """Of the value."""
        return len(self.shape)

    @property
    def channels(self) -> int:
        """Of the value."""
        return self.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """What a called layer computes, one operation after the other, and the grid of its result.

    ``stored``: what becomes of that result before it is stored, on the same grid.
    """

    path: str
    operations: tuple[Operation, ...]
    number: FixedPoint
    stored: tuple[Operation, ...] = ()


@torch.library.custom_op("ftnas::quantized_layer", mutates_args=())
def _layer(terms: list[Tensor], call: int, shape: list[int]) -> Tensor:
    """Stand for call number ``call`` of a quantised layer."""
    raise RuntimeError("this operation exists while a net is traced only")


@_layer.register_fake
def _(terms: list[Tensor], call: int, shape: list[int]) -> Tensor:
    return terms[0].new_empty(shape)


LAYER = torch.ops.ftnas.quantized_layer.default


Traceable: TypeAlias = QuantizedLayer | CorrectionUnit


class _StandIn(nn.Module):
    """A layer that notes its calls and computes nothing but the shape of its result."""

    def __init__(self, path: str, layer: Traceable, calls: list[Called]) -> None:
        super().__init__()
        self.path, self._layer, self._calls = path, [layer], calls

    def forward(self, x: Tensor | Sequence[Tensor], quantization: Quantization | Blend | None = None) -> Tensor:
        """Return a tensor of the shape that the layer gives."""
        (layer,) = self._layer
        choice = quantization or layer.quantization
        if isinstance(choice, Blend):
            raise ExportError(f"{self.path}: a mixture of numbers cannot be exported, only a derived net")
        terms = [x] if isinstance(x, Tensor) else list(x)
        self._calls.append(Called(self.path, choice, tuple(terms[0].shape[1:])))
        shape = _shape_of(self.path, layer, tuple(terms[0].shape))
        result: Tensor = LAYER(terms, len(self._calls) - 1, shape)
        return result


def put_stand_ins_(model: nn.Module, calls: list[Called]) -> nn.Module:
    """Replace each quantised layer of ``model`` by a stand-in that appends to ``calls``, and return the model.

    Correction units are replaced as layers are.
    """
    stand_ins: dict[nn.Module, nn.Module] = {
        layer: _StandIn(path, layer, calls) for path, layer in _traceable(model).items()
    }
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in stand_ins:
                parent._modules[name] = stand_ins[child]
    return stand_ins.get(model, model)


def lasting_faults(faults: Fault | str | Sequence[Fault | str]) -> tuple[Fault, ...]:
    """Return ``faults`` as fault models, all of which weights in a file can have.

    Raises:
        ExportError: one of them they cannot have.
    """
    chosen = parse_faults(faults)
    for fault in chosen:
        _check_lasting(fault)
    return chosen


def weights_of_chip(
    model: nn.Module, calls: Sequence[Called], *, faults: Sequence[Fault], chip: int, study: str
) -> list[Exported]:
    """Return what each of ``calls`` computes on chip ``chip`` with ``faults`` (on a fault-free one without any)."""
    layers = _traceable(model)
    try:
        with torch.no_grad(), inject(model, faults, chip=chip, study=study):
            return [_exported(layers[call.path], call) for call in calls]
    except FaultError as error:
        raise ExportError(str(error)) from error


def _check_lasting(fault: Fault) -> None:
    """Refuse what the integers of a file cannot hold."""
    why = ""
    if fault.target == "features":
        why = "hits features, which exist only while the net computes"
    elif duration(fault) != "permanent":
        why = f"is {duration(fault)}, so that no one set of weights has it"
    elif is_analogue(fault):
        why = "leaves the grid, so that no integers hold it"
    if why:
        raise ExportError(f"{fault}: {why}; a faulty twin takes permanent faults of stored weights")


def _traceable(model: nn.Module) -> dict[str, Traceable]:
    """Return the quantised layers and the correction units of ``model`` by module path."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Traceable)}


def _exported(layer: Traceable, call: Called) -> Exported:
    if isinstance(layer, CorrectionUnit):
        return Exported(call.path, (correction_of(layer),), layer.number(call.quantization))
    number = _feature_number(layer, call)
    if layer.kind == "sum":
        return Exported(call.path, (Add(),), number, stored_operations(layer, number, call.channels))
    found = _computed(layer, call, number)
    return replace(found, stored=stored_operations(layer, number, len(layer.weight)))


def _computed(layer: QuantizedLayer, call: Called, number: FixedPoint) -> Exported:
    product, (gain, offset) = _product(layer, call), _normalised(layer, call)
    activation: Activation | None = _whole(layer, "activation")
    if activation is None:
        return Exported(call.path, (replace(product, gain=gain, offset=offset),), number)
    rectifier = activation.rectifier
    if rectifier.threshold:
        raise ExportError(f"{call.path}: the activation {rectifier} cannot be exported")
    norm = () if gain is None or offset is None else (Scale(gain, offset),)
    return Exported(call.path, (product, Clamp(0.0, rectifier.limit), *norm), number)


def _product(layer: QuantizedLayer, call: Called) -> Convolve | Multiply:
    """Return convolution or linear layer without batch norm."""
    weight, bias = _weight(layer, call), _shared(_reals(getattr(layer, "bias", None)), layer)
    if layer.kind == "linear":
        return Multiply(weight, bias)
    if _whole(layer, "edges") is not None:
        mode = _whole(layer, "padding_mode")
        raise ExportError(f"{call.path}: padding_mode={mode!r} cannot be exported, only 'zeros'")
    stride, padding, dilation, groups = _geometry(layer)
    return Convolve(weight, bias, None, None, stride, padding, dilation, groups)


def _feature_number(layer: QuantizedLayer, call: Called) -> FixedPoint:
    try:
        number = layer.feature_number(call.quantization)
    except FaultError as error:
        raise ExportError(f"{call.path}: {error}") from error
    if not isinstance(number, FixedPoint):
        raise ExportError(f"{call.path}: holds {number} values; only integers can be exported")
    return number


def _weight(layer: QuantizedLayer, call: Called) -> Weight:
    """Return the weight as the layer computes with it under the active injection."""
    weight = layer.weight.detach()
    number = layer.weight_number(weight, call.quantization)
    if not isinstance(number, FixedPoint):
        raise ExportError(f"{call.path}: holds {number} weights; only integers can be exported")
    values = layer.quantized_weight(weight, call.quantization)
    return Weight(number.encode(values).cpu().numpy(), number)


def _normalised(layer: QuantizedLayer, call: Called) -> tuple[Reals | None, Reals | None]:
    norm: CleanBatchNorm | None = _whole(layer, "norm")
    if norm is None:
        return None, None
    if layer.kind == "linear" and call.dimensions > 1:
        raise ExportError(f"{call.path}: a linear layer with batch norm can be exported for vectors [N, C] only")
    gain, offset = batch_norm(norm.weight, norm.bias, norm.running_mean, norm.running_var, eps=norm.eps)
    if isinstance(layer, RedundantCopy):
        rows = layer.channels.cpu().numpy()
        gain, offset = gain[rows], offset[rows]
    return gain, _shared(offset, layer)


def _whole(layer: QuantizedLayer, name: str) -> Any:
    """Return what ``layer``, or the layer that it is a copy of, has as ``name``; ``None`` where it has no such."""
    return getattr(layer.whole if isinstance(layer, RedundantCopy) else layer, name, None)


def _shared(constants: Reals | None, layer: QuantizedLayer) -> Reals | None:
    """Return that share of ``constants`` ``[C]`` which ``layer`` adds."""
    share = share_of_constants(layer)
    return constants if constants is None or share is None else constants * share.numpy()


def batch_norm(
    weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, variance: Tensor | None, *, eps: float
) -> tuple[Reals, Reals]:
    """Return gain and offset of a batch norm in evaluation, as torch has them.

    It multiplies by an approximate reciprocal root and rounds once where a product is added, so what it makes of 0 and
    of 1 says both to the bit; a formula of our own moves codes of 8 in 512 images over a rounding step (measured).
    """
    if mean is None or variance is None:
        raise ExportError("a batch norm without running statistics cannot be exported")
    zeros = torch.zeros(1, len(mean), device=mean.device)
    with torch.no_grad():
        offset = F.batch_norm(zeros, mean, variance, weight, bias, eps=eps)[0]
        gain = F.batch_norm(zeros + 1, zeros[0], variance, weight, None, eps=eps)[0]
    return gain.cpu().numpy(), offset.cpu().numpy()


def _reals(x: Tensor | None) -> Reals | None:
    return None if x is None else x.detach().float().cpu().numpy().astype(np.float32)


Geometry = tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...], int]


def _geometry(layer: QuantizedLayer) -> Geometry:
    """Return stride, padding before and after, dilation and groups of a convolution."""
    if isinstance(layer, RedundantCopy):
        return (*_geometry(layer.whole)[:3], layer.groups)
    if isinstance(layer, QuantizedConv2d):
        pad = (layer.padding, layer.padding)
        return (layer.stride, layer.stride), (pad, pad), (layer.dilation, layer.dilation), layer.groups
    if isinstance(layer, ConvertedLayer):
        return layer.stride, _padding(layer), layer.dilation, layer.groups
    raise ExportError(f"{type(layer).__name__} is a convolution that cannot be exported")


def _padding(layer: ConvertedLayer) -> tuple[tuple[int, int], ...]:
    kernel = layer.weight.shape[2:]
    if layer.padding == "valid":
        return tuple((0, 0) for _ in kernel)
    if isinstance(layer.padding, str):
        totals = [step * (size - 1) for step, size in zip(layer.dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((pad, pad) for pad in layer.padding)


def _shape_of(path: str, layer: Traceable, shape: tuple[int, ...]) -> list[int]:
    """Return the shape of the result for a first term of ``shape``, both with the batch."""
    if isinstance(layer, CorrectionUnit) or layer.kind == "sum":
        return list(shape)
    if layer.kind == "linear":
        return [*shape[:-1], layer.weight.shape[0]]
    stride, padding, dilation, _ = _geometry(layer)
    kernel = layer.weight.shape[2:]
    if len(shape) != len(kernel) + 2:
        raise ExportError(f"{path}: takes images [N, C, ...] of {len(kernel)} dimensions, got {shape}")
    spatial = [
        (size + sum(pad) - wide * (extent - 1) - 1) // step + 1
        for size, pad, wide, extent, step in zip(shape[2:], padding, dilation, kernel, stride, strict=True)
    ]
    return [shape[0], layer.weight.shape[0], *spatial]
