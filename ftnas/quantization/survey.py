"""What there is to convert in a float model, and what has to stay as it is."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from ftnas.errors import FaultError
from ftnas.quantization.converted import FloatLayer, is_convertible
from ftnas.quantization.normalisation import is_plain_batch_norm
from ftnas.quantization.quantized_layer import QuantizedLayer

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True, slots=True)
class Survey:
    """The modules of a model.

    Attributes:
        layers: the path of each layer that can be converted.
        norms: batch norms.
        unknown: path and type of whatever else holds parameters.
    """

    layers: Mapping[FloatLayer, str]
    norms: Sequence[_BatchNorm]
    unknown: Sequence[str]


def twin_of(model: nn.Module) -> nn.Module:
    """Return a deep copy of ``model`` without hooks."""
    if not isinstance(model, nn.Module):
        raise FaultError(f"a torch.nn.Module is needed, got {type(model).__name__}")
    try:
        twin = copy.deepcopy(model)
    except RuntimeError as error:
        raise FaultError(f"{type(model).__name__} cannot be copied: {error}") from error
    for module in twin.modules():
        for hooks in _HOOKS:
            getattr(module, hooks).clear()
    return twin


def survey(model: nn.Module) -> Survey:
    """Return what there is in ``model``.

    Raises:
        FaultError: there is nothing to convert, or a layer's weight is not a plain float32 parameter.
    """
    found: dict[nn.Module, str] = {}
    for path, module in _walk(model, ""):
        found.setdefault(module, path)
    layers = {cast(FloatLayer, module): path for module, path in found.items() if is_convertible(module)}
    unknown = [_label(module, path) for module, path in found.items() if _is_unknown(module)]
    if not layers:
        kinds = "Conv1d, Conv2d, Conv3d or Linear"
        rest = f"; its weights are in {', '.join(unknown)}" if unknown else ""
        raise FaultError(f"{type(model).__name__} has no {kinds} layer to convert{rest}")
    for layer, path in layers.items():
        _check_weight(layer, _label(layer, path))
    return Survey(layers, [cast(_BatchNorm, module) for module in found if is_plain_batch_norm(module)], unknown)


def warn_of(found: Survey, model: nn.Module, *, never_called: Sequence[str]) -> None:
    """Warn of what faults cannot reach in the copy of ``model``, and of hooks that it does not have."""
    hooked = [_label(module, path) for path, module in model.named_modules() if _is_hooked(module)]
    for names, says in (
        (found.unknown, "stay as they are, so that no fault reaches their parameters"),
        (never_called, "stay float, as the images never called them"),
        (hooked, "have hooks, which the copy has not"),
    ):
        if names:
            # Past this function, the conversion and the public function, to the line that called that.
            warnings.warn(f"{', '.join(names)}: {says}", UserWarning, stacklevel=4)


def replace_modules(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Put the ``new`` modules in the places of the old ones, wherever ``model`` has them, and return the model."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in new:
                parent._modules[name] = new[child]
    return new.get(model, model)


def _walk(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    yield path, module
    if not _is_whole(module):
        for name, child in module.named_children():
            yield from _walk(child, f"{path}.{name}" if path else name)


def _is_whole(module: nn.Module) -> bool:
    """Return whether nothing inside ``module`` may be replaced.

    Torch's own composites, such as multi-head attention and transformer layers, compute with their children's weights
    without calling them.
    """
    is_torchs = type(module).__module__.startswith("torch.") and not isinstance(module, _CONTAINERS)
    return is_torchs or isinstance(module, QuantizedLayer)


def _is_unknown(module: nn.Module) -> bool:
    if is_convertible(module) or isinstance(module, _BatchNorm | QuantizedLayer):
        return False
    return any(True for _ in module.parameters(recurse=_is_whole(module)))


def _check_weight(layer: FloatLayer, label: str) -> None:
    weight = layer._parameters.get("weight")
    if weight is None or is_lazy(weight):
        remedy = "finish pruning, weight norm or other parametrisations, and initialise lazy layers, before"
        raise FaultError(f"{label}: its weight is not a plain parameter; {remedy}")
    if weight.dtype != torch.float32:
        raise FaultError(f"{label}: its weight is {weight.dtype}, only torch.float32 can be converted")


def _is_hooked(module: nn.Module) -> bool:
    return any(len(getattr(module, hooks)) for hooks in _HOOKS)


def _label(module: nn.Module, path: str) -> str:
    return f"{path or 'the model'} ({type(module).__name__})"
