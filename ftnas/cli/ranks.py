"""One voice for the processes that torchrun starts: the first one speaks, and all end with the same exit code."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

import typer

PATIENCE = 5.0  # seconds that one waits for the others' end; a process that is gone must not hold up the rest


@contextmanager
def one_voice() -> Iterator[None]:
    """Train in the block together with the processes that torchrun started, if it did.

    What the others print is dropped, unless one of them fails alone.
    """
    from ftnas.distributed import ended, joined, others_ended

    with joined() as ranks:
        if ranks.size == 1:
            yield
            return
        words = io.StringIO()
        try:
            with ExitStack() as quiet:
                if not ranks.is_first:
                    quiet.enter_context(redirect_stdout(io.StringIO()))
                    quiet.enter_context(redirect_stderr(words))
                yield
        except typer.Exit as end:
            # torchrun ends all as soon as one has failed, so they wait for each other, and end by themselves.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            ended()
            if not others_ended(first_only=not ranks.is_first, seconds=PATIENCE) and end.exit_code:
                sys.stderr.write(words.getvalue())
            raise
