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
    dashboard,
    doctor,
    experimenting,
    exporting,
    fault_maps,
    hardening,
    launching,
    listings,
    reporting,
    serving,
    showing,
    spiking,
    vulnerable,
    working,
)
from ftnas.cli.examples import examples_of, exit_codes
from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.options import Storage, TrainingDataDirectory, given
from ftnas.cli.output import Json, allow_any_text
from ftnas.consent import allow_code
from ftnas.memory import keep_freed_memory

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
    code: Annotated[
        list[Path] | None,
        typer.Option(
            "--allow-code",
            metavar="FILE.py",
            help="Run this Python file if a run folder or a configuration names it. Repeatable.",
        ),
    ] = None,
) -> None:
    """Find quantised networks that keep their accuracy under hardware faults."""
    allow_any_text()
    keep_freed_memory()
    with one_line_errors():
        allow_code(*(code or ()))


@app.command()
def search(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The run folder; by default runs/ and the experiment's name."),
    ] = None,
    data_dir: TrainingDataDirectory = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as search.trials=50. Repeatable."),
    ] = None,
    controller: Annotated[
        str | None,
        typer.Option("--controller", help="optuna or nni-evolution; the same as --set search.controller=..."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that score and train; the same as --set workers=...")
    ] = None,
    storage: Storage = None,
    replay: Annotated[
        Path | None,
        typer.Option("--replay", help="Propose as another run did: its folder, or its study/order.json."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search, train the winner, measure it under faults and compare it. The same command resumes a run."""
    with one_line_errors():
        from ftnas.cli.printing import print_found
        from ftnas.pipeline.families import search_file
        from ftnas.pipeline.search_stages import StudyRequest

        short = given(**{"search.controller": controller, "workers": workers})
        changes = [*(assignments or []), *(f"{key}={value}" for key, value in short.items())]
        study = StudyRequest(storage, replay)
        found = search_file(config, run=run, assignments=changes, data_directory=data_dir, study=study)
        print_found(found, as_json=as_json)


for command in (
    comparing.train,
    comparing.compare,
    experimenting.experiment,
    launching.launch,
    working.worker,
    serving.storage_server,
    dashboard.dashboard,
    campaigns.campaign,
    campaigns.sites,
    vulnerable.vulnerability,
    exporting.export,
    spiking.spikes,
    fault_maps.faultmap,
    fault_maps.remap,
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
