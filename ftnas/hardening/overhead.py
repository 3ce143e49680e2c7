"""What protection costs, counted from the modules that do it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import torch
from torch import nn

from ftnas.cost import measure
from ftnas.faults import output_shapes, sites
from ftnas.networks.correction import OPERATIONS
from ftnas.networks.hardened import hardened_layers
from ftnas.quantization import assume_ranges

Resource = Literal["macs", "parameters", "activation_bytes"]
RESOURCES: tuple[Resource, ...] = get_args(Resource)


@dataclass(frozen=True, slots=True)
class Size:
    """What a net takes for one image.

    Attributes:
        macs: multiply-accumulates.
        parameters: trained numbers, those of copies counted as often as they are stored.
        weight_bits: that the weights of quantised layers take.
        activation_bytes: that the outputs of quantised layers take, all at once.
        unit_operations: integer operations of correction units and voters.
    """

    macs: int
    parameters: int
    weight_bits: int
    activation_bytes: float
    unit_operations: int

    @property
    def work(self) -> float:
        """Multiply-accumulates with those of the units, of whose operations two count as one."""
        return self.macs + self.unit_operations / 2

    def to_dict(self) -> dict[str, float]:
        """Return plain data, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a hardened net takes beside what the net itself does."""

    before: Size
    after: Size

    @property
    def extra(self) -> Size:
        """The difference."""
        pairs = {field.name: (getattr(self.after, field.name), getattr(self.before, field.name))
                 for field in fields(Size)}  # fmt: skip
        return Size(**{name: after - before for name, (after, before) in pairs.items()})

    @property
    def shares(self) -> Mapping[str, float]:
        """The difference as a share of what the net itself takes; ``work`` includes the units."""
        names = ("macs", "work", "parameters", "weight_bits", "activation_bytes")
        whole = {name: (getattr(self.after, name), getattr(self.before, name)) for name in names}
        return {name: (after - before) / before if before else 0.0 for name, (after, before) in whole.items()}


def size_of(model: nn.Module, image_shape: tuple[int, int, int]) -> Size:
    """Return what ``model``, hardened or not, takes for one image ``[C, H, W]``; it is left as it is."""
    shadow = copy.deepcopy(model).cpu().eval()
    assume_ranges(shadow)
    shapes = output_shapes(shadow, torch.zeros(1, *image_shape))
    outputs = [site for site in sites(shadow, shapes=shapes) if site.kind == "output" and site.shape is not None]
    cost = measure(shadow, image_shape)
    return Size(
        macs=cost.macs,
        parameters=cost.parameters,
        weight_bits=cost.weight_bits,
        activation_bytes=sum(site.bits_total for site in outputs) / 8,
        unit_operations=_unit_operations(shadow, shapes),
    )


def _unit_operations(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> int:
    total = 0
    for path, layer in hardened_layers(model).items():
        protection, shape = layer.protection, shapes.get(f"{path}.layer.output")
        if shape is not None:
            positions = torch.Size(shape[1:]).numel()
            total += OPERATIONS[protection.method, protection.rule] * len(protection.channels) * positions
    return total
