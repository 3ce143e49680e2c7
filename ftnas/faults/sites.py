"""Fault sites: the weights and the outputs of quantised layers, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from ftnas.errors import FaultError
from ftnas.quantization import LayerKind, Number, QuantizedLayer, quantized_layers

SiteKind = Literal["weight", "output"]


@dataclass(frozen=True, slots=True)
class Site:
    """A tensor that hardware stores and that may be faulty.

    Attributes:
        name: ``<module path>.weight`` or ``<module path>.output``.
        shape: of the weight, or of one image's output; unknown before a forward pass has shown it.
        number: the format of the values; unknown while an output's range has not been measured.
        macs_per_value: multiply-accumulates behind one output value; 0 for sums.
        bits: width of one value.
        register: what hardware calls the place, where it is another than ``name``: steps in time share one register,
            so what fails for good fails in all of them.
    """

    name: str
    kind: SiteKind
    layer: LayerKind
    shape: tuple[int, ...] | None
    number: Number | None
    macs_per_value: int
    bits: int
    register: str = ""

    @property
    def values(self) -> int:
        """Values in ``shape``."""
        if self.shape is None:
            raise FaultError(f"{self.name}: its shape is known only after a forward pass (see output_shapes)")
        return math.prod(self.shape)

    @property
    def bits_total(self) -> int:
        """Bits that hold all values: of the weight, or of one image's output."""
        return self.values * self.bits


class Sites(list[Site]):
    """Fault sites, which print as a table."""

    def __repr__(self) -> str:
        rows = [_HEADINGS, *map(_row, self)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join([*(_line(row, widths) for row in rows), _totals(self)])

    __str__ = __repr__


def sites(model: nn.Module, pattern: str = "*", *, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Sites:
    """Return the fault sites of ``model``; printed, they are a table.

    Args:
        model: any net with quantised layers, such as ``quantize`` returns.
        pattern: which names to take (``*``, ``?`` and ``[...]`` as in a shell).
        shapes: of one image's outputs, from ``output_shapes``; without them those are unknown.

    Raises:
        FaultError: the model has no quantised layer, or ``pattern`` matches none of its sites.
    """
    found: list[Site] = []
    for path, layer in named_layers(model).items():
        found += [weight_site(path, layer)] if has_weight(layer) else []
        found += [output_site(path, layer)] if layer.stores_output else []
    chosen = [site for site in found if fnmatchcase(site.name, pattern)]
    if not chosen:
        raise FaultError(f"pattern {pattern!r} matches no fault site; the first site is {found[0].name}")
    known = shapes or {}
    return Sites(replace(site, shape=known[site.name]) if site.name in known else site for site in chosen)


def named_layers(model: nn.Module) -> dict[str, QuantizedLayer]:
    """Return the quantised layers of ``model`` by module path; having none is an error."""
    layers = quantized_layers(model)
    if not layers:
        raise FaultError(f"{type(model).__name__} has no quantised layer, so it has no fault sites")
    return layers


def weight_site(path: str, layer: QuantizedLayer, number: Number | None = None) -> Site:
    """Return the site of the weight of ``layer``, in its own number format or in ``number``."""
    weight = weight_of(layer)
    number = number or layer.weight_number(weight)
    shape = tuple(weight.shape)
    return Site(_join(path, "weight"), "weight", layer.kind, shape, number, layer.macs_per_value, number.bits)


def output_site(
    path: str, layer: QuantizedLayer, number: Number | None = None, shape: tuple[int, ...] | None = None
) -> Site:
    """Return the site of the output of ``layer``; ``shape`` is that of one image."""
    if number is None and layer.feature_range_is_known:
        number = layer.feature_number()
    bits = layer.quantization.feature_bits if number is None else number.bits
    register = path.rpartition(".")[0] if layer.is_step else ""
    return Site(_join(path, "output"), "output", layer.kind, shape, number, layer.macs_per_value, bits, register)


def has_weight(layer: QuantizedLayer) -> bool:
    """Return whether ``layer`` stores a weight."""
    return layer.kind != "sum"


def weight_of(layer: QuantizedLayer) -> Tensor:
    """Return the weight of ``layer``."""
    if not has_weight(layer):
        raise FaultError(f"{type(layer).__name__} stores no weight")
    return layer.weight


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


def _join(path: str, end: str) -> str:
    return f"{path}.{end}" if path else end


_HEADINGS = ("site", "layer", "shape", "format", "MACs per value", "values", "bits")


def _row(site: Site) -> tuple[str, ...]:
    number = f"{site.bits} bits, range not measured" if site.number is None else str(site.number)
    if site.shape is None:
        shape, values, bits = "?", "?", "?"
    else:
        shape, values, bits = "x".join(map(str, site.shape)), f"{site.values:,}", f"{site.bits_total:,}"
    return site.name, site.layer, shape, number, f"{site.macs_per_value:,}", values, bits


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    words, numbers = row[:4], row[4:]
    cells = [word.ljust(width) for word, width in zip(words, widths, strict=False)]
    return "  ".join([*cells, *(n.rjust(width) for n, width in zip(numbers, widths[4:], strict=True))]).rstrip()


def _totals(found: Sequence[Site]) -> str:
    totals = [f"{len(found)} sites"]
    for kind, title in (("weight", "weights"), ("output", "outputs of one image")):
        known = [site for site in found if site.kind == kind and site.shape is not None]
        values, bits = sum(site.values for site in known), sum(site.bits_total for site in known)
        totals += [f"{title}: {values:,} values, {bits:,} bits"] if known else []
    unknown = sum(site.shape is None for site in found)
    if unknown:
        outputs = "1 output" if unknown == 1 else f"{unknown} outputs"
        totals.append(f"{outputs} of unknown shape: give shapes=output_shapes(model, images)")
    return "; ".join(totals)
