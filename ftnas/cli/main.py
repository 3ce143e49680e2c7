"""``ftnas``: each command parses, calls one function and prints. Torch is imported inside the commands only."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ftnas import __version__
from ftnas.cli import (
    campaigns,
    comparing,
    doctor,
    experimenting,
    exporting,
    hardening,
    listings,
    reporting,
    showing,
    spiking,
    vulnerable,
)
from ftnas.cli.examples import examples_of, exit_codes
from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.output import Json, allow_any_text

# Frames and colours are for eyes: what goes into a pipe or a file, and onto a terminal without controls, is plain text.
PLAIN = not sys.stdout.isatty() or os.environ.get("TERM") == "dumb"
PLAIN_WIDTH = 120  # of help, where no terminal has one


class _Commands(TyperGroup):
    """The commands, each with its examples below its options."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.epilog is None:
            command.epilog = examples_of(cmd_name, plain=PLAIN)
        return command


app = typer.Typer(
    name="ftnas",
    cls=_Commands,
    help="Find quantised networks that keep their accuracy under hardware faults.",
    epilog=exit_codes(plain=PLAIN),
    rich_markup_mode=None if PLAIN else "rich",
    context_settings={"terminal_width": PLAIN_WIDTH} if PLAIN else None,
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
    allow_any_text()


@app.command()
def search(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The run folder; by default runs/ and the experiment's name."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="CIFAR-10's folder or archive, an .npz file, or a folder of images by class."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as search.trials=50. Repeatable."),
    ] = None,
    controller: Annotated[
        str | None,
        typer.Option("--controller", help="optuna or nni-evolution; the same as --set search.controller=..."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search, train the winner, measure it under faults and compare it. The same command resumes a run."""
    with one_line_errors():
        from ftnas.cli.printing import print_found
        from ftnas.pipeline.families import search_file

        changes = [*(assignments or []), *([f"search.controller={controller}"] if controller else [])]
        found = search_file(config, run=run, assignments=changes, data_directory=data_dir)
        print_found(found, as_json=as_json)


for command in (
    comparing.train,
    comparing.compare,
    experimenting.experiment,
    campaigns.campaign,
    campaigns.sites,
    vulnerable.vulnerability,
    exporting.export,
    spiking.spikes,
    hardening.harden,
    reporting.report,
    showing.show,
    listings.spaces,
    listings.primitives,
    listings.faults,
    listings.baselines,
    doctor.doctor,
):
    app.command()(command)
