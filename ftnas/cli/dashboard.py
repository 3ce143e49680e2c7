"""``ftnas dashboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftnas.cli.mistakes import one_line_errors


def dashboard(
    run: Annotated[Path, typer.Argument(help="The folder of a search.")],
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of Optuna's dashboard; 0 takes a free one.")
    ] = 0,
    tensorboard_port: Annotated[
        int, typer.Option("--tensorboard-port", min=0, max=65535, help="Of TensorBoard; 0 takes a free one.")
    ] = 0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard/--no-tensorboard", help="Start it beside.")] = True,
) -> None:
    """Show a search in the browser: Optuna's dashboard and TensorBoard, for this machine only, until Ctrl-C."""
    with one_line_errors():
        from ftnas.pipeline.dashboard import show

        ports = (port, tensorboard_port if tensorboard else None)
        show(run, ports=ports, tell=lambda line: typer.echo(line))
