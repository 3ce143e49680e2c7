"""Which single faults a campaign injects: all of them, so many, or as many as a margin takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np

from ftnas.campaign.allocation import FLOOR, bit_deviations, neyman, pilot_deviations, proportional
from ftnas.campaign.engine import Engine
from ftnas.campaign.estimates import estimate
from ftnas.campaign.outcomes import Outcomes
from ftnas.campaign.population import By, Integers, Population, Stratum
from ftnas.campaign.records import Content
from ftnas.campaign.sample_size import check_open, sample_size
from ftnas.campaign.stopping import Looks, growing_schedule
from ftnas.errors import CampaignError
from ftnas.faults import Flip
from ftnas.faults.explicit import FlipKind
from ftnas.runtime import key_seed

Allocation = Literal["bits", "neyman", "proportional"]

MOST_OF_A_LOW_BIT = 10  # faults, to see what spread there is; with 2, intervals are four fifths wider (measured)
NEYMAN_PILOT = 30  # faults of a stratum, from which its spread is judged
LEAST_AFTER_PILOT = 2  # faults of a stratum that stand for what the pilot left of it
FIRST_LOOK = 100  # faults before the first look at a margin


@dataclass(frozen=True, slots=True)
class FaultUnit:
    """One single fault."""

    flip: Flip

    @property
    def name(self) -> str:
        """What its record calls it."""
        return f"{self.flip.site}:{self.flip.element}:{self.flip.bit}:{self.flip.kind}"


@dataclass(frozen=True, slots=True)
class Sample:
    """What was injected of one stratum.

    Attributes:
        stratum: of the population.
        confidence: at which its intervals are to be taken.
        units: the records.
        asked: how many there are to be.
        pilot: how many at the front decided how many came after them (see ``fault_intervals.stratified_mean``).
    """

    stratum: Stratum
    confidence: float
    units: tuple[Content, ...]
    asked: int
    pilot: int = 0

    def is_within(self, margin: float) -> bool:
        """Return whether the share of changed answers is known to within ``margin``."""
        found = estimate(changed_shares(self.units), self.confidence, population=self.stratum.size)
        return found.interval.half_width <= margin


@dataclass(frozen=True, slots=True)
class Sampling:
    """How many faults, and how they are shared out; see ``single.run_single``."""

    by: By
    margin: float | None
    n: int | None
    allocation: Allocation | None
    pilot: int | None
    exhaustive: bool
    confidence: float
    sharded: bool

    def __post_init__(self) -> None:
        check_open("confidence", self.confidence)
        ways = {"margin": self.margin, "n": self.n, "exhaustive": self.exhaustive or None}
        if sum(value is not None for value in ways.values()) != 1:
            given = ", ".join(f"{name}: {value}" for name, value in ways.items())
            raise CampaignError(f"{given}; allowed is exactly one of them")
        if self.margin is not None:
            check_open("margin", self.margin)
        if self.margin is not None and self.sharded:
            raise CampaignError("margin: a shard cannot know when all of them have enough; give it n instead")
        if self.allocation is not None and (self.n is None or self.allocation not in get_args(Allocation)):
            known = ", ".join(get_args(Allocation))
            raise CampaignError(f"allocation: {self.allocation!r}; allowed is one of {known}, together with n")
        without = self.exhaustive or self.allocation in ("bits", "proportional")
        if self.pilot is not None and (without or self.pilot < 2):
            raise CampaignError(f"pilot: {self.pilot}; allowed is 2 or more, with a margin or neyman allocation")
        if self.allocation == "bits" and not self.is_by_bit:
            raise CampaignError(f"allocation: 'bits' by {self.by}; allowed is by bit or layer_bit")

    @property
    def is_by_bit(self) -> bool:
        """Whether each stratum has one bit."""
        return self.by in ("bit", "layer_bit")


def sample(population: Population, sampling: Sampling, engine: Engine[FaultUnit], *, study: str) -> list[Sample]:
    """Inject what ``sampling`` asks for, and return it by stratum."""
    draws = _Draws(population, study)
    strata = population.strata(sampling.by)
    if sampling.margin is not None:
        return _until_sure(draws, strata, sampling, engine, sampling.margin)
    if sampling.n is None:
        return _everything(draws, strata, sampling, engine)
    if sampling.allocation == "proportional" or len(strata) == 1:
        counts, pilot = proportional([stratum.size for stratum in strata], sampling.n), 0
    elif sampling.allocation == "bits":
        counts, pilot = by_bits(strata, sampling.n), 0
    else:
        counts, pilot = _after_pilot(draws, strata, sampling, engine, sampling.n)
    units = [draws.of(stratum, count) for stratum, count in zip(strata, counts, strict=True)]
    return _injected(strata, units, sampling, engine, pilot=pilot)


class _Draws:
    """The faults of each stratum in a random order that depends on the study only: a larger sample holds a smaller."""

    def __init__(self, population: Population, study: str) -> None:
        self.population = population
        self._study = study

    def of(self, stratum: Stratum, count: int) -> list[FaultUnit]:
        """Return the first ``count`` faults of ``stratum``."""
        generator = np.random.default_rng(key_seed("single faults", self._study, stratum.name))
        return self.at(self.population.draw(stratum, count, generator))

    def at(self, numbers: Integers) -> list[FaultUnit]:
        """Return the faults of these numbers ``[k]``."""
        sites, kinds = self.population.sites, self.population.kinds
        columns = (column.tolist() for column in self.population.locate(numbers))
        return [
            FaultUnit(Flip(sites[site][0], element, bit, cast(FlipKind, kinds[kind])))
            for site, element, bit, kind in zip(*columns, strict=True)
        ]


def _everything(
    draws: _Draws, strata: Sequence[Stratum], sampling: Sampling, engine: Engine[FaultUnit]
) -> list[Sample]:
    numbers = np.arange(draws.population.size)
    stratum_of = draws.population.stratum_of(numbers, sampling.by)
    groups = [draws.at(numbers[stratum_of == index]) for index in range(len(strata))]
    return _injected(strata, groups, sampling, engine)


def by_bits(strata: Sequence[Stratum], n: int) -> tuple[int, ...]:
    """Return how many of ``n`` faults each stratum, of one bit, gets: more the more its bit is worth."""
    sizes = [stratum.size for stratum in strata]
    floor = max(FLOOR, min(MOST_OF_A_LOW_BIT, n // (2 * len(strata))))
    return neyman(sizes, bit_deviations([stratum.bit or 0 for stratum in strata]), n, floor=floor)


def pilot_size(n: int, strata: int) -> int:
    """Return how many of ``n`` faults each stratum's pilot takes: a quarter at most, as it stands for itself only."""
    return max(2, min(NEYMAN_PILOT, n // (4 * strata)))


def _after_pilot(
    draws: _Draws, strata: Sequence[Stratum], sampling: Sampling, engine: Engine[FaultUnit], n: int
) -> tuple[tuple[int, ...], int]:
    """Inject a pilot, and return how many of ``n`` faults each stratum gets by it, and how many of those were it."""
    sizes = [stratum.size for stratum in strata]
    pilot = sampling.pilot or pilot_size(n, len(strata))
    least = pilot + LEAST_AFTER_PILOT
    proportional(sizes, n, floor=least)  # refuses an n that this exceeds, before anything is injected
    groups = [draws.of(stratum, min(pilot, stratum.size)) for stratum in strata]
    engine.results(_flat(groups), title="pilot", share=False)  # each shard needs the whole pilot
    changed = [changed_shares(engine.known(group)) for group in groups]
    return neyman(sizes, pilot_deviations(changed), n, floor=least), pilot


def _until_sure(
    draws: _Draws, strata: Sequence[Stratum], sampling: Sampling, engine: Engine[FaultUnit], margin: float
) -> list[Sample]:
    """Inject until the share of changed answers of every stratum is known to within ``margin``."""
    samples: dict[int, Sample] = {}
    looks = [_looks(stratum, sampling, margin) for stratum in strata]
    for look in range(max(len(plan.schedule) for plan in looks)):
        going_on = [index for index in range(len(strata)) if _goes_on(samples.get(index), looks[index], look, margin)]
        groups = [draws.of(strata[index], looks[index].schedule[look]) for index in going_on]
        if groups:
            engine.results(_flat(groups), title=f"single faults, look {look + 1}")
        for index, group in zip(going_on, groups, strict=True):
            confidence = looks[index].confidence_at(look)
            samples[index] = Sample(strata[index], confidence, tuple(engine.known(group)), len(group))
    return [samples[index] for index in range(len(strata))]


def _goes_on(sample: Sample | None, looks: Looks, look: int, margin: float) -> bool:
    """Return whether a stratum needs the faults of this look, counted from 0."""
    if sample is None or look >= len(looks.schedule):
        return sample is None
    return sample.asked == looks.schedule[look - 1] and not sample.is_within(margin)


def _looks(stratum: Stratum, sampling: Sampling, margin: float) -> Looks:
    """Return when to look: from the pilot to what the worst case, a share of one half, would take."""
    last = sample_size(margin, confidence=sampling.confidence, population=stratum.size)
    first = min(sampling.pilot or FIRST_LOOK, last)
    return Looks(sampling.confidence, growing_schedule(first, last), population=stratum.size)


def _injected(
    strata: Sequence[Stratum],
    groups: Sequence[Sequence[FaultUnit]],
    sampling: Sampling,
    engine: Engine[FaultUnit],
    *,
    pilot: int = 0,
) -> list[Sample]:
    engine.results(_flat(groups), title="single faults")
    samples = []
    for part, group in zip(strata, groups, strict=True):
        units = tuple(engine.known(group))
        # While other shards have the rest to do, the pilot is a sample like any other.
        first = min(pilot, part.size) if len(units) > pilot or len(group) == part.size else 0
        samples.append(Sample(part, sampling.confidence, units, len(group), first))
    return samples


def _flat(groups: Sequence[Sequence[FaultUnit]]) -> list[FaultUnit]:
    return [unit for group in groups for unit in group]


def changed_shares(units: Sequence[Content]) -> list[float]:
    """Return the share of images whose answer each fault changed."""
    return [float(Outcomes(**content["images"]).share("changed") or 0.0) for content in units]
