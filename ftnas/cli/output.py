"""How commands print: tables as wide as the terminal, plain and whole where there is none, or JSON."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, TextIO

import typer
from rich.box import HEAVY_HEAD, SQUARE, Box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

# Wider than any table: rich would wrap and cut at 80 columns what goes into a pipe or a file.
_UNBOUNDED = 10_000


def print_json(content: Any) -> None:
    """Print plain data as JSON, nothing else, on standard output."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=not shows("é±", sys.stdout), allow_nan=False))


def console() -> Console:
    """Return where tables and lines go: standard output, its text taken as it is, whatever brackets it holds."""
    if sys.stdout.isatty():
        return Console(markup=False, emoji=False)
    return Console(markup=False, emoji=False, highlight=False, width=_UNBOUNDED)


def table(*columns: str | Column) -> Table:
    """Return a table without rows: in a frame on a terminal, elsewhere columns of plain text."""
    frame = _frame()
    return Table(*columns, box=frame, pad_edge=frame is not None)


def right(name: str) -> Column:
    """Return a column of numbers."""
    return Column(name, justify="right")


def print_table(output: Console, rows: Table, title: str = "") -> None:
    """Print a table below its title; without a terminal no line ends in blanks."""
    if title:
        output.print(Text(title, style="italic"), soft_wrap=True)
    if sys.stdout.isatty():
        return output.print(rows)
    with output.capture() as captured:
        output.print(rows)
    for line in captured.get().splitlines():
        output.print(line.rstrip(), soft_wrap=True)


def print_warning(output: Console, words: str) -> None:
    """Print what a reader must know."""
    output.print(Text.assemble(("warning:", "yellow"), f" {words}"), soft_wrap=True)


def shows(text: str, stream: TextIO) -> bool:
    """Tell whether the encoding of ``stream`` has every character of ``text``."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def allow_any_text() -> None:
    """Let a terminal that lacks a character, such as ± in ASCII, show a question mark instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and not shows("é±", stream):
            reconfigure(errors="replace")


def _frame() -> Box | None:
    if not sys.stdout.isatty():
        return None
    return HEAVY_HEAD if shows("┏━┃", sys.stdout) else SQUARE
