"""Campaigns over chips: how good is the net on faulty devices, and how sure is that?

The unit is the chip. All rates of a campaign share their chips, and a chip's faults at a low rate are among those at
every higher one, so a curve over rates is smooth and a difference between two rates needs few chips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ftnas.campaign.attack import MAX_CHIPS, Attack, ChipResult, Conduct, Goal, conduct
from ftnas.campaign.engine import Progress, Shard
from ftnas.campaign.levels import Faults, Level, levels_of
from ftnas.campaign.measurement import chip_logits
from ftnas.campaign.outcomes import outcomes
from ftnas.campaign.records import SCHEMA, Content
from ftnas.campaign.sample_size import CONFIDENCE
from ftnas.campaign.subject import BATCH_SIZE, Logits, Subject, as_array, tensors_hash, undisturbed
from ftnas.errors import FaultError
from ftnas.faults import Count, Fault, applies_to, sites


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
    population = (
        f"all chips of study {study!r}, without end; on each, drawn anew: {population_of(model, levels[0].faults)}"
    )
    with undisturbed(model, golden):
        logits = subject.logits(golden)
        right = float((logits.argmax(1) == subject.answers()).mean())
        measure = _measure(subject, levels, logits, study)
        attack = Attack(_header(subject, levels, golden, study), population, right, levels, measure)
        return conduct(attack, goal, Conduct(out, workers, shard, progress))


def _measure(
    subject: Subject, levels: Sequence[Level], golden: Logits, study: str
) -> Callable[[int, int, Callable[[], None]], Mapping[str, Any]]:
    """Return what a chip goes through at one level; ``golden`` ``[N, K]`` is what its logits are compared with."""

    def measure(level: int, chip: int, check: Callable[[], None]) -> Mapping[str, Any]:
        logits, counts = chip_logits(
            subject.model,
            subject.images,
            faults=levels[level].faults,
            chip=chip,
            study=study,
            batch_size=subject.batch_size,
            device=subject.device,
            before=check,
        )
        images = outcomes(golden, as_array(logits), subject.answers())
        return {"faults": summed(counts), "images": images.to_dict()}

    return measure


def summed(counts: Mapping[str, Count]) -> dict[str, int]:
    """Return the counts of all sites added up, by name."""
    return {field.name: sum(getattr(count, field.name) for count in counts.values()) for field in fields(Count)}


def _header(subject: Subject, levels: Sequence[Level], golden: nn.Module | None, study: str) -> Content:
    reference = {"golden": None if golden is None else tensors_hash(golden)}
    faults = [[str(fault) for fault in level.faults] for level in levels]
    return {"schema": SCHEMA, "campaign": "chips", "study": study, "faults": faults} | reference | subject.describe()


def population_of(model: nn.Module, faults: Sequence[Fault]) -> str:
    """Return what of ``model`` can fail, in words.

    Raises:
        FaultError: a fault model meets no site.
    """
    parts = []
    for fault in faults:
        hit = [site for site in sites(model) if applies_to(fault, site)]
        if not hit:
            raise FaultError(f"{fault.name}: {type(model).__name__} has no site that it can hit")
        values = f" with {sum(site.values for site in hit):,} values" if hit[0].kind == "weight" else ""
        parts.append(f"{fault.name} at {len(hit)} site{'s' * (len(hit) > 1)}{values}")
    return ", ".join(parts)
