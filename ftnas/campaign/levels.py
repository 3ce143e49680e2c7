"""The rates of a campaign: the same faults, at one strength after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ftnas.errors import CampaignError
from ftnas.faults import Fault, parse_faults, parse_sweep, with_rate

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
    if not sweeps:
        raise CampaignError("faults: none are given; allowed is one or more")
    steps = max(len(sweep) for sweep in sweeps)
    if any(len(sweep) not in (1, steps) for sweep in sweeps):
        raise CampaignError(f"faults: {[len(sweep) for sweep in sweeps]} rates; allowed is as many each, or one")
    if rates is not None and steps > 1:
        raise CampaignError("rates: the faults list rates themselves; allowed is one of the two")
    if rates is not None:
        every = [at_rate([sweep[0] for sweep in sweeps], rate) for rate in rates]
    else:
        every = [[sweep[min(step, len(sweep) - 1)] for sweep in sweeps] for step in range(steps)]
    levels = tuple(Level(float(chosen[0].rate), tuple(chosen)) for chosen in every)
    if not levels or len({level.rate for level in levels}) < len(levels):
        raise CampaignError(f"rates: {[level.rate for level in levels]}; allowed is one or more, each once")
    return levels


def at_rate(faults: Sequence[Fault], rate: float) -> list[Fault]:
    """Return ``faults`` with the first at ``rate`` and the others changed in proportion, none above 1."""
    factor = rate / faults[0].rate if faults[0].rate else 0.0
    return [with_rate(faults[0], rate), *(with_rate(f, min(1.0, f.rate * factor)) for f in faults[1:])]
