"""What a command says of mistakes, of warnings, of disks that take no more, and of signals that end it."""

from __future__ import annotations

import errno
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import typer

from ftnas.errors import FtnasError
from ftnas.stopping import Stopped, noticing_signals

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130

# What disks do to programs; everything else that goes wrong with a file is a mistake that has its own line, or a bug.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE}
_GOES_ON = "nothing is half-written, and the same command goes on from here"
_PACKAGE = Path(__file__).resolve().parent.parent


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what the user got wrong into one line on standard error and exit code 2; a bug keeps its traceback.

    SIGTERM and Ctrl-C end the command where its work is saved, with one line and exit code 143 or 130.
    """
    try:
        with noticing_signals(), _one_line_warnings(), _quiet_threads():
            yield
            sys.stdout.flush()  # so that a full disk is noticed here
    except FtnasError as error:
        typer.echo(f"ftnas: {error}", err=True)
        raise typer.Exit(EXIT_MISTAKE) from None
    except Stopped as stop:
        typer.echo(f"ftnas: {stop}; {_GOES_ON}", err=True)
        raise typer.Exit(stop.exit_code) from None
    except KeyboardInterrupt:
        typer.echo(f"ftnas: interrupted; {_GOES_ON}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except OSError as error:
        if error.errno not in _DISK:
            raise
        place = error.filename or "standard output"
        typer.echo(f"ftnas: {place}: cannot be written ({error.strerror}); what was there is untouched", err=True)
        _drop_output()
        raise typer.Exit(EXIT_MISTAKE) from None


def _drop_output() -> None:
    """Let what standard output still holds go nowhere: Python would try again at exit, and say so."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Let the main thread alone tell of a disk that has ended another one, such as TensorBoard's: it meets it too."""
    others = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and args.exc_value.errno in _DISK):
            others(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = others


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
