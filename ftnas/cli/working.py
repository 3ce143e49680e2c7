"""``ftnas worker``. Torch is imported inside the command only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.options import Storage
from ftnas.cli.output import Json, print_json


def worker(
    run: Annotated[Path, typer.Argument(help="The folder of a search, or a copy of it.")],
    storage: Storage = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Where the data are on this machine, if elsewhere.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Of this worker; by default those of the configuration.")
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for the supernet, for tasks, or for a lost search.")
    ] = 600.0,
    as_json: Json = False,
) -> None:
    """Score candidates for a search, here or from another machine, until it needs no more."""
    with one_line_errors():
        from ftnas.pipeline.limits import check_cores
        from ftnas.pipeline.scoring_workers import Post, new_name, work

        if threads is not None:
            check_cores(threads)
        post = Post(run, storage, data_dir, wait)
        scored = work(post, name=new_name(), threads=threads, tell=lambda line: typer.echo(line, err=True))
        if as_json:
            return print_json({"run": str(run), "scored": scored})
        typer.echo(f"scored: {scored}")
