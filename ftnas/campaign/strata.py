"""What single faults did, stratum by stratum and in the whole population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftnas.campaign.estimates import Estimate, bounds_of, estimate, stratified_estimate
from ftnas.campaign.intervals import wilson
from ftnas.campaign.outcomes import Outcomes, critical
from ftnas.campaign.population import By, Population, Stratum
from ftnas.campaign.records import Content
from ftnas.campaign.samples import Allocation, Sample, Sampling

SHARES = (
    "changed",
    "sdc1",
    "sdc5",
    "sdc10_percent",
    "sdc20_percent",
    "due",
    "benign",
    "masked",
    "accuracy_drop",
)


@dataclass(frozen=True, slots=True)
class StratumResult:
    """What the faults of one stratum did.

    Attributes:
        stratum: name, site, bit and size.
        injected: how many faults.
        ineffective: those of them that left the code as it is, such as a bit stuck at what it was.
        shares: estimates by outcome (see ``outcomes.MEANINGS``), each a share of all (fault, image) pairs; of
            ``critical`` the share of faults.
    """

    stratum: Stratum
    injected: int
    ineffective: int
    shares: Mapping[str, Estimate]

    def __str__(self) -> str:
        changed, critical = self.shares["changed"], self.shares["critical"]
        faults = f"{self.injected:,} of {self.stratum.size:,} faults"
        return f"{self.stratum.name}: {faults}, {changed} of answers changed, {critical} of faults critical"


@dataclass(frozen=True, slots=True)
class SingleResult:
    """What a campaign of single faults found.

    Attributes:
        header: what was measured, as in the records, with study and site pattern.
        population: all faults that could have been injected.
        by: how it was divided.
        allocation: how a number of faults was shared out; ``None`` where no number was asked for.
        confidence: of the intervals, but where looks share its error.
        accuracy: of the golden run.
        critical: the share of images that a critical fault changes at least.
        missing: how many of the faults asked for other shards have to do.
        margin: what the half width of the interval of every stratum's changed answers was to be at most.
        reached: whether it is; ``None`` without a margin.
        strata: in the order of the population; without those that no fault was injected into yet.
        network: of the whole population; ``None`` while a stratum is missing.
        units: the records.
    """

    header: Content
    population: Population
    by: By
    allocation: Allocation | None
    confidence: float
    accuracy: float
    critical: float
    missing: int
    margin: float | None
    reached: bool | None
    strata: tuple[StratumResult, ...]
    network: StratumResult | None
    units: tuple[Content, ...]

    def __str__(self) -> str:
        unsure = f", the margin of {self.margin:g} not reached" if self.reached is False else ""
        head = f"{len(self.units):,} single faults{unsure}; {100 * self.accuracy:.2f} % accuracy without faults"
        network = [self.network] if self.network and len(self.strata) > 1 else []
        return "\n".join([head, *map(str, (*self.strata, *network)), f"population: {self.population.describe()}"])


def check_share(share: float) -> None:
    """Refuse a share of images that makes no fault critical, before anything is injected.

    Raises:
        CampaignError: it is not in (0, 1].
    """
    critical(Outcomes(images=1, masked=1, benign=0, sdc1=0, due=0), share)


def single_result(
    header: Content,
    population: Population,
    sampling: Sampling,
    samples: Sequence[Sample],
    *,
    critical: float,
    accuracy: float,
) -> SingleResult:
    """Return what ``samples`` say."""
    full = [part for part in samples if part.units]
    margin = sampling.margin
    return SingleResult(
        header=header,
        population=population,
        by=sampling.by,
        allocation=sampling.allocation,
        confidence=sampling.confidence,
        accuracy=accuracy,
        critical=critical,
        missing=sum(part.asked - len(part.units) for part in samples),
        margin=margin,
        reached=None if margin is None else all(part.is_within(margin) for part in samples),
        strata=tuple(stratum_result(part, critical) for part in full),
        network=_network(population, full, critical, sampling.confidence) if len(full) == len(samples) else None,
        units=tuple(unit for part in full for unit in part.units),
    )


def stratum_result(sample: Sample, share: float) -> StratumResult:
    """Return the estimates of one stratum; its faults were drawn alike, without replacement."""
    confidence, size = sample.confidence, sample.stratum.size
    values = unit_values(sample.units, share)
    shares = {
        name: stratified_estimate([(size, numbers)], confidence, pilot=[sample.pilot], bounds=bounds_of(name))
        if sample.pilot
        else estimate(numbers, confidence, population=size, bounds=bounds_of(name))
        for name, numbers in values.items()
    }
    if not sample.pilot:
        shares["critical"] = _yes_or_no(values["critical"], confidence, size)
    return StratumResult(sample.stratum, len(sample.units), _ineffective(sample.units), shares)


def _yes_or_no(units: Sequence[float], confidence: float, population: int) -> Estimate:
    """Return the estimate of the share of units that are 1, not 0."""
    events, n = int(sum(units)), len(units)
    return Estimate(events / n, wilson(events, n, confidence, population=population), n, min(units), max(units))


def _network(population: Population, samples: Sequence[Sample], share: float, confidence: float) -> StratumResult:
    """Return the estimates of the whole population, in which each stratum weighs by its size."""
    if len(samples) == 1:
        return stratum_result(samples[0], share)
    values = [(part.stratum.size, unit_values(part.units, share)) for part in samples]
    names = [name for name in values[0][1] if all(name in numbers for _, numbers in values)]
    units = [unit for part in samples for unit in part.units]
    return StratumResult(
        Stratum(None, None, population.size),
        len(units),
        _ineffective(units),
        {
            name: stratified_estimate(
                [(size, numbers[name]) for size, numbers in values],
                confidence,
                pilot=[part.pilot for part in samples],
                bounds=bounds_of(name),
            )
            for name in names
        },
    )


def unit_values(units: Sequence[Content], share: float) -> dict[str, list[float]]:
    """Return one number a fault for each outcome that there is, and for being critical 1 or 0."""
    counted = [Outcomes(**unit["images"]) for unit in units]
    columns = {name: [images.share(name) for images in counted] for name in SHARES}
    known = {name: [float(value) for value in values if value is not None] for name, values in columns.items()}
    known = {name: values for name, values in known.items() if len(values) == len(units)}
    return known | {"critical": [float(critical(images, share)) for images in counted]}


def _ineffective(units: Sequence[Content]) -> int:
    return sum(not unit["effective"] for unit in units)
