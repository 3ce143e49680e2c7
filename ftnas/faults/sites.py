"""Fault sites: the weights and the outputs of quantised layers, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from ftnas.errors import FaultError
from ftnas.quantization import FixedPoint, QuantizedConv2d, QuantizedLayer, QuantizedLinear, quantized_layers

SiteKind = Literal["weight", "output"]
LayerKind = Literal["conv", "linear", "sum"]


@dataclass(frozen=True, slots=True)
class Site:
    """A tensor that hardware stores and that may be faulty.

    Attributes:
        name: ``<module path>.weight`` or ``<module path>.output``.
        shape: of the weight, or of one image's output; unknown before a forward pass has shown it.
        number: the format of the values; unknown while an output's range has not been measured.
        macs_per_value: multiply-accumulates behind one output value; 0 for sums.
    """

    name: str
    kind: SiteKind
    layer: LayerKind
    shape: tuple[int, ...] | None
    number: FixedPoint | None
    macs_per_value: int
    bits: int

    @property
    def values(self) -> int:
        """Values in ``shape``."""
        if self.shape is None:
            raise FaultError(f"{self.name}: its shape is known only after a forward pass (see output_shapes)")
        return math.prod(self.shape)


def sites(model: nn.Module, pattern: str = "*") -> list[Site]:
    """Return the fault sites of ``model`` whose name matches ``pattern`` (``*``, ``?`` and ``[...]`` as in a shell).

    Raises:
        FaultError: the model has no quantised layer, or ``pattern`` matches none of its sites.
    """
    found: list[Site] = []
    for path, layer in named_layers(model).items():
        found += [weight_site(path, layer)] if has_weight(layer) else []
        found.append(output_site(path, layer))
    chosen = [site for site in found if fnmatchcase(site.name, pattern)]
    if not chosen:
        raise FaultError(f"pattern {pattern!r} matches no fault site; the first site is {found[0].name}")
    return chosen


def named_layers(model: nn.Module) -> dict[str, QuantizedLayer]:
    """Return the quantised layers of ``model`` by module path; having none is an error."""
    layers = quantized_layers(model)
    if not layers:
        raise FaultError(f"{type(model).__name__} has no quantised layer, so it has no fault sites")
    return layers


def weight_site(path: str, layer: QuantizedLayer, number: FixedPoint | None = None) -> Site:
    """Return the site of the weight of ``layer``, in its own number format or in ``number``."""
    weight = weight_of(layer)
    number = number or layer.weight_number(weight)
    shape = tuple(weight.shape)
    return Site(_join(path, "weight"), "weight", layer_kind(layer), shape, number, layer.macs_per_value, number.bits)


def output_site(
    path: str, layer: QuantizedLayer, number: FixedPoint | None = None, shape: tuple[int, ...] | None = None
) -> Site:
    """Return the site of the output of ``layer``; ``shape`` is that of one image."""
    if number is None and _range_is_known(layer):
        number = layer.feature_number()
    bits = layer.quantization.feature_bits if number is None else number.bits
    return Site(_join(path, "output"), "output", layer_kind(layer), shape, number, layer.macs_per_value, bits)


def has_weight(layer: QuantizedLayer) -> bool:
    """Return whether ``layer`` stores a weight."""
    return isinstance(layer, QuantizedConv2d | QuantizedLinear)


def weight_of(layer: QuantizedLayer) -> Tensor:
    """Return the weight of ``layer``."""
    if isinstance(layer, QuantizedConv2d | QuantizedLinear):
        return layer.weight
    raise FaultError(f"{type(layer).__name__} stores no weight")


def layer_kind(layer: nn.Module) -> LayerKind:
    """Return the kind of ``layer``, which decides the scope of a fault."""
    if isinstance(layer, QuantizedConv2d):
        return "conv"
    return "linear" if isinstance(layer, QuantizedLinear) else "sum"


# Walking a supernet of 5,000 modules takes as long as a small forward pass, so the walk is remembered for each model.
_PATHS: WeakKeyDictionary[nn.Module, WeakKeyDictionary[nn.Module, str]] = WeakKeyDictionary()


def layer_paths(model: nn.Module, *, fresh: bool = False) -> WeakKeyDictionary[nn.Module, str]:
    """Return the module path of each quantised layer of ``model``, remembered unless ``fresh``."""
    if fresh or model not in _PATHS:
        paths: dict[nn.Module, str] = {layer: path for path, layer in named_layers(model).items()}
        _PATHS[model] = WeakKeyDictionary(paths)
    return _PATHS[model]


def is_at(model: nn.Module, path: str, layer: nn.Module) -> bool:
    """Return whether ``layer`` is (still) the module of ``model`` at ``path``."""
    module: nn.Module | None = model
    for part in path.split(".") if path else ():
        module = None if module is None else module._modules.get(part)
    return module is layer


def _range_is_known(layer: QuantizedLayer) -> bool:
    policy = layer.quantization.feature_range.policy
    return policy in ("fixed", "learned") or float(layer.feature_limit) > 0


def _join(path: str, end: str) -> str:
    return f"{path}.{end}" if path else end
