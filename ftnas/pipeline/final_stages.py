"""The second half of a run: short trainings choose the winner, full ones make it and what it is compared with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ftnas.campaign import CONFIDENCE
from ftnas.cost import genotype_cost, measure
from ftnas.data import Dataset
from ftnas.errors import ConfigError
from ftnas.files import read_json, write_json, write_text
from ftnas.networks import build_baseline
from ftnas.pipeline.config import ComparisonSettings, SizeKind, TrainingKind
from ftnas.pipeline.jobs import Result, TrainingJob, fault_name, run_jobs
from ftnas.pipeline.run_folder import RunFolder
from ftnas.pipeline.search_stages import final_cost
from ftnas.quantization import Quantization
from ftnas.report.drawing import genotype_svg
from ftnas.report.tables import comparison_csv, comparison_markdown
from ftnas.runtime import keyed_generator
from ftnas.search.rank_correlation import kendall, mean_difference
from ftnas.space import Genotype, hand_made

MATCHING_ATTEMPTS = 20_000

# What is correlated: (before, after a training of its own).
TAUS = {
    "tau_clean": ("supernet_clean", "final_clean"),
    "tau_faulty": ("supernet_faulty", "final_faulty"),
    "tau_flops": ("flops", "final_faulty"),
    "tau_parameters": ("parameters", "final_faulty"),
}


def training_rates(run: RunFolder) -> tuple[float, ...]:
    """Return the training's own rate and then the campaign's others."""
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


def choose_winner(run: RunFolder, data: Dataset) -> Genotype:
    """Train the best leaders and some random cells shortly; the best leader on validation images is the winner."""
    rows = read_json(run.file("study", "leaders.json"))[: run.config.finalists.top]
    tops = [Genotype.from_dict(row["genotype"]) for row in rows]
    randoms = _random_cells(run, data, run.config.finalists.random, taken={g.key for g in tops})
    jobs = [
        *(cell_job(run, f"top{i}-{g.key}", f"leader {i}", g, family="finalist", part="split")
          for i, g in enumerate(tops, start=1)),
        *(cell_job(run, f"random{i}-{g.key}", f"random {i}", g, family="random", part="split")
          for i, g in enumerate(randoms, start=1)),
    ]  # fmt: skip
    results = run_jobs(run, jobs, title="finalists")
    best = max(range(len(tops)), key=lambda index: _objective(run, results[index]))
    return tops[best]


def _objective(run: RunFolder, result: Result) -> float:
    settings, faulty = run.config.search, float(result["rates"][0]["mean"])
    if settings.objective == "faulty":
        return faulty
    return (1 - settings.faulty_share) * float(result["clean"]) + settings.faulty_share * faulty


def _random_cells(run: RunFolder, data: Dataset, count: int, *, taken: set[str]) -> list[Genotype]:
    """Return ``count`` distinct random cells within the limits, not among ``taken``."""
    limits = run.config.search.limits
    return _draw_cells(
        run, count, taken=taken, key="finalists", fits=lambda g: not limits.violated_by(final_cost(run, data, g))
    )


def _draw_cells(
    run: RunFolder, count: int, *, taken: set[str], key: str, fits: Callable[[Genotype], bool]
) -> list[Genotype]:
    rng = keyed_generator("random cells", key, run.config.seed)
    found: list[Genotype] = []
    seen = set(taken)
    for _ in range(MATCHING_ATTEMPTS):
        if len(found) == count:
            break
        genotype = run.space.canonical(run.space.sample(rng))
        if genotype.key not in seen and fits(genotype):
            seen.add(genotype.key)
            found.append(genotype)
    return found


def rank(run: RunFolder, scorer: Any) -> dict[str, Any]:
    """Compare supernet scores with short trainings: Kendall's tau with intervals, and the gain over random cells."""
    file = run.file("ranking.json")
    if file.exists():
        return dict(read_json(file))
    results = [read_json(path) for path in sorted(run.file("trainings").glob("*/result.json"))]
    short = [r for r in results if r["family"] in ("finalist", "random") and not r["name"].startswith("matched")]
    points = [_ranked_net(run, scorer, result) for result in short]

    def tau(score: str, truth: str) -> dict[str, Any]:
        return kendall([p[score] for p in points], [p[truth] for p in points], seed=run.config.seed).to_dict()

    def faulty(family: str) -> list[float]:
        return [r["rates"][0]["mean"] for r in short if r["family"] == family]

    ranking: dict[str, Any] = {"n": len(points), "points": points}
    if len(points) > 2:
        taus = {name: tau(*pair) for name, pair in TAUS.items()}
        # Where one side is all equal there is no correlation to report.
        ranking |= {name: estimate for name, estimate in taus.items() if estimate["value"] is not None}
    if faulty("random"):
        gain = mean_difference(faulty("finalist"), faulty("random"), seed=run.config.seed)
        ranking["gain_over_random"] = gain.to_dict()
    write_json(file, ranking)
    return ranking


def _ranked_net(run: RunFolder, scorer: Any, result: Result) -> dict[str, Any]:
    model = read_json(run.file("trainings", result["name"], "model.json"))["model"]
    score = scorer(Genotype.from_dict(model["genotype"]))
    return {
        "key": result["key"],
        "family": result["family"],
        "supernet_clean": score.clean,
        "supernet_faulty": score.faulty,
        "final_clean": result["clean"],
        "final_faulty": result["rates"][0]["mean"],
        "flops": result["flops"],
        "parameters": result["parameters"],
    }


def compare(run: RunFolder, data: Dataset, winner: Genotype, settings: ComparisonSettings) -> dict[str, Any]:
    """Train the winner and what it is compared with, measure all on the same chips and write one table."""
    flops = final_cost(run, data, winner).flops
    jobs = [
        cell_job(run, f"winner-{winner.key}", "ftnas (found)", winner, family="winner", part="whole"),
        *_baseline_jobs(run, data, settings, flops),
        *_hand_made_jobs(run, data, settings, flops),
        *_matched_random_jobs(run, data, settings, winner, flops),
    ]
    rows = run_jobs(run, jobs, title="winner and comparison")
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
        _baseline_job(run, name, widths[name, size], numbers=numbers, size=size, training=training)
        for name in settings.baselines
        for size in settings.sizes
        for numbers in settings.numbers
        for training in settings.trainings
    ]


def _baseline_job(
    run: RunFolder, name: str, width: float, *, numbers: Quantization, size: SizeKind, training: TrainingKind
) -> TrainingJob:
    kind = "ftt" if training == "fault-tolerant" else "plain"
    return TrainingJob(
        name=f"{name}-{size}-{kind}{_suffix(numbers)}",
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
    """Return the width multiplier (in 64ths) at which the baseline ``name`` comes nearest to ``flops``.

    Raises:
        ConfigError: even its narrowest form has more than twice the FLOPs.
    """

    @cache
    def cost(step: int) -> int:
        model = build_baseline(name, width=step / 64, image_shape=data.image_shape, classes=data.classes)
        return measure(model, data.image_shape).flops

    low, high = 1, 64
    if cost(low) > 2 * flops:
        raise ConfigError(
            f"comparison.baselines: {name} cannot be scaled to {flops} FLOPs; its narrowest form has {cost(low)}"
        )
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
    cells = _draw_cells(
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


def comparison_warnings(run: RunFolder, rows: Sequence[Result]) -> list[str]:
    """Return what a reader of the table must know."""
    found = sum(row["family"] == "random" for row in rows)
    wanted = run.config.comparison.random_cells
    if found < wanted:
        return [
            f"only {found} of {wanted} random cells with the winner's FLOPs were found in {MATCHING_ATTEMPTS} draws"
        ]
    return []
