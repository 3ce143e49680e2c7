"""``ftnas experiment``. Torch is imported inside the command only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
from typer import Argument, Option

from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.options import ExperimentFolder, TrainingDataDirectory, refuse
from ftnas.cli.output import Json, console, print_json, print_table, right, table

if TYPE_CHECKING:
    from ftnas.pipeline.experiment_folder import ExperimentSummary

Config = Annotated[Path, Argument(help="The experiment, a YAML file with base, axes, seeds and faults.")]
Workers = Annotated[int | None, Option("--workers", help="Processes; otherwise as the experiment says.")]


def experiment(
    config: Config,
    out: ExperimentFolder = None,
    data_dir: TrainingDataDirectory = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Train a net in every combination of some choices, with several seeds; write one table and one figure."""
    with one_line_errors():
        from ftnas.errors import ConfigError
        from ftnas.pipeline.experiments import load_experiment, run_experiment
        from ftnas.pipeline.graph_experiment import is_of_graphs, load_graph_experiment, run_graph_experiment
        from ftnas.pipeline.hardening_experiment import (
            is_of_hardening,
            load_hardening_experiment,
            run_hardening_experiment,
        )

        if is_of_graphs(config):
            if data_dir is not None or workers is not None:
                raise ConfigError("--data-dir, --workers: would change nothing for spiking graphs; leave them out")
            graphs = load_graph_experiment(config)
            found = run_graph_experiment(graphs, out or Path("runs") / graphs.name)
            return _print(found, _graphs, as_json=as_json)
        if is_of_hardening(config):
            refuse(ConfigError, "would change nothing for hardening; leave it out", workers=workers)
            hardening = load_hardening_experiment(config, data_directory=data_dir)
            protected = run_hardening_experiment(hardening, out or Path("runs") / hardening.name)
            return _print(protected, _hardened, as_json=as_json)
        settings = load_experiment(config, workers=workers, data_directory=data_dir)
        print_experiment(run_experiment(settings, out or Path("runs") / settings.name), as_json=as_json)


def print_experiment(summary: ExperimentSummary, *, as_json: bool) -> None:
    """Print the table of an experiment, or its results as JSON."""
    _print(summary, _trainings, as_json=as_json)


def _print(
    summary: ExperimentSummary, tabulated: Callable[[dict[str, Any], list[str]], tuple[Table, str]], *, as_json: bool
) -> None:
    """Print results as JSON, or the table and title that ``tabulated`` makes of them and of the faults as headings."""
    results = summary.results
    if as_json:
        return print_json(results)
    shown, title = tabulated(results, [f"{fault['fault']} {fault['rate']:g}" for fault in results["rows"][0]["faults"]])
    output = console()
    print_table(output, shown, f"{results['name']}: {title}")
    output.print(f"table and figure: {summary.folder}", soft_wrap=True)


def _trainings(results: dict[str, Any], faults: list[str]) -> tuple[Table, str]:
    axes = list(results["axes"])
    shown = table(*axes, *map(right, ("clean %", "zeros %", "sharpness", *faults)))
    for row in results["rows"]:
        single = f"{100 * row['clean']:.1f}", f"{100 * row['zeros']:.0f}", f"{row['sharpness']:.2f}"
        shown.add_row(*(row["options"][axis] for axis in axes), *single, *_means(row))
    return shown, f"mean of {len(results['seeds'])} trainings on the same {results['chips']} chips"


def _graphs(results: dict[str, Any], faults: list[str]) -> tuple[Table, str]:
    axes = list(results["axes"])
    shown = table(*axes, *map(right, ("synapses", "hidden", "test %", *faults)))
    for row in results["rows"]:
        cost = f"{row['synapses']:.1f}", f"{row['hidden']:.1f}", f"{100 * row['clean']:.1f}"
        shown.add_row(*(row["options"][axis] for axis in axes), *cost, *_means(row))
    return shown, f"mean of {len(results['seeds'])} evolutions, test samples"


def _hardened(results: dict[str, Any], faults: list[str]) -> tuple[Table, str]:
    shown = table("net", "protection", *map(right, ("budget", "extra work %", "clean %", *faults)))
    for row in results["rows"]:
        cost = f"{100 * row['overhead']['work']:.1f}", f"{100 * row['clean']:.1f}"
        shown.add_row(row["net"], row["way"], row["budget"], *cost, *(_with_ends(fault) for fault in row["faults"]))
    seeds, chips = len(results["seeds"]), results["chips"]
    return shown, f"mean of {seeds} trainings, interval over the same {chips} chips"


def _means(row: dict[str, Any]) -> list[str]:
    return [f"{100 * fault['mean']:.1f}" for fault in row["faults"]]


def _with_ends(fault: dict[str, float]) -> str:
    return f"{100 * fault['mean']:.1f} ({100 * fault['low']:.1f} to {100 * fault['high']:.1f})"
