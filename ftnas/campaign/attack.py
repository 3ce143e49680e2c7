"""A campaign over chips of any kind of net: measured until it is sure enough, recorded, and made into estimates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ftnas.campaign.engine import Engine, Progress, Shard, folder_of, open_campaign
from ftnas.campaign.estimates import Estimate, bounds_of, estimate
from ftnas.campaign.outcomes import Outcomes
from ftnas.campaign.records import Content
from ftnas.campaign.sample_size import CONFIDENCE, check_open
from ftnas.campaign.stopping import Looks, growing_schedule
from ftnas.errors import CampaignError

PILOT = 20  # chips before the first look: fewer say little of how much chips differ
MAX_CHIPS = 1000
SHARES = (
    "correct_after",
    "accuracy_drop",
    "masked",
    "benign",
    "sdc1",
    "sdc5",
    "sdc10_percent",
    "sdc20_percent",
    "due",
    "changed",
)


class AnyLevel(Protocol):
    """Faults of any kind at one rate, by which the level is called."""

    @property
    def rate(self) -> float:
        """Of the first fault."""

    @property
    def faults(self) -> Sequence[object]:
        """All that fails together; as text they say what."""


@dataclass(frozen=True, slots=True, eq=False)
class Attack:
    """What the chips of a campaign go through.

    Attributes:
        header: what tells this campaign from others, for the records.
        population: what the chips are drawn from, in words.
        accuracy: without faults.
        levels: the rates.
        measure: (level, chip, check) -> ``faults``, counts by name, and either ``images``, the counts of ``Outcomes``,
            or ``score``, the accuracy of a net that is not asked image by image.
    """

    header: Content
    population: str
    accuracy: float
    levels: Sequence[AnyLevel]
    measure: Callable[[int, int, Callable[[], None]], Mapping[str, Any]]

    def work(self, units: Sequence[ChipUnit], check: Callable[[], None]) -> list[Content]:
        """Return the records of ``units``."""
        return [self._record(unit, check) for unit in units]

    def _record(self, unit: ChipUnit, check: Callable[[], None]) -> Content:
        rates = [
            {"rate": level.rate, **self.measure(place, unit.number, check)} for place, level in enumerate(self.levels)
        ]
        return {"unit": unit.name, "rates": rates}


@dataclass(frozen=True, slots=True)
class ChipUnit:
    """One chip of the study."""

    number: int

    @property
    def name(self) -> str:
        """What its record calls it."""
        return f"chip {self.number}"


@dataclass(frozen=True, slots=True)
class RateResult:
    """What the chips did at one rate.

    Attributes:
        rate: of the first fault model.
        faults: all fault models as texts.
        shares: estimates by outcome (see ``outcomes.MEANINGS``), each a share of all images.
        counts: faults planned, applied, effective and masked, over all chips.
    """

    rate: float
    faults: tuple[str, ...]
    shares: Mapping[str, Estimate]
    counts: Mapping[str, int]

    @property
    def accuracy(self) -> Estimate:
        """Share of images that a faulty chip gets right."""
        return self.shares["correct_after"]

    def __str__(self) -> str:
        worst = f"worst chip {100 * self.accuracy.lowest:.2f} %"
        return f"{' + '.join(self.faults)}: {self.accuracy}, {worst}; {self.shares['changed']} of answers changed"


@dataclass(frozen=True, slots=True)
class ChipResult:
    """What a campaign over chips found.

    Attributes:
        header: what was measured, as in the records: settings, hashes, versions, study.
        population: what the chips are drawn from, in words.
        accuracy: of the golden run.
        chips: how many were measured.
        missing: how many of those asked for other shards have to do.
        margin: what the half width of every accuracy's interval was to be at most.
        reached: whether it is; ``None`` without a margin.
        rates: in the order given.
        units: the records.
    """

    header: Content
    population: str
    accuracy: float
    chips: int
    missing: int
    margin: float | None
    reached: bool | None
    rates: tuple[RateResult, ...]
    units: tuple[Content, ...]

    def __str__(self) -> str:
        unsure = f", the margin of {self.margin:g} not reached" if self.reached is False else ""
        head = f"accuracy of {self.chips} chips{unsure}; {100 * self.accuracy:.2f} % without faults"
        return "\n".join([head, *map(str, self.rates), f"population: {self.population}"])


@dataclass(frozen=True, slots=True)
class Goal:
    """When a campaign over chips is done: after ``chips``, or when its intervals are as narrow as ``margin``."""

    margin: float | None
    chips: int | None
    max_chips: int = MAX_CHIPS
    confidence: float = CONFIDENCE
    sharded: bool = False

    def __post_init__(self) -> None:
        check_open("confidence", self.confidence)
        if (self.margin is None) == (self.chips is None):
            raise CampaignError(f"margin: {self.margin}, chips: {self.chips}; allowed is exactly one of the two")
        if self.margin is not None and self.sharded:
            raise CampaignError("margin: a shard cannot know when all of them have enough; give it chips instead")
        if self.margin is not None:
            check_open("margin", self.margin)
        for name, value in (("chips", self.chips), ("max_chips", self.max_chips)):
            if value is not None and value < 1:
                raise CampaignError(f"{name}: {value}; allowed is 1 or more")

    def looks(self) -> list[tuple[int, float]]:
        """Return after how many chips to look, and the confidence of the intervals then."""
        if self.chips is not None:
            return [(self.chips, self.confidence)]
        looks = Looks(self.confidence, growing_schedule(min(PILOT, self.max_chips), self.max_chips))
        return [(chips, looks.confidence_at(look)) for look, chips in enumerate(looks.schedule)]


@dataclass(frozen=True, slots=True)
class Conduct:
    """How a campaign is worked off: where its records go, with how many threads, which part, and who is told."""

    out: Path | str | None = None
    workers: int = 1
    shard: Shard | None = None
    progress: Progress | None = None


def conduct(attack: Attack, goal: Goal, how: Conduct) -> ChipResult:
    """Let as many chips go through ``attack`` as ``goal`` asks for, those on record apart.

    Raises:
        CampaignError: the folder holds another campaign or is damaged.
    """
    with open_campaign(
        folder_of(how.out),
        attack.header,
        attack.work,
        chunk=1,
        workers=how.workers,
        shard=how.shard,
        progress=how.progress,
    ) as engine:
        measured, asked, confidence = _until_sure(engine, attack, goal)
    found = tuple(_rate_result(attack, index, measured, confidence) for index in range(len(attack.levels)))
    margin = goal.margin
    return ChipResult(
        header=attack.header,
        population=attack.population,
        accuracy=attack.accuracy,
        chips=len(measured),
        missing=asked - len(measured),
        margin=margin,
        reached=None if margin is None else all(rate.accuracy.interval.half_width <= margin for rate in found),
        rates=found if measured else (),
        units=tuple(measured),
    )


def _until_sure(engine: Engine[ChipUnit], attack: Attack, goal: Goal) -> tuple[list[Content], int, float]:
    """Return the records, how many were asked for, and the confidence of the last look."""
    for chips, confidence in goal.looks():
        title = f"{chips} chips" if goal.margin is None else f"up to {chips} chips"
        measured = engine.results([ChipUnit(number) for number in range(chips)], title=title)
        _check_rates(measured, len(attack.levels))
        if goal.margin is None:
            break
        rates = range(len(attack.levels))
        accuracies = [_estimates(attack, index, measured, confidence)["correct_after"] for index in rates]
        if all(accuracy.interval.half_width <= goal.margin for accuracy in accuracies):
            break
    return measured, chips, confidence


def _check_rates(measured: Sequence[Content], rates: int) -> None:
    """Refuse records out of a file that do not hold what this campaign asks for."""
    for content in measured:
        if len(content.get("rates", ())) != rates:
            raise CampaignError(f"record {content['unit']}: needs {rates} rates; move the records away")


def _rate_result(attack: Attack, index: int, measured: Sequence[Content], confidence: float) -> RateResult:
    counted = [content["rates"][index]["faults"] for content in measured]
    counts = {name: sum(chip.get(name, 0) for chip in counted) for name in (counted[0] if counted else ())}
    level = attack.levels[index]
    return RateResult(
        level.rate, tuple(map(str, level.faults)), _estimates(attack, index, measured, confidence), counts
    )


def _estimates(attack: Attack, index: int, measured: Sequence[Content], confidence: float) -> dict[str, Estimate]:
    """Return the estimate of every outcome that the chips have."""
    chips = [_shares(content["rates"][index], attack.accuracy) for content in measured]
    shares = {name: [chip.get(name) for chip in chips] for name in SHARES}
    return {
        name: estimate([float(value) for value in values if value is not None], confidence, bounds=bounds_of(name))
        for name, values in shares.items()
        if values and None not in values
    }


def _shares(record: Mapping[str, Any], clean: float) -> dict[str, float | None]:
    """Return the outcomes of one chip at one rate by name."""
    if "score" in record:
        return {"correct_after": record["score"], "accuracy_drop": clean - record["score"]}
    counted = Outcomes(**record["images"])
    return {name: counted.share(name) for name in SHARES}
