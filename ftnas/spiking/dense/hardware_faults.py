"""Faults of spiking hardware as text and data: ``part.kind:rate``, then options as ``name=value``.

The vocabulary is that of SpikeFI (arXiv 2412.06795), with the reset that fails of SoftSNN (Putra et al., DAC 2022).
Flips of membrane bits are ``features.bit_flip``, as in any net.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ftnas.errors import FaultError
from ftnas.faults import Fault, parse_fault, parse_sweep

Part = Literal["neurons", "synapses"]
Lasting = Literal["permanent", "transient"]

# What fails, by name, and what that means.
SPIKING_FAULTS: Mapping[str, str] = {
    "neurons.dead": "a neuron that never fires",
    "neurons.saturated": "a neuron that fires in every step",
    "neurons.stuck": "a membrane register that holds one random code whatever comes in",
    "neurons.unreset": "a neuron whose membrane stays as it is when it fires",
    "neurons.threshold": "a threshold that is a random factor of what it should be",
    "neurons.leak": "a leak (the share of the membrane that a step keeps) that is a random factor of what it should be",
    "neurons.refractory": "a neuron that takes no input for some steps more after it has fired",
    "synapses.dead": "a weight that reads as 0",
    "synapses.saturated": "a weight that reads as the end of its range, on its own side of 0",
    "synapses.stuck": "a weight that reads as one random code",
    "synapses.flipped": "a weight of which one random bit is flipped",
    "synapses.stuck_at_0": "a weight of which one random bit reads as 0",
    "synapses.stuck_at_1": "a weight of which one random bit reads as 1",
}
BITWISE = ("flipped", "stuck_at_0", "stuck_at_1")  # kinds that name a bit
FACTORS = ("neurons.threshold", "neurons.leak")


@dataclass(frozen=True, slots=True)
class SpikingFault:
    """Each neuron, or synapse, fails with probability ``rate``.

    Attributes:
        name: one of ``SPIKING_FAULTS``.
        rate: in [0, 1].
        low: the smallest factor of a deviating parameter, drawn uniformly (SpikeFI: 0.1 to 3).
        high: the largest.
        by: how many more steps a neuron takes no input.
        duration: ``permanent``, or ``transient``: for ``steps`` steps of each image, from one drawn for each fault.
        steps: how long a transient fault lasts.
    """

    name: str
    rate: float
    low: float = 0.1
    high: float = 3.0
    by: int = 2
    duration: Lasting = "permanent"
    steps: int = 1

    def __post_init__(self) -> None:
        if self.name not in SPIKING_FAULTS:
            raise FaultError(f"unknown fault {self.name!r}; choose from {', '.join(SPIKING_FAULTS)}")
        if not 0 <= self.rate <= 1:
            raise FaultError(f"{self.name}: rate must be a number in [0, 1], got {self.rate!r}")
        if not 0 <= self.low <= self.high:
            raise FaultError(f"{self.name}: low and high must be 0 <= low <= high, got {self.low:g} and {self.high:g}")
        for name, least in (("by", 1), ("steps", 1)):
            if getattr(self, name) < least:
                raise FaultError(f"{self.name}: {name} must be {least} or more, got {getattr(self, name)}")
        if self.duration not in get_args(Lasting):
            raise FaultError(f"{self.name}: duration must be permanent or transient, got {self.duration!r}")

    @property
    def part(self) -> Part:
        """What fails."""
        return "neurons" if self.name.startswith("neurons") else "synapses"

    @property
    def kind(self) -> str:
        """How it fails."""
        return self.name.partition(".")[2]

    @property
    def options(self) -> tuple[str, ...]:
        """The options that mean something to this fault."""
        own = ("low", "high") if self.name in FACTORS else ("by",) if self.kind == "refractory" else ()
        return (*own, "duration", *(("steps",) if self.duration == "transient" else ()))

    def __str__(self) -> str:
        plain = SpikingFault(self.name, 0.0)
        given = [f"{name}={_text(getattr(self, name))}" for name in self.options]
        usual = [f"{name}={_text(getattr(plain, name))}" for name in self.options]
        return ":".join([self.name, _text(self.rate), *(one for one in given if one not in usual)])


AnyFault = Fault | SpikingFault


def parse_spiking_fault(text: str) -> SpikingFault:
    """Read ``neurons.threshold:0.1:low=0.5:high=1.5`` or ``synapses.dead:0.2:duration=transient:steps=2``.

    Raises:
        FaultError: the fault, its rate or an option is unknown or impossible.
    """
    name, *rest = (part.strip() for part in text.split(":"))
    if name not in SPIKING_FAULTS:
        raise FaultError(f"unknown fault {name!r}; choose from {', '.join(SPIKING_FAULTS)}")
    if not rest or not rest[0]:
        raise FaultError(f"fault {text!r} has no rate; write it as {name}:0.1")
    options: dict[str, str] = {}
    for part in rest[1:]:
        key, _, value = part.partition("=")
        options[key] = value
    duration = options.get("duration", "permanent")
    known = SpikingFault(name, 0.0, duration=duration).options  # type: ignore[arg-type]
    for key in options:
        if key not in known:
            raise FaultError(f"fault {text!r}: unknown option {key!r}; choose from {', '.join(known)}")
    numbers = {key: _number(text, key, value) for key, value in options.items() if key != "duration"}
    return SpikingFault(name, float(_number(text, "rate", rest[0])), duration=duration, **numbers)  # type: ignore[arg-type]


def parse_any(fault: AnyFault | str) -> AnyFault:
    """Read a fault of spiking hardware, or one that any quantised net can have (see ``faults.parse_fault``)."""
    if not isinstance(fault, str):
        return fault
    return parse_spiking_fault(fault) if is_spiking(fault) else parse_fault(fault)


def parse_any_sweep(text: str) -> tuple[AnyFault, ...]:
    """Read a fault of either kind at one or several rates: ``neurons.dead:0.05,0.1:duration=transient``.

    Raises:
        FaultError: the fault, a rate or an option is unknown or impossible.
    """
    if not is_spiking(text):
        return parse_sweep(text)
    name, _, rest = text.partition(":")
    rates, colon, options = rest.partition(":")
    return tuple(parse_spiking_fault(f"{name}:{rate}{colon}{options}") for rate in rates.split(","))


def is_spiking(text: str) -> bool:
    """Return whether ``text`` begins as a fault of spiking hardware."""
    return text.partition(".")[0].strip() in get_args(Part)


def divided(faults: Sequence[AnyFault | str]) -> tuple[tuple[SpikingFault, ...], tuple[Fault, ...]]:
    """Return those of ``faults`` that are of spiking hardware, and the others."""
    found = [parse_any(fault) for fault in faults]
    spiking = tuple(fault for fault in found if isinstance(fault, SpikingFault))
    return spiking, tuple(fault for fault in found if not isinstance(fault, SpikingFault))


def _number(text: str, name: str, value: str) -> float | int:
    try:
        return int(value) if name in ("by", "steps") else float(value)
    except ValueError:
        raise FaultError(f"fault {text!r}: {name} must be a number, got {value!r}") from None


def _text(value: object) -> str:
    return format(value, "g") if isinstance(value, float) else str(value)
