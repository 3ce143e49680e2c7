"""The rates of a campaign: the same faults, at one strength after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ftnas.errors import CampaignError
from ftnas.faults import Fault, parse_faults, parse_sweep, with_rate

F = TypeVar("F")
Faults = Fault | str | Sequence[Fault | str]


@dataclass(frozen=True, slots=True)
class Level:
    """What fails together.

    Attributes:
        rate: of the first fault model, by which the level is called.
        faults: all of them, in the order in which they act.
    """

    rate: float
    faults: tuple[Fault, ...]


def levels_of(faults: Faults, rates: Sequence[float] | None) -> tuple[Level, ...]:
    """Return one level for each rate.

    Args:
        faults: models or texts; a text may list rates, as ``weights.bit_flip:1e-4,1e-3``. Those that list several
            list as many; the others keep their one rate.
        rates: of the first model, where none lists several; the others change in proportion.

    Raises:
        CampaignError: the rates do not fit together.
        FaultError: a model, text or rate is impossible.
    """
    several = faults if isinstance(faults, Sequence) and not isinstance(faults, str) else [faults]
    sweeps = [parse_sweep(fault) if isinstance(fault, str) else parse_faults(fault) for fault in several]
    every = stepped(sweeps)
    if rates is not None and len(every) > 1:
        raise CampaignError("rates: the faults list rates themselves; allowed is one of the two")
    if rates is not None:
        every = [at_rate([sweep[0] for sweep in sweeps], rate) for rate in rates]
    levels = tuple(Level(float(chosen[0].rate), tuple(chosen)) for chosen in every)
    check_rates([level.rate for level in levels])
    return levels


def stepped(sweeps: Sequence[Sequence[F]]) -> list[list[F]]:
    """Return what fails together at each rate; of each of ``sweeps`` as many faults are given, or one for all rates.

    Raises:
        CampaignError: none are given, or their numbers differ.
    """
    if not sweeps:
        raise CampaignError("faults: none are given; allowed is one or more")
    steps = max(len(sweep) for sweep in sweeps)
    if any(len(sweep) not in (1, steps) for sweep in sweeps):
        raise CampaignError(f"faults: {[len(sweep) for sweep in sweeps]} rates; allowed is as many each, or one")
    return [[sweep[min(step, len(sweep) - 1)] for sweep in sweeps] for step in range(steps)]


def check_rates(rates: Sequence[float]) -> None:
    """Refuse rates of which one comes twice, and none at all.

    Raises:
        CampaignError: the rates are so.
    """
    if not rates or len({*rates}) < len(rates):
        raise CampaignError(f"rates: {list(rates)}; allowed is one or more, each once")


def at_rate(faults: Sequence[Fault], rate: float) -> list[Fault]:
    """Return ``faults`` with the first at ``rate`` and the others changed in proportion, none above 1."""
    factor = rate / faults[0].rate if faults[0].rate else 0.0
    return [with_rate(faults[0], rate), *(with_rate(f, min(1.0, f.rate * factor)) for f in faults[1:])]
