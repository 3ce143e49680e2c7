"""Fault models as data: what can fail, how often, in which layers. What a failure does to a code is in ``codes``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, Literal

from ftnas.errors import FaultError

Target = Literal["weights", "features"]
Scope = Literal["convolutions", "all"]
Reach = Literal["layer_max", "range_end"]

# Share of stuck cells that are stuck at full conductance, as in the code behind arXiv 2003.10375; the rest is at 0.
STUCK_AT_ONE = 0.163


@dataclass(frozen=True, slots=True)
class BitFlip:
    """Every stored bit flips on its own with probability ``rate`` (soft errors in buffers)."""

    rate: float
    target: Target = "weights"
    scope: Scope = "all"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def name(self) -> str:
        """Target and model, as in the text form."""
        return f"{self.target}.bit_flip"

    def __str__(self) -> str:
        return fault_text(self)


@dataclass(frozen=True, slots=True)
class BitBias:
    """A value gains or loses the weight of one of its bits, saturating, with probability ``rate`` (iBB)."""

    rate: float
    scope: Scope = "convolutions"
    target: ClassVar[Target] = "features"
    name: ClassVar[str] = "features.bit_bias"

    def __post_init__(self) -> None:
        _check(self)

    def __str__(self) -> str:
        return fault_text(self)


@dataclass(frozen=True, slots=True)
class MacBitBias:
    """Bit bias at rate ``1 - (1 - rate)^M`` for a value of M multiply-accumulates (MiBB, arXiv 2003.10375)."""

    rate: float
    scope: Scope = "convolutions"
    target: ClassVar[Target] = "features"
    name: ClassVar[str] = "features.mac_bit_bias"

    def __post_init__(self) -> None:
        _check(self)

    def __str__(self) -> str:
        return fault_text(self)


@dataclass(frozen=True, slots=True)
class StuckCell:
    """A weight is a positive minus a negative memory cell, and each cell is stuck with probability ``rate``.

    Whole-weight adSAF of arXiv 2003.10375. A cell stuck at 0 conducts nothing; one stuck at 1 conducts as much as the
    layer's largest weight (``layer_max``, what the published results used) or as the range's end (``range_end``).
    """

    rate: float
    stuck_at_one: float = STUCK_AT_ONE
    reach: Reach = "layer_max"
    scope: Scope = "convolutions"
    target: ClassVar[Target] = "weights"
    name: ClassVar[str] = "weights.stuck_cell"

    def __post_init__(self) -> None:
        _check(self)

    def __str__(self) -> str:
        return fault_text(self)


@dataclass(frozen=True, slots=True)
class BitwiseStuckCell:
    """As ``StuckCell``, with one memory cell for each magnitude bit of either sign (bitwise adSAF)."""

    rate: float
    stuck_at_one: float = STUCK_AT_ONE
    scope: Scope = "convolutions"
    target: ClassVar[Target] = "weights"
    name: ClassVar[str] = "weights.bitwise_stuck_cell"

    def __post_init__(self) -> None:
        _check(self)

    def __str__(self) -> str:
        return fault_text(self)


Fault = BitFlip | BitBias | MacBitBias | StuckCell | BitwiseStuckCell

FAULTS: Mapping[str, Callable[..., Fault]] = {
    "weights.bit_flip": BitFlip,
    "weights.stuck_cell": StuckCell,
    "weights.bitwise_stuck_cell": BitwiseStuckCell,
    "features.bit_flip": partial(BitFlip, target="features"),
    "features.bit_bias": BitBias,
    "features.mac_bit_bias": MacBitBias,
}

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "target": ("weights", "features"),
    "scope": ("convolutions", "all"),
    "reach": ("layer_max", "range_end"),
}


def parse_fault(text: str) -> Fault:
    """Read ``features.mac_bit_bias:1e-4``, or with options ``weights.stuck_cell:0.08:reach=range_end:scope=all``.

    Raises:
        FaultError: the model, its rate or an option is unknown or impossible.
    """
    name, *rest = (part.strip() for part in text.split(":"))
    if name not in FAULTS:
        raise FaultError(f"unknown fault {name!r}; choose from {', '.join(FAULTS)}")
    if not rest:
        raise FaultError(f"fault {text!r} has no rate; write it as {name}:1e-3")
    return FAULTS[name](_number(text, "rate", rest[0]), **_options(text, FAULTS[name](0.0), rest[1:]))


def fault_text(fault: Fault) -> str:
    """Return what ``parse_fault`` reads back as ``fault``; options at their default are left out."""
    plain = FAULTS[fault.name](fault.rate)
    options = [name for name in _option_names(fault) if getattr(fault, name) != getattr(plain, name)]
    return ":".join(
        [fault.name, _shortest(fault.rate), *(f"{name}={_shortest(getattr(fault, name))}" for name in options)]
    )


def with_rate(fault: Fault, rate: float) -> Fault:
    """Return ``fault`` at another rate."""
    return replace(fault, rate=rate)


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
        options[name] = value if name in OPTIONS else _number(text, name, value)
    return options


def _option_names(fault: Fault) -> list[str]:
    return [field.name for field in fields(fault) if field.name not in ("rate", "target")]


def _number(text: str, name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise FaultError(f"fault {text!r}: {name} must be a number in [0, 1], got {value!r}") from None


def _shortest(value: object) -> str:
    return format(value, "g") if isinstance(value, float) and float(format(value, "g")) == value else str(value)


def _check(fault: Fault) -> None:
    """Refuse a rate or share outside [0, 1] and an unknown option."""
    for field in fields(fault):
        value = getattr(fault, field.name)
        if field.name in OPTIONS:
            if value not in OPTIONS[field.name]:
                known = ", ".join(OPTIONS[field.name])
                raise FaultError(f"{fault.name}: {field.name} must be one of {known}, got {value!r}")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise FaultError(f"{fault.name}: {field.name} must be a number in [0, 1], got {value!r}")
