"""What an experiment found, from what each of its trainings measured: plain data and the files about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ftnas.campaign import CONFIDENCE
from ftnas.campaign.estimates import DROP
from ftnas.campaign.intervals import student_interval
from ftnas.files import write_json, write_text
from ftnas.pipeline.jobs import Result
from ftnas.report.grid import grid_csv, grid_figure, grid_markdown
from ftnas.report.raster import write_png

if TYPE_CHECKING:
    from ftnas.pipeline.experiments import ExperimentConfig

RESULTS = "results.json"


def write_results(config: ExperimentConfig, folder: Path, found: Sequence[Result]) -> dict[str, Any]:
    """Write tables, figure and results of an experiment into ``folder`` and return what ``results.json`` holds.

    Args:
        config: of the experiment.
        folder: of the experiment.
        found: what each training measured, combination by combination, the seeds of each side by side.
    """
    results = _results(config, found)
    write_text(folder / "results.csv", grid_csv(results))
    write_text(folder / "results.md", grid_markdown(results))
    figure = grid_figure(results)
    write_text(folder / "figure.svg", figure)
    write_png(figure, folder / "figure.png")
    write_json(folder / RESULTS, results)
    return results


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
        interval = student_interval(means, CONFIDENCE)
        faults.append(
            {"fault": fault["fault"], "rate": fault["rate"], "mean": fmean(means), "low": interval.low,
             "high": interval.high, "seeds": means}
        )  # fmt: skip
    single = {key: fmean(seed[key] for seed in seeds) for key in ("clean", "zeros", "sharpness")}
    return {
        "options": dict(combination),
        **single,
        "clean_of_seeds": [seed["clean"] for seed in seeds],
        "faults": faults,
    }


def _differences(config: ExperimentConfig, rows: list[Result]) -> Iterator[Result]:
    """Yield what each other option gains over ``against``, seed by seed on the same chips."""
    axis = next((axis for axis, options in config.axes.items() if config.against in options), None)
    for row in rows if axis is not None else ():
        if row["options"][axis] == config.against:
            continue
        base = next(other for other in rows if other["options"] == {**row["options"], axis: config.against})
        for ours, theirs in zip(row["faults"], base["faults"], strict=True):
            gains = [one - other for one, other in zip(ours["seeds"], theirs["seeds"], strict=True)]
            interval = student_interval(gains, CONFIDENCE, bounds=DROP)
            yield {
                "options": row["options"], "fault": ours["fault"], "rate": ours["rate"],
                "mean": fmean(gains), "low": interval.low, "high": interval.high,
            }  # fmt: skip
