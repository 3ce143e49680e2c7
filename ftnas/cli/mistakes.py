"""What a command says of mistakes, of warnings and of Ctrl-C."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import typer

from ftnas.errors import FtnasError

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130

_PACKAGE = Path(__file__).resolve().parent.parent


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what the user got wrong into one line on standard error and exit code 2; a bug keeps its traceback."""
    try:
        with _one_line_warnings():
            yield
    except FtnasError as error:
        typer.echo(f"ftnas: {error}", err=True)
        raise typer.Exit(EXIT_MISTAKE) from None
    except KeyboardInterrupt:
        typer.echo("ftnas: interrupted; nothing is half-written, and the same command goes on from here", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Let what ftnas warns of be one line on standard error, without the line of code that says so."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if category is UserWarning and Path(filename).is_relative_to(_PACKAGE):
                typer.echo(f"ftnas: warning: {message}", err=True)
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield
