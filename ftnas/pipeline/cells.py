"""Cells to train: random ones within a limit, and the job of training one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ftnas.pipeline.jobs import TrainingJob
from ftnas.pipeline.run_folder import RunFolder, Workplace
from ftnas.runtime import keyed_generator
from ftnas.space import Genotype

ATTEMPTS = 20_000


def training_rates(run: Workplace) -> tuple[float, ...]:
    """Return the training's own rate and then the campaign's others; none where nothing fails."""
    if not run.config.faults:
        return ()
    own = run.config.faults[0].rate
    return (own, *(rate for rate in run.config.campaign.rates if rate != own))


def cell_job(
    run: RunFolder, name: str, label: str, genotype: Genotype, *, family: Any, part: Any, channels: int | None = None
) -> TrainingJob:
    """Return the fault-tolerant training of a cell: short on the split, or full on everything."""
    short = part == "split"
    return TrainingJob(
        name=name,
        label=label,
        family=family,
        model={"genotype": genotype.to_dict(), "channels": channels or run.space.final.channels},
        training="fault-tolerant",
        size="own" if channels is None else "scaled",
        part=part,
        epochs=run.config.finalists.epochs if short else run.config.training.epochs,
        chips=run.config.finalists.chips if short else run.config.campaign.chips,
        rates=(run.config.faults[0].rate,) if short else training_rates(run),
        seed=run.config.seed,
    )


def draw_cells(
    run: RunFolder, count: int, *, taken: set[str], key: str, fits: Callable[[Genotype], bool]
) -> list[Genotype]:
    """Draw up to ``count`` distinct cells that ``fits`` accepts and whose keys are not ``taken``.

    A space with few such cells may give fewer: the search ends after ``ATTEMPTS`` samples.
    """
    rng = keyed_generator("random cells", key, run.config.seed)
    found: list[Genotype] = []
    seen = set(taken)
    for _ in range(ATTEMPTS):
        if len(found) == count:
            break
        genotype = run.space.canonical(run.space.sample(rng))
        if genotype.key not in seen and fits(genotype):
            seen.add(genotype.key)
            found.append(genotype)
    return found
