"""What a command says of mistakes and of Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ftnas.errors import FtnasError

EXIT_MISTAKE = 2


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what the user got wrong into one line on standard error and exit code 2; a bug keeps its traceback."""
    try:
        yield
    except FtnasError as error:
        typer.echo(f"ftnas: {error}", err=True)
        raise typer.Exit(EXIT_MISTAKE) from None
    except KeyboardInterrupt:
        typer.echo("ftnas: interrupted; the same command goes on from here", err=True)
        raise typer.Exit(130) from None
