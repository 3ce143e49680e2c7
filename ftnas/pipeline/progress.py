"""How far a stage is, on standard error: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ftnas.report.wording import duration

Advance = Callable[[], None]

SECONDS_BETWEEN_LINES = 30.0
# Of a bar: rich looks back 30 s by default, and has no estimate for steps that take longer, as epochs on CIFAR-10 do.
SECONDS_OF_ESTIMATE = 600.0
# Of the lines: an estimate is made from so many steps, since those a resumed run only reads come in a moment.
STEPS_OF_ESTIMATE = 20


def progress_bar(title: str, total: int) -> AbstractContextManager[Advance]:
    """Show how far the stage ``title`` is; calling what is yielded moves it one of ``total`` steps on."""
    if total < 1:
        return nullcontext(lambda: None)
    console = Console(stderr=True)
    return _bar(title, total, console) if console.is_terminal else _lines(title, total, console)


@contextmanager
def _bar(title: str, total: int, console: Console) -> Iterator[Advance]:
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, speed_estimate_period=SECONDS_OF_ESTIMATE) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def _lines(title: str, total: int, console: Console) -> Iterator[Advance]:
    stage, ended = _Stage(title, total), threading.Event()
    console.out(stage, highlight=False)
    teller = threading.Thread(target=_tell, args=(stage, ended, console), daemon=True)
    teller.start()
    try:
        yield stage.advance
    finally:
        ended.set()
        teller.join()


def _tell(stage: _Stage, ended: threading.Event, console: Console) -> None:
    """Print where ``stage`` is from time to time until it has ``ended``."""
    while not ended.wait(SECONDS_BETWEEN_LINES):
        console.out(stage, highlight=False)


class _Stage:
    """The steps done of a stage, and when the last of them were."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self._times = deque([time.monotonic()], maxlen=STEPS_OF_ESTIMATE + 1)

    def advance(self) -> None:
        """Count a step."""
        self.done += 1
        self._times.append(time.monotonic())

    def __str__(self) -> str:
        times = list(self._times)
        counted = f"{self.title}: {self.done}/{self.total}"
        if len(times) < 2 or self.done >= self.total:
            return counted
        # Up to now, not up to the last step: a step that takes longer than those before lengthens the estimate.
        step = (time.monotonic() - times[0]) / (len(times) - 1)
        return f"{counted}, about {duration(step * (self.total - self.done))} left"
