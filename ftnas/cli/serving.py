"""``ftnas storage-server``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftnas.cli.mistakes import one_line_errors


def storage_server(
    run: Annotated[Path, typer.Argument(help="The folder of the search whose tasks are served.")],
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="To listen on.")],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 is every network, and asks for no password.")
    ] = "127.0.0.1",
) -> None:
    """Serve the tasks of a search to workers on other machines, until Ctrl-C."""
    with one_line_errors():
        from ftnas.pipeline.storage_server import serve

        serve(run, host=host, port=port, tell=lambda line: typer.echo(line))
