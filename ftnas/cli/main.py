"""``ftnas``: each command parses, calls one function and prints. Torch is imported inside the commands only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ftnas import __version__
from ftnas.cli import campaigns
from ftnas.cli.mistakes import one_line_errors

app = typer.Typer(
    name="ftnas",
    help="Find quantised networks that keep their accuracy under hardware faults.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find quantised networks that keep their accuracy under hardware faults."""


@app.command()
def search(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    run: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option("--run", help="The run folder; by default runs/ and the experiment's name."),
    ] = None,
    data_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--data-dir", help="CIFAR-10's folder or archive, or an .npz file."),
    ] = None,
    assignments: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as search.trials=50. Repeatable."),
    ] = None,
    controller: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--controller", help="optuna or nni-evolution; the same as --set search.controller=..."),
    ] = None,
) -> None:
    """Search, train the winner, measure it under faults and compare it. The same command resumes a run."""
    with one_line_errors():
        from ftnas.cli.printing import print_summary
        from ftnas.pipeline.config import load_config
        from ftnas.pipeline.run import search as run_search

        changes = [*(assignments or []), *([f"search.controller={controller}"] if controller else [])]
        settings = load_config(config, assignments=changes, data_directory=data_dir)
        print_summary(run_search(settings, run or Path("runs") / settings.name))


@app.command()
def compare(
    run: Annotated[Path, typer.Argument(help="The folder of a finished search.")],
    baselines: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Baselines to train and measure; by default those of the run's configuration."),
    ] = None,
    size: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--size", help="own, scaled (to the winner's FLOPs), or both by repeating."),
    ] = None,
    training: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--training", help="fault-tolerant, plain, or both by repeating."),
    ] = None,
) -> None:
    """Train other networks under the winner's budget, attack all with the same faults, write one table."""
    with one_line_errors():
        from ftnas.cli.printing import print_comparison
        from ftnas.configuration import validate
        from ftnas.pipeline.config import ComparisonSettings
        from ftnas.pipeline.run import compare_run
        from ftnas.pipeline.run_folder import reopen_run

        given = {"baselines": baselines, "sizes": size, "trainings": training}
        content = reopen_run(run).config.comparison.model_dump() | {k: v for k, v in given.items() if v}
        print_comparison(compare_run(run, validate(ComparisonSettings, content, source="ftnas compare")))


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run folder, finished or not.")]) -> None:
    """Write report.html from what a run folder holds."""
    with one_line_errors():
        from ftnas.report.page import write_report

        typer.echo(write_report(run))


@app.command()
def spaces() -> None:
    """List the search spaces that come with ftnas."""
    with one_line_errors():
        from ftnas.cli.printing import print_spaces

        print_spaces()


app.command()(campaigns.campaign)
app.command()(campaigns.sites)
