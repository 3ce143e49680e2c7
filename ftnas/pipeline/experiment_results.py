"""What an experiment found, from what each of its trainings measured: plain data and the files about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ftnas.campaign import CONFIDENCE
from ftnas.campaign.estimates import DROP
from ftnas.pipeline.experiment_folder import ExperimentSummary, write_found
from ftnas.pipeline.grids import gains, mean_interval, with_rivals
from ftnas.pipeline.jobs import Result
from ftnas.report.grid import grid_csv, grid_figure, grid_markdown

if TYPE_CHECKING:
    from ftnas.pipeline.experiments import ExperimentConfig


def write_results(config: ExperimentConfig, folder: Path, found: Sequence[Result]) -> ExperimentSummary:
    """Write tables, figure and results of an experiment into ``folder``.

    Args:
        config: of the experiment.
        folder: of the experiment.
        found: what each training measured, combination by combination, the seeds of each side by side.
    """
    results = _results(config, found)
    tables = {"results.csv": grid_csv(results), "results.md": grid_markdown(results)}
    return write_found(folder, results, tables, grid_figure(results))


def _results(config: ExperimentConfig, found: Sequence[Result]) -> dict[str, Any]:
    seeds = len(config.seeds)
    rows = [
        _row(combination, found[index * seeds : (index + 1) * seeds])
        for index, combination in enumerate(config.combinations())
    ]
    return {
        "name": config.name,
        "axes": {axis: list(options) for axis, options in config.axes.items()},
        "seeds": list(config.seeds),
        "chips": config.chips,
        "confidence": CONFIDENCE,
        "against": config.against,
        "rows": rows,
        "differences": list(_differences(config, rows)),
    }


def _row(combination: Mapping[str, str], seeds: Sequence[Result]) -> Result:
    """Return means over seeds; the interval of an accuracy is over seeds, each a mean over the same chips."""
    faults = []
    for index, fault in enumerate(seeds[0]["faults"]):
        means = [fmean(seed["faults"][index]["chips"]) for seed in seeds]
        faults.append({"fault": fault["fault"], "rate": fault["rate"], **mean_interval(means), "seeds": means})
    single = {key: fmean(seed[key] for seed in seeds) for key in ("clean", "zeros", "sharpness")}
    return {
        "options": dict(combination),
        **single,
        "clean_of_seeds": [seed["clean"] for seed in seeds],
        "faults": faults,
    }


def _differences(config: ExperimentConfig, rows: list[Result]) -> Iterator[Result]:
    """Yield what each other option gains over ``against``, seed by seed on the same chips."""
    for row, base in with_rivals(config.axes, config.against, rows):
        for ours, theirs in zip(row["faults"], base["faults"], strict=True):
            gained = mean_interval(gains(ours["seeds"], theirs["seeds"]), bounds=DROP)
            yield {"options": row["options"], "fault": ours["fault"], "rate": ours["rate"], **gained}
