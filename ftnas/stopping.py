"""Ending early when asked to, by SIGTERM or Ctrl-C: work is put down only where all of it is saved.

Only ``noticing_signals`` touches signal handlers, and only the command line calls it: who uses ftnas as a library keeps
their own. A loop that saves wraps itself in ``finishing_steps`` and calls ``check`` where it has saved; elsewhere a
request ends the work at once, which loses nothing, since files are whole or absent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """Work was ended by a signal, and all that it had done is saved.

    Like ``KeyboardInterrupt`` no ``Exception``: what makes a note of a failure and goes on must not catch it.

    Attributes:
        number: of the signal.
        after: what was done last, in words; may be empty.
    """

    def __init__(self, number: int, after: str = "") -> None:
        super().__init__(number, after)
        self.number, self.after = number, after

    @property
    def exit_code(self) -> int:
        """What a shell reports of a process that this signal ended."""
        return 128 + self.number

    def __str__(self) -> str:
        return f"stopped by {signal_name(self.number)}" + (f" after {self.after}" if self.after else "")


_asked: int | None = None  # the signal that asked first
_unfinished = 0  # blocks that must be left at a safe point
_noticing = False


def signal_name(number: int) -> str:
    """Return what a user calls the signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def stop_asked() -> bool:
    """Return whether a signal has asked the work to end."""
    return _asked is not None


def check(after: str = "") -> None:
    """End the work here if a signal has asked for it.

    Raises:
        Stopped: one has; ``after`` says what was done last.
    """
    if _asked is not None:
        raise Stopped(_asked, after)


@contextmanager
def finishing_steps() -> Iterator[None]:
    """Put a request to stop off to the next ``check``, or to the end of the block."""
    global _unfinished
    _unfinished += 1
    try:
        yield
    finally:
        _unfinished -= 1
    if not _unfinished:
        check()


@contextmanager
def noticing_signals() -> Iterator[None]:
    """Notice SIGTERM and Ctrl-C in the block; a second Ctrl-C is a ``KeyboardInterrupt``. Handlers are put back.

    A signal that is ignored, as that of Ctrl-C under ``nohup``, stays so. Outside the main thread nothing is noticed.
    """
    global _asked, _noticing
    if _noticing or threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = [(number, signal.getsignal(number)) for number in SIGNALS]
    _asked, _noticing = None, True
    try:
        for number, handler in kept:
            if handler is not signal.SIG_IGN:
                signal.signal(number, _note)
        yield
    finally:
        for number, handler in kept:
            signal.signal(number, handler)
        _asked, _noticing = None, False


def notice_in_worker() -> None:
    """Prepare a worker process: Ctrl-C is its parent's, and SIGTERM, by which that ends it, is obeyed where it can be.

    In ``finishing_steps`` the step is finished and saved; elsewhere the process ends at once, without a word.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _note_in_worker)


def end_with_parent() -> None:
    """Let this worker process end within a moment when its parent has ended, by whatever."""
    threading.Thread(target=_follow, args=(multiprocessing.parent_process(),), daemon=True).start()


def _follow(parent: BaseProcess | None) -> None:
    if parent is not None:
        parent.join()
        os._exit(1)


def leave(stop: Stopped) -> NoReturn:
    """End this worker process, whose work is saved, at once and without a word: its parent waits for that only."""
    os._exit(stop.exit_code)


def _note(number: int, frame: FrameType | None) -> None:
    global _asked
    again, _asked = _asked is not None, _asked or number
    if again and number == signal.SIGINT:
        raise KeyboardInterrupt
    if again:
        return
    if not _unfinished:
        raise Stopped(number)
    # Not print: the signal may have come in the middle of one.
    os.write(2, f"ftnas: {signal_name(number)}: ending after this step (a second Ctrl-C ends at once)\n".encode())


def _note_in_worker(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = number
    if not _unfinished:
        leave(Stopped(number))
