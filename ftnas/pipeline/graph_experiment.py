"""Experiments with spiking graphs: evolutions in every combination of some choices, with several seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ftnas.campaign import CONFIDENCE
from ftnas.campaign.estimates import DROP
from ftnas.configuration import Name, Section, read_yaml, validate
from ftnas.holding import holding
from ftnas.pipeline.config import Recipe
from ftnas.pipeline.evolution import search_graphs
from ftnas.pipeline.evolution_config import GraphSearchConfig
from ftnas.pipeline.experiment_folder import CONFIG, ExperimentSummary, open_folder, write_found
from ftnas.pipeline.grids import (
    check_grid,
    chosen_keys,
    combinations_of,
    gains,
    mean_interval,
    option_name,
    with_rivals,
)
from ftnas.report import wording
from ftnas.report.grid import grid_csv, grid_figure
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
        check_grid(self.axes, self.seeds, self.against)
        return self

    def combinations(self) -> Iterator[dict[str, str]]:
        """Return every choice of one option for each axis, the last axis changing fastest."""
        return combinations_of(self.axes)

    def evolution(self, combination: Mapping[str, str], seed: int) -> GraphSearchConfig:
        """Return the evolution of ``combination``.

        Raises:
            ConfigError: the base and the options make no valid evolution; the message names the options.
        """
        first = {**self.base, "seed": seed, "name": option_name(combination, seed)}
        keys = chosen_keys(first, self.axes, combination)
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
    open_folder(folder, config, Recipe(seed=config.seeds[0]))
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
    table = grid_csv(results, single=("clean", "train", "synapses", "hidden"), rate="strength")
    return write_found(folder, results, {"results.csv": table, "results.md": _markdown(results)}, grid_figure(results))


def _winner(results: Mapping[str, Any]) -> Row:
    return next(net for net in results["nets"] if net["key"] == results["winner"])


def _row(combination: Mapping[str, str], winners: Sequence[Row]) -> Row:
    """Return means over seeds of the winners; the interval of an accuracy is over seeds, each a mean over chips."""
    faults = []
    for place, fault in enumerate(winners[0]["faults"]):
        name, _, strength = fault["fault"].rpartition(":")
        means = [net["faults"][place]["mean"] for net in winners]
        faults.append({"fault": name, "rate": float(strength), **mean_interval(means), "seeds": means})
    return {
        "options": dict(combination),
        "clean": fmean(net["test"] for net in winners),
        "clean_of_seeds": [net["test"] for net in winners],
        **{key: fmean(net[key] for net in winners) for key in ("train", "train_faulty", "synapses", "hidden")},
        "synapses_of_seeds": [net["synapses"] for net in winners],
        "hidden_of_seeds": [net["hidden"] for net in winners],
        "faults": faults,
    }


def _differences(config: GraphExperiment, rows: Sequence[Row]) -> Iterator[Row]:
    """Yield what each other option gains over ``against``, seed by seed; synapses as a ratio of means."""
    for row, base in with_rivals(config.axes, config.against, rows):
        pairs = [("clean", None, row["clean_of_seeds"], base["clean_of_seeds"])]
        pairs += [
            (o["fault"], o["rate"], o["seeds"], t["seeds"]) for o, t in zip(row["faults"], base["faults"], strict=True)
        ]
        for fault, rate, ours, theirs in pairs:
            gained = gains(ours, theirs)
            own = {"options": row["options"], "fault": fault, "rate": rate}
            yield {**own, **mean_interval(gained, bounds=DROP), "seeds": gained}


def _markdown(results: Row) -> str:
    """Return one line for each combination, with a column for each fault and strength."""
    axes = list(results["axes"])
    faults = [f"{fault['fault']} {fault['rate']:g}" for fault in results["rows"][0]["faults"]]
    head = [*axes, "synapses", "hidden", "test", *faults]
    lines = []
    for row in results["rows"]:
        scores = [wording.plus_minus(fault["mean"], fault["low"], fault["high"]) for fault in row["faults"]]
        cost = (f"{row['synapses']:.1f}", f"{row['hidden']:.1f}", f"{100 * row['clean']:.1f}")
        lines.append([*(row["options"][axis] for axis in axes), *cost, *scores])
    words = (
        f"Accuracy of the winners on test samples in %, mean of {len(results['seeds'])} evolutions on the same chips"
    )
    sure = f"{100 * results['confidence']:g} % interval over evolutions"
    return f"{markdown_table(head, lines, words=axes)}\n{words}; {sure}.\n"
