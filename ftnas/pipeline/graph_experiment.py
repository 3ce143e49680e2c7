"""Experiments with spiking graphs: evolutions in every combination of some choices, with several seeds."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, model_validator

from ftnas.campaign import CONFIDENCE
from ftnas.campaign.estimates import DROP
from ftnas.campaign.intervals import student_interval
from ftnas.configuration import Name, Section, read_yaml, validate
from ftnas.errors import RunError
from ftnas.files import write_json, write_text
from ftnas.holding import holding, is_new
from ftnas.pipeline.config import Recipe
from ftnas.pipeline.evolution import search_graphs
from ftnas.pipeline.evolution_config import GraphSearchConfig
from ftnas.pipeline.experiment_results import RESULTS
from ftnas.pipeline.experiments import CONFIG, ExperimentSummary, merged, option_name
from ftnas.pipeline.run_folder import describe_environment
from ftnas.report.grid import grid_figure
from ftnas.report.raster import write_png
from ftnas.report.tables import markdown_table

Row = dict[str, Any]


class GraphExperiment(Section):
    """A grid of evolutions.

    ``base``: keys of an evolution (see ``GraphSearchConfig``) that all have. ``axes``: for each choice its options, and
    the keys that each option changes; every combination is evolved once for each of ``seeds``. ``against``: the option
    that others of its choice are compared with, seed by seed.
    """

    name: Name
    description: str = ""
    base: dict[str, Any]
    axes: dict[str, dict[str, dict[str, Any]]] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2, 3, 4), min_length=2)
    against: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = [option for options in self.axes.values() for option in options]
        if self.against is not None and self.against not in known:
            raise ValueError(f"against: unknown option; choose from {', '.join(known)}, got {self.against!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: each once, got {list(self.seeds)}")
        return self

    def combinations(self) -> Iterator[dict[str, str]]:
        """Return every choice of one option for each axis, the last axis changing fastest."""
        for options in itertools.product(*self.axes.values()):
            yield dict(zip(self.axes, options, strict=True))

    def evolution(self, combination: Mapping[str, str], seed: int) -> GraphSearchConfig:
        """Return the evolution of ``combination``.

        Raises:
            ConfigError: the base and the options make no valid evolution; the message names the options.
        """
        keys: Row = {**self.base, "seed": seed, "name": option_name(combination, seed)}
        for axis, option in combination.items():
            keys = merged(keys, self.axes[axis][option])
        return validate(GraphSearchConfig, keys, source=f"{self.name}: {', '.join(combination.values())}")


def is_of_graphs(path: Path) -> bool:
    """Return whether the experiment in ``path`` is one of spiking graphs."""
    base = read_yaml(path).get("base")
    return isinstance(base, dict) and base.get("family") == "snn-graph"


def load_graph_experiment(path: Path) -> GraphExperiment:
    """Load the configuration of an experiment with spiking graphs.

    Raises:
        ConfigError: a key, type or value is wrong, of the experiment or of one of its evolutions.
    """
    config = validate(GraphExperiment, read_yaml(path), source=str(path))
    for combination in config.combinations():
        config.evolution(combination, config.seeds[0])
    return config


def run_graph_experiment(config: GraphExperiment, folder: Path) -> ExperimentSummary:
    """Evolve and measure all that ``config`` says, and write table and figure; the same call goes on after a kill.

    Raises:
        FtnasError: what the user gave is wrong; nothing is half-written.
    """
    with holding(folder, CONFIG):
        return _run(config, folder)


def _run(config: GraphExperiment, folder: Path) -> ExperimentSummary:
    _open(folder, config)
    rows = []
    for combination in config.combinations():
        runs = [(config.evolution(combination, seed), seed) for seed in config.seeds]
        found = [search_graphs(run, folder / "runs" / option_name(combination, seed)) for run, seed in runs]
        rows.append(_row(combination, [_winner(results) for results in found]))
    results = {
        "name": config.name,
        "axes": {axis: list(options) for axis, options in config.axes.items()},
        "seeds": list(config.seeds),
        "confidence": CONFIDENCE,
        "against": config.against,
        "rows": rows,
        "differences": list(_differences(config, rows)),
    }
    write_text(folder / "results.csv", _csv(results))
    write_text(folder / "results.md", _markdown(results))
    figure = grid_figure(results)
    write_text(folder / "figure.svg", figure)
    write_png(figure, folder / "figure.png")
    write_json(folder / RESULTS, results)
    return ExperimentSummary(folder, results)


def _open(folder: Path, config: GraphExperiment) -> None:
    now = config.model_dump(mode="json")
    if (folder / CONFIG).exists():
        there = validate(GraphExperiment, read_yaml(folder / CONFIG), source=str(folder / CONFIG))
        for key, value in there.model_dump(mode="json").items():
            if key != "description" and value != now[key]:
                raise RunError(f"{folder}: is of another experiment ({key} differs); choose another with --out")
        return
    if not is_new(folder):
        raise RunError(f"{folder}: exists and is not an experiment; choose another with --out")
    write_text(folder / CONFIG, yaml.safe_dump(now, sort_keys=False))
    write_json(folder / "environment.json", describe_environment(Recipe(seed=config.seeds[0])))


def _winner(results: Mapping[str, Any]) -> Row:
    return next(net for net in results["nets"] if net["key"] == results["winner"])


def _row(combination: Mapping[str, str], winners: Sequence[Row]) -> Row:
    """Return means over seeds of the winners; the interval of an accuracy is over seeds, each a mean over chips."""
    faults = []
    for place, fault in enumerate(winners[0]["faults"]):
        name, _, strength = fault["fault"].rpartition(":")
        faults.append(
            {"fault": name, "rate": float(strength), **_over_seeds([w["faults"][place]["mean"] for w in winners])}
        )
    return {
        "options": dict(combination),
        "clean": fmean(net["test"] for net in winners),
        "clean_of_seeds": [net["test"] for net in winners],
        **{key: fmean(net[key] for net in winners) for key in ("train", "train_faulty", "synapses", "hidden")},
        "synapses_of_seeds": [net["synapses"] for net in winners],
        "hidden_of_seeds": [net["hidden"] for net in winners],
        "faults": faults,
    }


def _over_seeds(values: Sequence[float], *, bounds: tuple[float, float] = (0.0, 1.0)) -> Row:
    interval = student_interval(values, CONFIDENCE, bounds=bounds)
    return {"mean": fmean(values), "low": interval.low, "high": interval.high, "seeds": list(values)}


def _differences(config: GraphExperiment, rows: Sequence[Row]) -> Iterator[Row]:
    """Yield what each other option gains over ``against``, seed by seed; synapses as a ratio of means."""
    axis = next((axis for axis, options in config.axes.items() if config.against in options), None)
    for row in rows if axis is not None else ():
        if row["options"][axis] == config.against:
            continue
        base = next(other for other in rows if other["options"] == {**row["options"], axis: config.against})
        pairs = [("clean", None, row["clean_of_seeds"], base["clean_of_seeds"])]
        pairs += [
            (o["fault"], o["rate"], o["seeds"], t["seeds"]) for o, t in zip(row["faults"], base["faults"], strict=True)
        ]
        for fault, rate, ours, theirs in pairs:
            gains = [one - other for one, other in zip(ours, theirs, strict=True)]
            yield {"options": row["options"], "fault": fault, "rate": rate, **_over_seeds(gains, bounds=DROP)}


def _csv(results: Row) -> str:
    """Return one line for each combination, fault and strength: means over seeds, interval, and each seed's mean."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    axes, single = list(results["axes"]), ("clean", "train", "synapses", "hidden")
    seeds = [f"seed_{seed}" for seed in results["seeds"]]
    writer.writerow([*axes, *single, "fault", "strength", "accuracy", "low", "high", *seeds])
    for row in results["rows"]:
        first = [*(row["options"][axis] for axis in axes), *(row[key] for key in single)]
        for found in row["faults"]:
            writer.writerow(
                [*first, found["fault"], found["rate"], found["mean"], found["low"], found["high"], *found["seeds"]]
            )
    return text.getvalue()


def _markdown(results: Row) -> str:
    """Return one line for each combination, with a column for each fault and strength."""
    axes = list(results["axes"])
    faults = [f"{fault['fault']} {fault['rate']:g}" for fault in results["rows"][0]["faults"]]
    head = [*axes, "synapses", "hidden", "test", *faults]
    lines = []
    for row in results["rows"]:
        scores = [f"{100 * f['mean']:.1f} ± {50 * (f['high'] - f['low']):.1f}" for f in row["faults"]]
        cost = (f"{row['synapses']:.1f}", f"{row['hidden']:.1f}", f"{100 * row['clean']:.1f}")
        lines.append([*(row["options"][axis] for axis in axes), *cost, *scores])
    words = (
        f"Accuracy of the winners on test samples in %, mean of {len(results['seeds'])} evolutions on the same chips"
    )
    sure = f"{100 * results['confidence']:g} % interval over evolutions"
    return f"{markdown_table(head, lines, words=axes)}\n{words}; {sure}.\n"
