"""Fault models as text: ``target.model:rate``, then options as ``name=value``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from ftnas.errors import FaultError
from ftnas.faults.models import (
    CHOICES,
    COUNTS,
    BitBias,
    BitFlip,
    BitwiseStuckCell,
    DirectedFlip,
    Fault,
    Gaussian,
    LogNormal,
    MacBitBias,
    OutputPattern,
    RandomValue,
    StuckBit,
    StuckCell,
)

FAULTS: Mapping[str, Callable[..., Fault]] = {
    "weights.bit_flip": BitFlip,
    "weights.stuck_bit": StuckBit,
    "weights.directed_flip": DirectedFlip,
    "weights.random_value": RandomValue,
    "weights.stuck_cell": StuckCell,
    "weights.bitwise_stuck_cell": BitwiseStuckCell,
    "weights.log_normal": LogNormal,
    "weights.gaussian": Gaussian,
    "features.bit_flip": partial(BitFlip, target="features"),
    "features.stuck_bit": partial(StuckBit, target="features"),
    "features.directed_flip": partial(DirectedFlip, target="features"),
    "features.random_value": partial(RandomValue, target="features"),
    "features.bit_bias": BitBias,
    "features.mac_bit_bias": MacBitBias,
    "features.pattern": OutputPattern,
    "features.gaussian": partial(Gaussian, target="features"),
}
_PLAIN_NAMES = {name.replace("_", ""): name for name in FAULTS}


def parse_fault(text: str) -> Fault:
    """Read ``features.mac_bit_bias:1e-4``, or with options ``weights.stuck_cell:0.08:reach=range_end:scope=all``.

    Underscores in the model's name may be left out: ``weights.bitflip:1e-3``.

    Raises:
        FaultError: the model, its rate or an option is unknown or impossible.
    """
    found = parse_sweep(text)
    if len(found) != 1:
        raise FaultError(f"fault {text!r}: one rate is allowed here, got {len(found)}")
    return found[0]


def parse_sweep(text: str) -> tuple[Fault, ...]:
    """Read a fault at one or several rates: ``weights.bit_flip:1e-4,1e-3,1e-2``; options follow as in ``parse_fault``.

    Raises:
        FaultError: as ``parse_fault``.
    """
    given, *rest = (part.strip() for part in text.split(":"))
    name = _PLAIN_NAMES.get(given.replace("_", ""))
    if name is None:
        raise FaultError(f"unknown fault {given!r}; choose from {', '.join(FAULTS)}")
    if not rest or not rest[0]:
        raise FaultError(f"fault {text!r} has no rate; write it as {name}:1e-3")
    plain = FAULTS[name](0.0)
    rates = [_number(text, plain.strength, part) for part in rest[0].split(",")]
    options = _options(text, plain, rest[1:])
    return tuple(FAULTS[name](rate, **options) for rate in rates)


def parse_faults(faults: Fault | str | Sequence[Fault | str]) -> tuple[Fault, ...]:
    """Return ``faults`` as a tuple of fault models, texts read by ``parse_fault``."""
    several = faults if isinstance(faults, Sequence) and not isinstance(faults, str) else [faults]
    return tuple(parse_fault(fault) if isinstance(fault, str) else _fault(fault) for fault in several)


def _fault(fault: object) -> Fault:
    if not isinstance(fault, Fault):
        raise FaultError(f"a fault model or its text is needed, got {type(fault).__name__}")
    return fault


def _options(text: str, plain: Fault, parts: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in parts:
        name, _, value = part.partition("=")
        if name not in _option_names(plain):
            known = ", ".join(_option_names(plain))
            raise FaultError(f"fault {text!r}: unknown option {part!r}; choose from {known}")
        options[name] = _value(text, name, value)
    return options


def _value(text: str, name: str, value: str) -> object:
    if name in CHOICES:
        return value
    number = _number(text, name, value)
    return int(number) if name in COUNTS and number.is_integer() else number


def _option_names(fault: Fault) -> list[str]:
    return [field.name for field in fields(fault) if field.name not in (fault.strength, "target")]


def _number(text: str, name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise FaultError(f"fault {text!r}: {name} must be a number, got {value!r}") from None
