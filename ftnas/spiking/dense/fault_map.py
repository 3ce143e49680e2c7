"""Maps of what is broken on one chip: drawn, given, kept as JSON, and met by a net in a ``with`` block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.errors import FaultError, FtnasError
from ftnas.files import read_json, write_json
from ftnas.runtime import keyed_generator
from ftnas.spiking.dense.active import CodeChange, LayerFaults, NeuronFaults, SynapseFaults, active
from ftnas.spiking.dense.hardware_faults import SPIKING_FAULTS, Part, SpikingFault
from ftnas.spiking.dense.network import SpikingLayer, SpikingNet

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class PartFault:
    """One neuron or synapse that fails.

    Attributes:
        layer: counted from the image.
        part: what it is.
        kind: how it fails, as in the second half of a fault's name.
        element: which one, counted in logical order of the layer or of the weight.
        value: the code (``stuck``), bit (``flipped``), factor (``threshold``, ``leak``) or steps (``refractory``).
        first: the step in which it begins.
        until: the first step in which it is over; ``None`` for never.
    """

    layer: int
    part: Part
    kind: str
    element: int
    value: float = 0.0
    first: int = 0
    until: int | None = None


@dataclass(frozen=True)
class FaultMap:
    """All that is broken on a chip."""

    faults: tuple[PartFault, ...] = ()

    def __len__(self) -> int:
        return len(self.faults)

    def of(self, layer: int, part: Part) -> tuple[PartFault, ...]:
        """Return the faults of one part of ``layer``."""
        return tuple(fault for fault in self.faults if (fault.layer, fault.part) == (layer, part))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {"schema": SCHEMA, "faults": [asdict(fault) for fault in self.faults]}


def draw_map(net: SpikingNet, faults: Sequence[SpikingFault], *, chip: int = 0, study: str = "ftnas") -> FaultMap:
    """Draw what is broken on ``chip`` of ``study``; what fails at a low rate is among what fails at a higher one."""
    return FaultMap(
        tuple(
            broken
            for index, fault in enumerate(faults)
            for layer, stage in enumerate(net.stages)
            for broken in _draw(net, stage, layer, fault, key=(study, chip, index, fault.name, layer))
        )
    )


def save_map(fault_map: FaultMap, path: Path) -> None:
    """Write ``fault_map`` as JSON."""
    write_json(path, fault_map.to_dict())


def load_map(path: Path, net: SpikingNet) -> FaultMap:
    """Read the map in ``path``.

    Raises:
        FaultError: the file holds none, or it does not fit ``net``; one line that says why.
    """
    try:
        content = read_json(path)
        rows = content["faults"] if content["schema"] == SCHEMA else None
        found = FaultMap(tuple(PartFault(**row) for row in rows or ()))
        if rows is None:
            raise ValueError(f"schema {content['schema']}")
        check_map(found, net)
    except FtnasError as error:
        raise FaultError(f"{path}: {error}" if isinstance(error, FaultError) else str(error)) from None
    except (KeyError, TypeError, ValueError) as error:
        raise FaultError(f"{path}: holds no fault map of schema {SCHEMA} ({error})") from None
    return found


def check_map(fault_map: FaultMap, net: SpikingNet) -> None:
    """Refuse a map that names what ``net`` does not have."""
    layers = len(net.stages)
    for number, fault in enumerate(fault_map.faults):
        name = f"{fault.part}.{fault.kind}"
        if name not in SPIKING_FAULTS:
            raise FaultError(f"fault {number}: {name!r} is unknown; choose from {', '.join(SPIKING_FAULTS)}")
        if not isinstance(fault.layer, int) or not 0 <= fault.layer < layers:
            raise FaultError(f"fault {number}: layer must be 0 to {layers - 1}, got {fault.layer!r}")
        count = _population(net.stages[fault.layer], fault.part)
        if not isinstance(fault.element, int) or not 0 <= fault.element < count:
            raise FaultError(f"fault {number}: element must be 0 to {count - 1}, got {fault.element!r}")
        end = net.spec.steps if fault.until is None else fault.until
        if not 0 <= fault.first < end <= net.spec.steps:
            raise FaultError(
                f"fault {number}: steps {fault.first} to {end} must be 0 <= first < until <= {net.spec.steps}"
            )
        _check_value(number, fault, net)


@contextmanager
def inject_map(net: SpikingNet, fault_map: FaultMap) -> Iterator[None]:
    """Let ``net`` compute on the chip of ``fault_map``; afterwards nothing is left of it.

    Raises:
        FaultError: the map is of another net, or another map is active.
    """
    check_map(fault_map, net)
    with active(_layer_faults(net, fault_map)):
        yield


def _draw(
    net: SpikingNet, stage: SpikingLayer, layer: int, fault: SpikingFault, *, key: tuple[str | int, ...]
) -> Iterator[PartFault]:
    count = _population(stage, fault.part)
    steps = min(fault.steps, net.spec.steps)
    hits = torch.rand(count, generator=keyed_generator(*key, "hits"), dtype=torch.float64) < fault.rate
    share = torch.rand(count, generator=keyed_generator(*key, "values"), dtype=torch.float64)
    starts = torch.randint(net.spec.steps - steps + 1, (count,), generator=keyed_generator(*key, "steps"))
    for element in hits.nonzero().flatten().tolist():
        value = _value(net, fault, float(share[element]))
        first = int(starts[element]) if fault.duration == "transient" else 0
        until = first + steps if fault.duration == "transient" else None
        yield PartFault(layer, fault.part, fault.kind, element, value, first, until)


def _value(net: SpikingNet, fault: SpikingFault, share: float) -> float:
    """Return what goes with a fault, from a number drawn in [0, 1)."""
    bits = net.spec.membrane_bits if fault.part == "neurons" else net.spec.weight_bits
    if fault.kind == "stuck":
        return float(math.floor(share * 2**bits) - 2 ** (bits - 1))
    if fault.kind == "flipped":
        return float(math.floor(share * bits))
    if fault.kind in ("threshold", "leak"):
        return fault.low + share * (fault.high - fault.low)
    return float(fault.by) if fault.kind == "refractory" else 0.0


def _population(stage: SpikingLayer, part: Part) -> int:
    return math.prod(stage.neurons.shape) if part == "neurons" else stage.synapses.weight.numel()


def _check_value(number: int, fault: PartFault, net: SpikingNet) -> None:
    bits = net.spec.membrane_bits if fault.part == "neurons" else net.spec.weight_bits
    allowed = {
        "stuck": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1),
        "flipped": (0, bits - 1),
        "threshold": (0, math.inf),
        "leak": (0, math.inf),
        "refractory": (1, math.inf),
    }.get(fault.kind)
    whole = fault.kind in ("stuck", "flipped", "refractory")
    if allowed is None:
        return
    if not allowed[0] <= fault.value <= allowed[1] or (whole and fault.value != int(fault.value)):
        kind = "a whole number" if whole else "a number"
        end = f"to {allowed[1]:g}" if math.isfinite(allowed[1]) else "or more"
        raise FaultError(
            f"fault {number}: value of {fault.kind} must be {kind}, {allowed[0]:g} {end}, got {fault.value}"
        )


def _layer_faults(net: SpikingNet, fault_map: FaultMap) -> Mapping[nn.Module, LayerFaults]:
    found: dict[nn.Module, LayerFaults] = {}
    for layer, stage in enumerate(net.stages):
        synapses, neurons = fault_map.of(layer, "synapses"), fault_map.of(layer, "neurons")
        if synapses:
            found[stage.synapses] = _synapse_faults(synapses, net)
        if neurons:
            found[stage.neurons] = _neuron_faults(neurons, net, stage.neurons.shape)
    return found


def _synapse_faults(faults: Sequence[PartFault], net: SpikingNet) -> SynapseFaults:
    lasting = [fault for fault in faults if _steps(fault, net) == range(net.spec.steps)]
    others = [fault for fault in faults if _steps(fault, net) != range(net.spec.steps)]
    fleeting = {
        step: _changes([fault for fault in others if step in _steps(fault, net)], net) for step in range(net.spec.steps)
    }
    return SynapseFaults(_changes(lasting, net), {step: changes for step, changes in fleeting.items() if changes})


def _steps(fault: PartFault, net: SpikingNet) -> range:
    return range(fault.first, net.spec.steps if fault.until is None else fault.until)


def _changes(faults: Sequence[PartFault], net: SpikingNet) -> tuple[CodeChange, ...]:
    device = next(net.parameters()).device
    changes = []
    for kind in dict.fromkeys(fault.kind for fault in faults):
        chosen = [fault for fault in faults if fault.kind == kind]
        numbers = [[fault.element for fault in chosen], [int(fault.value) for fault in chosen]]
        changes.append(CodeChange(kind, *torch.tensor(numbers, device=device).unbind()))
    return tuple(changes)


# Of each kind of neuron fault: the field that holds it, what it is where nothing fails, and the type.
_FIELDS: Mapping[str, tuple[str, float, torch.dtype]] = {
    "dead": ("silent", 0, torch.bool),
    "saturated": ("firing", 0, torch.bool),
    "stuck": ("stuck", math.nan, torch.float32),
    "unreset": ("unreset", 0, torch.bool),
    "threshold": ("threshold", 1, torch.float32),
    "leak": ("leak", 1, torch.float32),
    "refractory": ("refractory", 0, torch.int32),
}


def _neuron_faults(faults: Sequence[PartFault], net: SpikingNet, shape: tuple[int, ...]) -> NeuronFaults:
    grid = net.spec.membrane_limit / 2 ** (net.spec.membrane_bits - 1)
    tables: dict[str, Tensor] = {}
    for fault in faults:
        name, usual, dtype = _FIELDS[fault.kind]
        table = tables.setdefault(name, torch.full((net.spec.steps, math.prod(shape)), usual, dtype=dtype))
        value = {"stuck": fault.value * grid}.get(fault.kind, 1 if dtype == torch.bool else fault.value)
        table[_steps(fault, net).start : _steps(fault, net).stop, fault.element] = value
    device = next(net.parameters()).device
    return NeuronFaults(**{name: table.unflatten(1, shape).to(device) for name, table in tables.items()})
