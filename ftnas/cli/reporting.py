"""``ftnas report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from ftnas.cli.mistakes import one_line_errors
from ftnas.errors import RunError

Runs = Annotated[list[Path], Argument(help="Run folders, finished or not.")]
Out = Annotated[
    Path | None,
    Option("--out", help="The page to write; of one run by default report.html in its folder. Several runs need it."),
]


def report(runs: Runs, out: Out = None) -> None:
    """Write what run folders hold as one page that needs nothing but itself; several runs stand side by side.

    Its figures (SVG, PNG) and tables (CSV, Markdown) are written beside it.
    """
    with one_line_errors():
        if out is None and len(runs) > 1:
            raise RunError("--out: several runs need a page to stand on, such as --out report.html")
        from ftnas.pipeline.evolution import is_evolution, write_evolution_page
        from ftnas.pipeline.layered_search import is_layered, write_layered_page
        from ftnas.report.page import write_report, write_reports

        if out is None and is_evolution(runs[0]):
            return typer.echo(write_evolution_page(runs[0]))
        if out is None and is_layered(runs[0]):
            return typer.echo(write_layered_page(runs[0]))
        for run in runs:
            if is_evolution(run) or is_layered(run):
                raise RunError(f"{run}: a search for spiking nets; its page stands alone and takes no --out")
        typer.echo(write_report(runs[0]) if out is None else write_reports(runs, out))
