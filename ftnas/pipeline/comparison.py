"""The winner trained in full, and beside it what people would otherwise use, all on the same chips."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ftnas.campaign import CONFIDENCE
from ftnas.cost import genotype_cost, measure
from ftnas.data import Dataset
from ftnas.files import read_json, write_json, write_text
from ftnas.networks import build_baseline
from ftnas.pipeline.cells import ATTEMPTS, cell_job, draw_cells, training_rates
from ftnas.pipeline.config import ComparisonSettings, SizeKind, TrainingKind
from ftnas.pipeline.jobs import Result, TrainingJob, fault_name
from ftnas.pipeline.run_folder import RunFolder, Workplace
from ftnas.pipeline.search_stages import final_cost
from ftnas.pipeline.workers import run_jobs
from ftnas.quantization import Quantization
from ftnas.report.drawing import genotype_svg
from ftnas.report.tables import comparison_csv, comparison_markdown
from ftnas.space import Genotype, hand_made

# A scaled baseline with more than this many times the winner's FLOPs is reported.
TOO_LARGE = 1.25
SHORT: Mapping[TrainingKind, str] = {"fault-tolerant": "ftt", "plain": "plain"}  # in the names of folders


def compare(run: RunFolder, data: Dataset, winner: Genotype, settings: ComparisonSettings) -> dict[str, Any]:
    """Train the winner and what it is compared with, measure all on the same chips and write one table.

    What an earlier comparison of the same winner measured stays in the table.
    """
    jobs = comparison_jobs(run, data, winner, settings)
    results = run_jobs(run, jobs, title="winner and comparison", workers=run.config.workers)
    rows = _joined(run, results)
    _write_winner(run, winner, rows[0])
    content = {
        "fault": fault_name(run.config.faults),
        "rate": run.config.faults[0].rate,
        "chips": run.config.campaign.chips,
        "confidence": CONFIDENCE,
        "rows": rows,
    }
    write_text(run.file("comparison.csv"), comparison_csv(rows))
    write_text(run.file("comparison.md"), comparison_markdown(rows, rate=run.config.faults[0].rate))
    write_json(run.file("comparison.json"), content)
    return content


def comparison_jobs(run: RunFolder, data: Dataset, winner: Genotype, settings: ComparisonSettings) -> list[TrainingJob]:
    """Return the full trainings of ``winner``, which is the first, and of all that it is compared with."""
    flops = final_cost(run, data, winner).flops
    return [
        cell_job(run, f"winner-{winner.key}", "ftnas (found)", winner, family="winner", part="whole"),
        *_baseline_jobs(run, data, settings, flops),
        *_hand_made_jobs(run, data, settings, flops),
        *_matched_random_jobs(run, data, settings, winner, flops),
    ]


def _joined(run: RunFolder, rows: list[Result]) -> list[Result]:
    """Return the rows of the table that is there, and after them those of ``rows`` that are new."""
    file = run.file("comparison.json")
    earlier = list(read_json(file)["rows"]) if file.exists() else []
    known = {row["name"] for row in earlier}
    return earlier + [row for row in rows if row["name"] not in known]


def _write_winner(run: RunFolder, winner: Genotype, result: Result) -> None:
    write_text(run.file("winner", "genotype.svg"), genotype_svg(winner, title=run.config.name))
    write_json(run.file("winner", "genotype.json"), winner.to_dict())
    write_json(run.file("winner", "result.json"), result)


def _baseline_jobs(run: RunFolder, data: Dataset, settings: ComparisonSettings, flops: int) -> list[TrainingJob]:
    widths = {
        (name, size): 1.0 if size == "own" else width_for(name, flops, data)
        for name in settings.baselines
        for size in settings.sizes
    }
    return [
        baseline_job(run, name, widths[name, size], numbers=numbers, size=size, training=training)
        for name in settings.baselines
        for size in settings.sizes
        for numbers in settings.numbers
        for training in settings.trainings
    ]


def baseline_job(
    run: Workplace, name: str, width: float, *, numbers: Quantization, size: SizeKind, training: TrainingKind
) -> TrainingJob:
    """Return the full training of the baseline ``name`` at ``width`` times its own channels."""
    return TrainingJob(
        name=f"{name}-{size}-{SHORT[training]}{_suffix(numbers)}",
        label=f"{name}{'' if size == 'own' else f' x {width:.3g}'}{_remark(numbers)}",
        family="baseline",
        model={"baseline": name, "width": width, "numbers": numbers.to_dict()},
        training=training,
        size=size,
        part="whole",
        epochs=run.config.training.epochs,
        chips=run.config.campaign.chips,
        rates=training_rates(run),
        seed=run.config.seed,
    )


def _suffix(numbers: Quantization) -> str:
    """Return what sets the folder of a net with these ``numbers`` apart; the published ones need nothing."""
    return "" if numbers == Quantization() else "-" + re.sub(r"[^a-z0-9.]+", "-", str(numbers)).strip("-")


def _remark(numbers: Quantization) -> str:
    return "" if numbers == Quantization() else f" ({numbers})"


def width_for(name: str, flops: int, data: Dataset) -> float:
    """Return the width multiplier (in 64ths) at which the baseline ``name`` comes nearest to ``flops``."""

    @cache
    def cost(step: int) -> int:
        model = build_baseline(name, width=step / 64, image_shape=data.image_shape, classes=data.classes)
        return measure(model, data.image_shape).flops

    low, high = 1, 64
    while cost(high) < flops:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= flops else (low, middle)
    return min((low, high), key=lambda step: abs(cost(step) - flops)) / 64


def _hand_made_jobs(run: RunFolder, data: Dataset, settings: ComparisonSettings, flops: int) -> list[TrainingJob]:
    """Return hand-made cells with as many channels as bring them nearest to the winner's FLOPs."""
    jobs = []
    for style in settings.hand_made:
        drawn = run.space.canonical(hand_made(run.space, style))
        channels = min(range(2, 129), key=lambda c, g=drawn: abs(_scaled_flops(run, data, g, c) - flops))  # type: ignore[misc]
        for numbers in settings.numbers:
            name, label = f"hand-{style}{_suffix(numbers)}", f"hand-made {style}{_remark(numbers)}"
            genotype = run.space.canonical(drawn.with_numbers(numbers))
            jobs.append(cell_job(run, name, label, genotype, family="hand", part="whole", channels=channels))
    return jobs


def _scaled_flops(run: RunFolder, data: Dataset, genotype: Genotype, channels: int) -> int:
    sizes = run.space.final.model_copy(update={"channels": channels})
    return genotype_cost(genotype, run.space, sizes, image_shape=data.image_shape, classes=data.classes).flops


def _matched_random_jobs(
    run: RunFolder, data: Dataset, settings: ComparisonSettings, winner: Genotype, flops: int
) -> list[TrainingJob]:
    """Return random cells of the space whose FLOPs are the winner's to within the tolerance."""
    cells = draw_cells(
        run,
        settings.random_cells,
        taken={winner.key},
        key="matched",
        fits=lambda g: abs(final_cost(run, data, g).flops / flops - 1) <= settings.flops_tolerance,
    )
    return [
        cell_job(run, f"matched{i}-{g.key}", f"random cell {i}", g, family="random", part="whole")
        for i, g in enumerate(cells, start=1)
    ]


def comparison_warnings(settings: ComparisonSettings, rows: Sequence[Result]) -> list[str]:
    """Return what a reader of the table must know: too few random cells, baselines that could not be made small."""
    warnings = []
    found, wanted = sum(row["family"] == "random" for row in rows), settings.random_cells
    if found < wanted:
        warnings.append(f"only {found} of {wanted} random cells with the winner's FLOPs were found in {ATTEMPTS} draws")
    return warnings + scale_warnings(rows, first="the winner")


def scale_warnings(rows: Sequence[Result], *, first: str) -> list[str]:
    """Return a warning for each scaled baseline that could not be made as small as the first net, called ``first``."""
    small = rows[0]["flops"]
    return [
        f"{row['label']} has {row['flops'] / small:.1f} times {first}'s FLOPs: it cannot be scaled any nearer"
        for row in rows
        if row["family"] == "baseline" and row["size"] == "scaled" and row["flops"] > TOO_LARGE * small
    ]
