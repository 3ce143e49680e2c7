"""Fault models as data: what can fail, how often, in which layers. What a failure does to a code is in ``codes``."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal, get_args

from ftnas.errors import FaultError

Target = Literal["weights", "features"]
Scope = Literal["convolutions", "all"]
Reach = Literal["layer_max", "range_end"]
Duration = Literal["transient", "intermittent", "permanent"]
Shape = Literal["point", "row", "channel", "block", "across_channels"]
Value = Literal["in_range", "out_of_range", "zero", "flip"]
Rounding = Literal["exact", "published"]
Bias = Literal["any_bit", "published"]

# Share of stuck cells that are stuck at full conductance, as in the code behind arXiv 2003.10375; the rest is at 0.
STUCK_AT_ONE = 0.163

# What an option may be, by its name; all other options but those below are numbers in [0, 1].
CHOICES: dict[str, tuple[str, ...]] = {
    "target": get_args(Target),
    "scope": get_args(Scope),
    "reach": get_args(Reach),
    "duration": get_args(Duration),
    "shape": get_args(Shape),
    "value": get_args(Value),
    "rounding": get_args(Rounding),
    "bias": get_args(Bias),
}
COUNTS = ("adjacent", "size")
STRENGTHS = ("sigma",)


class FaultModel:
    """What every fault model has beside its own fields.

    Attributes:
        model: the second half of its name.
        strength: the field that says how much fails; empty where nothing is drawn.
    """

    __slots__ = ()
    model: ClassVar[str]
    strength: ClassVar[str] = "rate"

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            _check(self, field.name, getattr(self, field.name))

    @property
    def name(self) -> str:
        """Target and model, as in the text form."""
        return f"{self.target}.{self.model}"  # type: ignore[attr-defined]

    def __str__(self) -> str:
        """Return the text that ``parse_fault`` reads back; options at their default are left out."""
        options = [f for f in fields(self) if f.name not in (self.strength, "target")]  # type: ignore[arg-type]
        strength = [_shortest(getattr(self, self.strength))] if self.strength else []
        given = [f"{f.name}={_shortest(value)}" for f in options if (value := getattr(self, f.name)) != f.default]
        return ":".join([self.name, *strength, *given])


@dataclass(frozen=True, slots=True)
class BitFlip(FaultModel):
    """Every stored bit flips on its own with probability ``rate`` (soft errors in buffers).

    With ``adjacent`` of k each upset flips k neighbouring bits of one value (multi-cell upsets); every place for such
    a run is hit at ``rate``.
    """

    rate: float
    target: Target = "weights"
    scope: Scope = "all"
    adjacent: int = 1
    duration: Duration | None = None
    activity: float = 0.5
    model: ClassVar[str] = "bit_flip"


@dataclass(frozen=True, slots=True)
class StuckBit(FaultModel):
    """Every stored bit is stuck with probability ``rate``: a share ``stuck_at_one`` of them at 1, the rest at 0."""

    rate: float
    target: Target = "weights"
    stuck_at_one: float = 0.5
    scope: Scope = "all"
    duration: Duration | None = None
    activity: float = 0.5
    model: ClassVar[str] = "stuck_bit"


@dataclass(frozen=True, slots=True)
class DirectedFlip(FaultModel):
    """A bit that is 0 becomes 1 with probability ``rate * to_one``, one that is 1 becomes 0 with ``rate * to_zero``.

    Low-voltage SRAM fails so: a cell leans to one side (RandBET, arXiv 2104.08323, stores two such rates).
    """

    rate: float
    target: Target = "weights"
    to_one: float = 1.0
    to_zero: float = 1.0
    scope: Scope = "all"
    duration: Duration | None = None
    activity: float = 0.5
    model: ClassVar[str] = "directed_flip"


@dataclass(frozen=True, slots=True)
class RandomValue(FaultModel):
    """A value's whole code is replaced by a uniformly random one with probability ``rate``."""

    rate: float
    target: Target = "weights"
    scope: Scope = "all"
    duration: Duration | None = None
    activity: float = 0.5
    model: ClassVar[str] = "random_value"


@dataclass(frozen=True, slots=True)
class BitBias(FaultModel):
    """A value gains or loses the weight of one of its bits, saturating, with probability ``rate`` (iBB)."""

    rate: float
    scope: Scope = "convolutions"
    duration: Duration | None = None
    activity: float = 0.5
    target: ClassVar[Target] = "features"
    model: ClassVar[str] = "bit_bias"


@dataclass(frozen=True, slots=True)
class MacBitBias(FaultModel):
    """Bit bias at rate ``1 - (1 - rate)^M`` for a value of M multiply-accumulates (MiBB, arXiv 2003.10375).

    Two switches bring back what the released code did, for comparison with its numbers: ``rounding=published`` draws
    at ``1 / floor(1 / p)`` for a value's rate p (0.369 becomes 0.5, all above 0.5 becomes 1); ``bias=published`` adds
    2^(bits-1) steps each time and clips at the batch's largest magnitude, as the commit of the experiments did.
    """

    rate: float
    scope: Scope = "convolutions"
    rounding: Rounding = "exact"
    bias: Bias = "any_bit"
    duration: Duration | None = None
    activity: float = 0.5
    target: ClassVar[Target] = "features"
    model: ClassVar[str] = "mac_bit_bias"


@dataclass(frozen=True, slots=True)
class OutputPattern(FaultModel):
    """A failing processing element spoils a whole group of output values, each group with probability ``rate``.

    Attributes:
        shape: the group: a ``point``; a ``row`` of a channel; a ``channel``; a ``block`` of ``size`` x ``size`` values
            of a channel; or the same position ``across_channels``.
        value: what the values become: a random one ``in_range`` (of the format, for float words of the image's values);
            ``out_of_range``, the format's end with a random sign, as a stored number cannot lie beyond; ``zero``; or
            with the same bit of each ``flip``-ped.
    """

    rate: float
    shape: Shape = "point"
    value: Value = "in_range"
    size: int = 4
    scope: Scope = "convolutions"
    duration: Duration | None = None
    activity: float = 0.5
    target: ClassVar[Target] = "features"
    model: ClassVar[str] = "pattern"


@dataclass(frozen=True, slots=True)
class StuckCell(FaultModel):
    """A weight is a positive minus a negative memory cell, and each cell is stuck with probability ``rate``.

    Whole-weight adSAF of arXiv 2003.10375. A cell stuck at 0 conducts nothing; one stuck at 1 conducts as much as the
    layer's largest weight (``layer_max``, what the published results used) or as the range's end (``range_end``).
    """

    rate: float
    stuck_at_one: float = STUCK_AT_ONE
    reach: Reach = "layer_max"
    scope: Scope = "convolutions"
    target: ClassVar[Target] = "weights"
    model: ClassVar[str] = "stuck_cell"


@dataclass(frozen=True, slots=True)
class BitwiseStuckCell(FaultModel):
    """As ``StuckCell``, with one memory cell for each magnitude bit of either sign (bitwise adSAF)."""

    rate: float
    stuck_at_one: float = STUCK_AT_ONE
    scope: Scope = "convolutions"
    target: ClassVar[Target] = "weights"
    model: ClassVar[str] = "bitwise_stuck_cell"


@dataclass(frozen=True, slots=True)
class LogNormal(FaultModel):
    """Every weight is multiplied by ``exp(sigma * z)``, z standard normal (variation of a memristor's conductance).

    The result is analogue: it leaves the grid.
    """

    sigma: float
    scope: Scope = "convolutions"
    target: ClassVar[Target] = "weights"
    model: ClassVar[str] = "log_normal"
    strength: ClassVar[str] = "sigma"

    @property
    def rate(self) -> float:
        """How much varies: sigma."""
        return self.sigma


@dataclass(frozen=True, slots=True)
class Gaussian(FaultModel):
    """Every value gains ``sigma * R * z``, z standard normal.

    For weights R is the layer's largest magnitude and the result leaves the grid; for features R is the end of the
    number format, and the noisy value is stored, so it is rounded and clamped.
    """

    sigma: float
    target: Target = "weights"
    scope: Scope = "convolutions"
    model: ClassVar[str] = "gaussian"
    strength: ClassVar[str] = "sigma"

    @property
    def rate(self) -> float:
        """How much varies: sigma."""
        return self.sigma


@dataclass(frozen=True, slots=True)
class Listed(FaultModel):
    """Faults listed one by one (see ``explicit_plan``): bits that flip or are stuck. Nothing is drawn."""

    target: Target = "weights"
    model: ClassVar[str] = "listed"
    strength: ClassVar[str] = ""
    scope: ClassVar[Scope] = "all"
    rate: ClassVar[float] = 1.0


Fault = (
    BitFlip
    | StuckBit
    | DirectedFlip
    | RandomValue
    | BitBias
    | MacBitBias
    | OutputPattern
    | StuckCell
    | BitwiseStuckCell
    | LogNormal
    | Gaussian
    | Listed
)


def duration(fault: Fault) -> Duration:
    """Return how long a failure lasts; by default that of weights for as long as the chip, that of features once."""
    chosen: Duration | None = getattr(fault, "duration", None)
    return chosen or ("permanent" if fault.target == "weights" else "transient")


def with_rate(fault: Fault, rate: float) -> Fault:
    """Return ``fault`` at another rate (or sigma)."""
    if not fault.strength:
        raise FaultError(f"{fault.name} has no rate to change")
    changed: Fault = replace(fault, **{fault.strength: rate})  # type: ignore[arg-type]
    return changed


def _check(fault: FaultModel, name: str, value: object) -> None:
    """Refuse a rate or share outside [0, 1] and an unknown option."""
    if name in CHOICES:
        if value not in CHOICES[name] and not (name == "duration" and value is None):
            raise FaultError(f"{fault.name}: {name} must be one of {', '.join(CHOICES[name])}, got {value!r}")
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in COUNTS:
        if not isinstance(value, int) or not is_number or not 1 <= value <= 64:
            raise FaultError(f"{fault.name}: {name} must be a whole number from 1 to 64, got {value!r}")
    elif name in STRENGTHS:
        if not is_number or not 0 <= value < float("inf"):  # type: ignore[operator]
            raise FaultError(f"{fault.name}: {name} must be a number of 0 or more, got {value!r}")
    elif not is_number or not 0 <= value <= 1:  # type: ignore[operator]
        raise FaultError(f"{fault.name}: {name} must be a number in [0, 1], got {value!r}")


def _shortest(value: object) -> str:
    return format(value, "g") if isinstance(value, float) and float(format(value, "g")) == value else str(value)
