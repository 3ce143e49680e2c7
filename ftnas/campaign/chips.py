"""Campaigns over chips: how good is the net on faulty devices, and how sure is that?

The unit is the chip. All rates of a campaign share their chips, and a chip's faults at a low rate are among those at
every higher one, so a curve over rates is smooth and a difference between two rates needs few chips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ftnas.campaign.engine import Engine, Progress, Shard, folder_of, open_campaign
from ftnas.campaign.estimates import Estimate, bounds_of, estimate
from ftnas.campaign.levels import Faults, Level, levels_of
from ftnas.campaign.measurement import chip_logits
from ftnas.campaign.outcomes import Outcomes, outcomes
from ftnas.campaign.records import SCHEMA, Content
from ftnas.campaign.sample_size import CONFIDENCE, check_open
from ftnas.campaign.stopping import Looks, growing_schedule
from ftnas.campaign.subject import BATCH_SIZE, Logits, Subject, as_array, tensors_hash, undisturbed
from ftnas.errors import CampaignError, FaultError
from ftnas.faults import Count, applies_to, sites

PILOT = 20  # chips before the first look: fewer say little of how much chips differ
MAX_CHIPS = 1000
SHARES = ("correct_after", "accuracy_drop", "masked", "benign", "sdc1", "sdc5", "due", "changed")


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


def run(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    faults: Faults,
    *,
    rates: Sequence[float] | None = None,
    margin: float | None = None,
    chips: int | None = None,
    max_chips: int = MAX_CHIPS,
    confidence: float = CONFIDENCE,
    golden: nn.Module | None = None,
    out: Path | str | None = None,
    study: str = "campaign",
    batch_size: int = BATCH_SIZE,
    workers: int = 1,
    shard: Shard | None = None,
    progress: Progress | None = None,
) -> ChipResult:
    """Measure ``model`` on faulty chips, as many as ``margin`` asks for, and change nothing of the caller's.

    With a margin 20 chips are measured first, then more, until the interval of the accuracy at every rate reaches at
    most so far from its middle. The looks in between share the error, so the interval is an honest one.

    Args:
        model: with quantised layers (see ``faults.quantize``).
        data: images ``[N, ...]`` and labels ``[N]``.
        faults: models or texts; a text may list rates.
        rates: of the first model, where no text lists several.
        margin: half width of the interval of the accuracy, 0.005 for half a point.
        chips: exactly so many, instead of a margin.
        max_chips: where a margin gives up.
        confidence: of the intervals.
        golden: what faulty answers are compared with; by default ``model`` without faults, else for instance the
            net before quantisation.
        out: a folder for the records; a later call goes on with what is there.
        study: chips are the same for every model of one study.
        batch_size: images of one forward pass.
        workers: threads.
        shard: do only a part of the chips. A call without it joins what shards left in ``out``.
        progress: shows how far it is.

    Raises:
        CampaignError: an argument is impossible, or ``out`` holds another campaign or is damaged.
        FaultError: a fault is impossible, or nothing of the model can fail that way.
    """
    subject = Subject(model, *data, batch_size=batch_size)
    levels = levels_of(faults, rates)
    goal = Goal(margin, chips, max_chips, confidence, sharded=shard is not None)
    population = _population(model, levels, study)
    with undisturbed(model, golden):
        header = _header(subject, levels, golden, study)
        attack = _Attack(subject, levels, subject.logits(golden), study)
        with open_campaign(
            folder_of(out), header, attack.work, chunk=1, workers=workers, shard=shard, progress=progress
        ) as engine:
            measured, asked, at_confidence = _until_sure(engine, levels, goal)
    found = tuple(_rate_result(level, index, measured, at_confidence) for index, level in enumerate(levels))
    return ChipResult(
        header=header,
        population=population,
        accuracy=float((attack.golden.argmax(1) == subject.answers()).mean()),
        chips=len(measured),
        missing=asked - len(measured),
        margin=margin,
        reached=None if margin is None else all(rate.accuracy.interval.half_width <= margin for rate in found),
        rates=found if measured else (),
        units=tuple(measured),
    )


@dataclass(frozen=True, slots=True)
class Goal:
    """When a campaign over chips is done: after ``chips``, or when its intervals are as narrow as ``margin``."""

    margin: float | None
    chips: int | None
    max_chips: int
    confidence: float
    sharded: bool

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


@dataclass(frozen=True, slots=True, eq=False)
class _Attack:
    """What one chip goes through.

    Attributes:
        golden: logits ``[N, K]`` that those of a chip are compared with.
    """

    subject: Subject
    levels: tuple[Level, ...]
    golden: Logits
    study: str

    def work(self, units: Sequence[ChipUnit], check: Callable[[], None]) -> list[Content]:
        """Return the records of ``units``."""
        return [self._record(unit, check) for unit in units]

    def _record(self, unit: ChipUnit, check: Callable[[], None]) -> Content:
        return {"unit": unit.name, "rates": [self._rate(level, unit.number, check) for level in self.levels]}

    def _rate(self, level: Level, chip: int, check: Callable[[], None]) -> dict[str, Any]:
        subject = self.subject
        logits, counts = chip_logits(
            subject.model,
            subject.images,
            faults=level.faults,
            chip=chip,
            study=self.study,
            batch_size=subject.batch_size,
            device=subject.device,
            before=check,
        )
        images = outcomes(self.golden, as_array(logits), subject.answers())
        return {"rate": level.rate, "faults": _summed(counts), "images": images.to_dict()}


def _until_sure(engine: Engine[ChipUnit], levels: Sequence[Level], goal: Goal) -> tuple[list[Content], int, float]:
    """Return the records, how many were asked for, and the confidence of the last look."""
    for chips, confidence in goal.looks():
        title = f"{chips} chips" if goal.margin is None else f"up to {chips} chips"
        measured = engine.results([ChipUnit(number) for number in range(chips)], title=title)
        if goal.margin is None:
            break
        accuracies = [_estimates(measured, index, confidence)["correct_after"] for index in range(len(levels))]
        if all(accuracy.interval.half_width <= goal.margin for accuracy in accuracies):
            break
    return measured, chips, confidence


def _rate_result(level: Level, index: int, measured: Sequence[Content], confidence: float) -> RateResult:
    counted = [content["rates"][index]["faults"] for content in measured]
    counts = {field.name: sum(chip[field.name] for chip in counted) for field in fields(Count)}
    return RateResult(level.rate, tuple(map(str, level.faults)), _estimates(measured, index, confidence), counts)


def _estimates(measured: Sequence[Content], index: int, confidence: float) -> dict[str, Estimate]:
    """Return the estimate of every outcome that the chips have."""
    counted = [Outcomes(**content["rates"][index]["images"]) for content in measured]
    shares = {name: [chip.share(name) for chip in counted] for name in SHARES}
    return {
        name: estimate([float(value) for value in values if value is not None], confidence, bounds=bounds_of(name))
        for name, values in shares.items()
        if values and None not in values
    }


def _summed(counts: Mapping[str, Count]) -> dict[str, int]:
    return {field.name: sum(getattr(count, field.name) for count in counts.values()) for field in fields(Count)}


def _header(subject: Subject, levels: Sequence[Level], golden: nn.Module | None, study: str) -> Content:
    reference = {"golden": None if golden is None else tensors_hash(golden)}
    faults = [[str(fault) for fault in level.faults] for level in levels]
    return {"schema": SCHEMA, "campaign": "chips", "study": study, "faults": faults} | reference | subject.describe()


def _population(model: nn.Module, levels: Sequence[Level], study: str) -> str:
    """Return what can fail, in words.

    Raises:
        FaultError: a fault model meets no site.
    """
    parts = []
    for fault in levels[0].faults:
        hit = [site for site in sites(model) if applies_to(fault, site)]
        if not hit:
            raise FaultError(f"{fault.name}: {type(model).__name__} has no site that it can hit")
        values = f" with {sum(site.values for site in hit):,} values" if hit[0].kind == "weight" else ""
        parts.append(f"{fault.name} at {len(hit)} site{'s' * (len(hit) > 1)}{values}")
    return f"all chips of study {study!r}, without end; on each, drawn anew: {', '.join(parts)}"
