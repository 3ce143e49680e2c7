"""Timing variants against each other, and a table of what was measured beside what was to be reached.

All variants run in turn, once a round. A ratio is the median over rounds of two times of the same round, as a busy
machine slows neighbours alike; seconds are the fastest round's. One thread is timed by the process's CPU seconds,
which other jobs disturb least; several threads by the clock, as waiting ones burn CPU time.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from ftnas.runtime import use_threads

Steps = Sequence[Callable[[], object]]  # done one after another; their mean time counts
Rounds = Mapping[str, Sequence[float]]  # seconds of every round, by variant
Clock = Callable[[], float]


@dataclass(frozen=True)
class Goal:
    """At most ``limit``: the time of ``variant`` over that of ``reference``, or its seconds where there is none.

    Without a limit it is only shown.
    """

    title: str
    variant: str
    limit: float | None = None
    reference: str | None = None

    def measured(self, seconds: Rounds) -> float:
        """Return the median ratio of two times of one round, or the fastest round's seconds."""
        variant, reference = seconds[self.variant], seconds.get(self.reference or "", [])
        ratios = [ours / theirs for ours, theirs in zip(variant, reference, strict=False)]
        return statistics.median(ratios) if ratios else min(variant)

    def row(self, seconds: Rounds) -> tuple[str, ...]:
        """Return what the table says: title, fastest times, what was measured, what is allowed, and the verdict."""
        variant, reference = seconds[self.variant], seconds.get(self.reference or "", [])
        times = [f"{1000 * min(rounds):.1f}" if rounds else "" for rounds in (variant, reference)]
        measured = self.measured(seconds)
        return self.title, *times, f"{measured:.2f}", *verdict(measured, self.limit)


def verdict(measured: float, limit: float | None, *, at_least: bool = False) -> tuple[str, str]:
    """Return what is allowed, and whether ``measured`` is, as text; both empty without a ``limit``."""
    if limit is None:
        return "", ""
    return f"{limit:g}", "met" if (measured >= limit if at_least else measured <= limit) else "missed"


def measure(variants: Mapping[str, Steps], *, rounds: int, clock: Clock) -> Rounds:
    """Return the mean seconds of each variant's steps in every round.

    Steps are timed when they are done for the second time in a row, as in a training: the first one after another
    variant must ask the system for other memory (16,000 page faults, 25 ms, where a fault-tolerant step is larger).
    Python's garbage collector stays on, as users have it, but begins each timing with nothing to collect, so that no
    variant pays for what another one left behind.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, steps in variants.items():
            for step in steps:
                step()
            gc.collect()
            began = clock()
            for step in steps:
                step()
            seconds[name].append((clock() - began) / len(steps))
    return seconds


def print_table(goals: Sequence[Goal], seconds: Rounds, caption: str) -> None:
    """Print each goal, of a variant that was measured, beside what was measured."""
    rows = [goal.row(seconds) for goal in goals if goal.variant in seconds]
    print_rows(("what", "ms", "of ms", "measured", "goal", ""), rows, caption)


def print_rows(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> None:
    """Print a table whose first column is text and whose others are numbers."""
    table = Table(caption=caption)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


def choose_clock(threads: int) -> tuple[Clock, str]:
    """Give torch ``threads`` threads; return what to time them by, and its unit in words."""
    use_threads(threads)
    used = f"threads: {torch.get_num_threads()}"
    return (time.process_time, f"CPU seconds, {used}") if threads == 1 else (time.perf_counter, f"wall seconds, {used}")


def parse_count(text: str) -> int:
    """Read a whole number of 1 or more from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed is a whole number of 1 or more")
    return int(text)
