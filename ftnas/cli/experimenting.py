"""``ftnas experiment``. Torch is imported inside the command only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.output import Json, console, print_json, print_table, right, table

if TYPE_CHECKING:
    from ftnas.pipeline.experiments import ExperimentSummary

Config = Annotated[Path, Argument(help="The experiment, a YAML file with base, axes, seeds and faults.")]
Out = Annotated[
    Path | None, Option("--out", help="The folder for the results; by default runs/ and the experiment's name.")
]
DataDirectory = Annotated[
    Path | None,
    Option("--data-dir", help="CIFAR-10's folder or archive, an .npz file, or a folder of images by class."),
]
Workers = Annotated[int | None, Option("--workers", help="Processes; otherwise as the experiment says.")]


def experiment(
    config: Config, out: Out = None, data_dir: DataDirectory = None, workers: Workers = None, as_json: Json = False
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
            return print_graph_experiment(found, as_json=as_json)
        if is_of_hardening(config):
            if workers is not None:
                raise ConfigError("--workers: would change nothing for hardening; leave it out")
            hardening = load_hardening_experiment(config, data_directory=data_dir)
            protected = run_hardening_experiment(hardening, out or Path("runs") / hardening.name)
            return print_hardening_experiment(protected, as_json=as_json)
        settings = load_experiment(config, workers=workers, data_directory=data_dir)
        print_experiment(run_experiment(settings, out or Path("runs") / settings.name), as_json=as_json)


def print_experiment(summary: ExperimentSummary, *, as_json: bool) -> None:
    """Print the table of an experiment, or its results as JSON."""
    results = summary.results
    if as_json:
        print_json(results)
        return
    axes = list(results["axes"])
    faults = [f"{fault['fault']} {fault['rate']:g}" for fault in results["rows"][0]["faults"]]
    shown = table(*axes, right("clean %"), right("zeros %"), right("sharpness"), *map(right, faults))
    for row in results["rows"]:
        single = [f"{100 * row['clean']:.1f}", f"{100 * row['zeros']:.0f}", f"{row['sharpness']:.2f}"]
        means = [f"{100 * fault['mean']:.1f}" for fault in row["faults"]]
        shown.add_row(*(row["options"][axis] for axis in axes), *single, *means)
    seeds, chips = len(results["seeds"]), results["chips"]
    output = console()
    print_table(output, shown, title=f"{results['name']}: mean of {seeds} trainings on the same {chips} chips")
    output.print(f"table and figure: {summary.folder}", soft_wrap=True)


def print_graph_experiment(summary: ExperimentSummary, *, as_json: bool) -> None:
    """Print the table of an experiment with spiking graphs, or its results as JSON."""
    results = summary.results
    if as_json:
        return print_json(results)
    axes = list(results["axes"])
    faults = [f"{fault['fault']} {fault['rate']:g}" for fault in results["rows"][0]["faults"]]
    shown = table(*axes, *map(right, ("synapses", "hidden", "test %", *faults)))
    for row in results["rows"]:
        cost = f"{row['synapses']:.1f}", f"{row['hidden']:.1f}", f"{100 * row['clean']:.1f}"
        means = [f"{100 * fault['mean']:.1f}" for fault in row["faults"]]
        shown.add_row(*(row["options"][axis] for axis in axes), *cost, *means)
    output = console()
    print_table(output, shown, title=f"{results['name']}: mean of {len(results['seeds'])} evolutions, test samples")
    output.print(f"table and figure: {summary.folder}", soft_wrap=True)


def print_hardening_experiment(summary: ExperimentSummary, *, as_json: bool) -> None:
    """Print the table of an experiment with hardening, or its results as JSON."""
    results = summary.results
    if as_json:
        return print_json(results)
    faults = [f"{fault['fault']} {fault['rate']:g}" for fault in results["rows"][0]["faults"]]
    shown = table("net", "protection", *map(right, ("budget", "extra work %", "clean %", *faults)))
    for row in results["rows"]:
        cost = f"{100 * row['overhead']['work']:.1f}", f"{100 * row['clean']:.1f}"
        shown.add_row(row["net"], row["way"], row["budget"], *cost, *(_with_ends(fault) for fault in row["faults"]))
    output = console()
    title = (
        f"{results['name']}: mean of {len(results['seeds'])} trainings, interval over the same {results['chips']} chips"
    )
    print_table(output, shown, title=title)
    output.print(f"table and figure: {summary.folder}", soft_wrap=True)


def _with_ends(fault: dict[str, float]) -> str:
    return f"{100 * fault['mean']:.1f} ({100 * fault['low']:.1f} to {100 * fault['high']:.1f})"
