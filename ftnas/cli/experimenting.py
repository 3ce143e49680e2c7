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
        from ftnas.pipeline.experiments import load_experiment, run_experiment

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
