"""Maps of what is broken on one chip: drawn, given, kept as JSON, and met by a net in a ``with`` block."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.errors import FaultError
from ftnas.runtime import keyed_generator
from ftnas.spiking.dense.active import CodeChange, LayerFaults, NeuronFaults, SynapseFaults, active
from ftnas.spiking.dense.hardware_faults import BITWISE, SPIKING_FAULTS, Part, SpikingFault
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
        value: the code (``stuck``), bit (``flipped``, ``stuck_at_0``, ``stuck_at_1``), factor (``threshold``, ``leak``)
            or steps (``refractory``).
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


def joined_maps(*maps: FaultMap) -> FaultMap:
    """Return all that is broken on any of ``maps``."""
    return FaultMap(tuple(fault for one in maps for fault in one.faults))


def check_map(fault_map: FaultMap, net: SpikingNet) -> None:
    """Refuse a map that names what ``net`` does not have.

    Raises:
        FaultError: it does; names the first such fault, counted from 0.
    """
    for number, fault in enumerate(fault_map.faults):
        _check_place(number, fault, net)
        end = net.spec.steps if fault.until is None else fault.until
        if not 0 <= fault.first < end <= net.spec.steps:
            raise FaultError(
                f"fault {number}: steps {fault.first} to {end} must be 0 <= first < until <= {net.spec.steps}"
            )
        _check_value(number, fault, net)


def _check_place(number: int, fault: PartFault, net: SpikingNet) -> None:
    name, layers = f"{fault.part}.{fault.kind}", len(net.stages)
    if name not in SPIKING_FAULTS:
        raise FaultError(f"fault {number}: {name!r} is unknown; choose from {', '.join(SPIKING_FAULTS)}")
    if not 0 <= fault.layer < layers:
        raise FaultError(f"fault {number}: layer must be 0 to {layers - 1}, got {fault.layer!r}")
    count = _population(net.stages[fault.layer], fault.part)
    if not 0 <= fault.element < count:
        raise FaultError(f"fault {number}: element must be 0 to {count - 1}, got {fault.element!r}")


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
    if fault.kind in BITWISE:
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
        **dict.fromkeys(BITWISE, (0, bits - 1)),
        "threshold": (0, math.inf),
        "leak": (0, math.inf),
        "refractory": (1, math.inf),
    }.get(fault.kind)
    whole = fault.kind in ("stuck", "refractory", *BITWISE)
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
    # A change writes each weight once, so a second broken bit of one is another change.
    seen: Counter[tuple[str, int]] = Counter()
    rounds: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for fault in faults:
        turn = seen[fault.kind, fault.element]
        seen[fault.kind, fault.element] += 1
        rounds.setdefault((fault.kind, turn), []).append((fault.element, int(fault.value)))
    return tuple(CodeChange(kind, *torch.tensor(rows, device=device).unbind(1)) for (kind, _), rows in rounds.items())


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
    tables: dict[str, Tensor] = {}
    for fault in faults:
        name, usual, dtype = _FIELDS[fault.kind]
        table = tables.setdefault(name, torch.full((net.spec.steps, math.prod(shape)), usual, dtype=dtype))
        value = {"stuck": fault.value * net.spec.membrane_step}.get(
            fault.kind, 1 if dtype == torch.bool else fault.value
        )
        table[_steps(fault, net).start : _steps(fault, net).stop, fault.element] = value
    device = next(net.parameters()).device
    return NeuronFaults(**{name: table.unflatten(1, shape).to(device) for name, table in tables.items()})
