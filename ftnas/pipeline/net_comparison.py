"""Any nets side by side, trained here or taken as they are, on the same chips of the same test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from ftnas import campaign
from ftnas.campaign import CONFIDENCE, ChipResult, Measurement, Outcomes
from ftnas.campaign.estimates import DROP
from ftnas.campaign.intervals import student_interval
from ftnas.configuration import validate
from ftnas.data import Dataset
from ftnas.errors import ConfigError
from ftnas.files import read_tensors, write_json, write_text
from ftnas.holding import holding
from ftnas.networks import BASELINES
from ftnas.pipeline.cells import training_rates
from ftnas.pipeline.comparison import scale_warnings
from ftnas.pipeline.config import CompareConfig, Recipe
from ftnas.pipeline.entrants import Entrant, entrants_of
from ftnas.pipeline.failures import failure, is_finite
from ftnas.pipeline.jobs import COSTS, Result, build_model, costs, fault_name, load_dataset
from ftnas.pipeline.limits import check_cores, check_training
from ftnas.pipeline.net_tables import nets_csv, nets_markdown
from ftnas.pipeline.progress import progress_bar
from ftnas.pipeline.run_folder import COMPARE_CONFIG, ComparisonFolder, is_workplace, open_workplace, reopen
from ftnas.pipeline.workers import run_jobs
from ftnas.report.net_comparison import write_comparison_report
from ftnas.report.results import Comparison
from ftnas.runtime import choose_device, place, use_threads
from ftnas.untrusted import path_of


@dataclass(frozen=True)
class NetComparison:
    """What a comparison found: plain data, as in ``comparison.json``, and where the page about it is."""

    folder: Path
    comparison: dict[str, Any]
    report: Path


def compare_config(content: Mapping[str, Any], *, source: str) -> CompareConfig:
    """Return the configuration of a comparison; what ``content`` leaves out is as in the first of its nets that says.

    A run folder and a training say on which images and how they were trained and measured. New ``faults`` come with
    their own further rates, and another data set with its own directory.

    Args:
        content: keys of ``CompareConfig``.
        source: what begins the message of an error.

    Raises:
        ConfigError: a key, type or value is wrong, or no net says what was left out; one line each.
    """
    base = _recipe_among(content.get("nets", ()))
    if not base and "data" not in content:
        raise ConfigError(f"{source}: data: this key is required where no net is a run or a training")
    if base and "faults" in content:
        base["campaign"].pop("rates")
    kept = {"training", "campaign"} | ({"data"} if _same_name(content.get("data"), base.get("data")) else set())
    merged = {key: _joined(base.get(key), value, keep=key in kept) for key, value in content.items()}
    return validate(CompareConfig, {**base, **merged}, source=source)


def _recipe_among(nets: Any) -> dict[str, Any]:
    """Return how the first of ``nets`` that is a folder of ours was trained and measured; nothing if none is."""
    texts = [text for text in nets if isinstance(text, str)] if isinstance(nets, Sequence) else []
    for path in [path_of(text) for text in texts if text not in BASELINES]:
        for folder in (path, path.resolve().parent.parent):
            if path.is_dir() and is_workplace(folder):
                recipe = reopen(folder).config
                shared = recipe.model_dump(mode="json", include=set(Recipe.model_fields))
                return {**shared, "campaign": {"chips": recipe.campaign.chips, "rates": list(recipe.campaign.rates)}}
    return {}


def _same_name(given: Any, there: Any) -> bool:
    if not (isinstance(given, Mapping) and isinstance(there, Mapping)):
        return False
    return bool(given.get("name", there["name"]) == there["name"])


def _joined(there: Any, given: Any, *, keep: bool) -> Any:
    """Return the section ``given``, what it leaves out as it is ``there`` if that is to be kept."""
    return {**there, **given} if keep and isinstance(there, Mapping) and isinstance(given, Mapping) else given


def compare_nets(config: CompareConfig, folder: Path) -> NetComparison:
    """Train those of the nets that need it, measure all on the same chips, and write tables and a page.

    The same call goes on where an earlier one was cut off: trainings at their last checkpoint, campaigns at the chip.

    Args:
        config: which nets, which images, which faults.
        folder: for trainings, records, tables and the page.

    Raises:
        FtnasError: what the user gave is wrong; nothing is half-written.
    """
    check_cores(config.threads, config.workers)
    use_threads(config.threads)
    data = load_dataset(config, choose_device(config.device))
    check_training(config, data)
    work = ComparisonFolder(folder, config)
    entrants = entrants_of(work, data)
    with holding(folder, COMPARE_CONFIG):
        open_workplace(folder, config, None)
        return _compare(work, data, entrants)


def _compare(work: ComparisonFolder, data: Dataset, entrants: Sequence[Entrant]) -> NetComparison:
    config = work.config
    use_threads(config.threads)  # reading nets of the user's own changes it
    jobs = [entrant.job for entrant in entrants if entrant.job is not None]
    trained = {result["name"]: result for result in run_jobs(work, jobs, title="trainings", workers=config.workers)}
    rows = [_row(work, data, entrant, trained.get(entrant.name)) for entrant in entrants]
    for row in rows[1:]:
        row["differences"] = differences(row, rows[0])
    content = _content(config, data, rows)
    comparison = Comparison.model_validate(content)
    write_text(work.file("comparison.csv"), nets_csv(comparison))
    write_text(work.file("comparison.md"), nets_markdown(comparison))
    write_json(work.file("comparison.json"), content)
    return NetComparison(work.path, content, write_comparison_report(work.path))


def _row(work: ComparisonFolder, data: Dataset, entrant: Entrant, trained: Result | None) -> Result:
    """Return what is known of a net; ``trained`` is the result of its training here."""
    model = _whole(work, data, entrant)
    clean, chips = _measured(work, data, entrant, model)
    cost = costs(model, data) if trained is None else {key: trained[key] for key in COSTS}
    return {
        **{key: getattr(entrant, key) for key in ("name", "label", "family", "training", "size", "origin")},
        **cost,
        "seed": None if trained is None else trained["seed"],
        "clean": clean,
        "fault": fault_name(work.config.faults),
        "rates": [{"rate": rate, **Measurement.over(accuracies).to_dict()} for rate, accuracies in chips.items()],
        "images": len(data.test_labels),
        "failure": failure(None, clean, data.test_labels) if trained is None else trained["failure"],
    }


def _whole(work: ComparisonFolder, data: Dataset, entrant: Entrant) -> nn.Module:
    """Return the net with its weights, where the data is."""
    if entrant.job is None:
        assert entrant.model is not None
        return entrant.model
    model = build_model(work, entrant.job.model, data, seed=entrant.job.seed)
    model.load_state_dict(read_tensors(work.training(entrant.name) / "weights.safetensors")[0])
    return place(model, data.test_images.device).eval()


def _measured(
    work: ComparisonFolder, data: Dataset, entrant: Entrant, model: nn.Module
) -> tuple[float, dict[float, list[float]]]:
    """Return the accuracy without faults, and at each rate that of each chip.

    A net that diverged in training computes nothing that could be measured, and guesses.
    """
    config, rates = work.config, training_rates(work)
    if not is_finite(model):
        guess = 1 / data.classes
        return guess, {rate: [guess] * config.campaign.chips for rate in rates}
    result = campaign.run(
        model,
        (data.test_images, data.test_labels),
        config.faults,
        rates=rates,
        chips=config.campaign.chips,
        out=work.file("campaigns", entrant.name),
        study=f"campaign whole {config.seed}",  # the chips of a run's own comparison
        workers=config.workers,
        progress=lambda title, steps: progress_bar(f"{entrant.label}: {title}", steps),
    )
    return result.accuracy, {rate: _accuracies(result, index) for index, rate in enumerate(rates)}


def _accuracies(result: ChipResult, index: int) -> list[float]:
    """Return the accuracy of each chip at the rate with this ``index``."""
    outcomes = [Outcomes(**unit["rates"][index]["images"]) for unit in result.units]
    return [(outcome.correct_after or 0) / outcome.images for outcome in outcomes]


def differences(row: Result, first: Result) -> list[dict[str, float]]:
    """Return how much more accurate ``row`` is than ``first`` at each rate: mean over their common chips, interval."""
    found = []
    for ours, theirs in zip(row["rates"], first["rates"], strict=True):
        of_chips = [one - other for one, other in zip(ours["chips"], theirs["chips"], strict=True)]
        interval = student_interval(of_chips, CONFIDENCE, bounds=DROP)
        found.append({"rate": ours["rate"], "mean": fmean(of_chips), "low": interval.low, "high": interval.high})
    return found


def _content(config: CompareConfig, data: Dataset, rows: list[Result]) -> dict[str, Any]:
    failed = [f"{row['label']} {row['failure']}: its accuracy is that of guessing" for row in rows if row["failure"]]
    return {
        "fault": fault_name(config.faults),
        "rate": config.faults[0].rate,
        "chips": config.campaign.chips,
        "confidence": CONFIDENCE,
        "data": data.name,
        "test_images": len(data.test_labels),
        "rows": rows,
        "warnings": [*failed, *scale_warnings(rows, first=rows[0]["label"])],
    }
