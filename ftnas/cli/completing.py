"""What the shell completes, beside commands and options: names of what ftnas knows, told without torch."""

from __future__ import annotations

from collections.abc import Iterable

from ftnas.cli import catalogue

Completion = tuple[str, str]
"""A word and what it means."""


def complete_spaces(incomplete: str) -> list[Completion]:
    """Complete the name of a bundled search space."""
    return _beginning(incomplete, ((name, "search space") for name in catalogue.space_names()))


def complete_baselines(incomplete: str) -> list[Completion]:
    """Complete the name of a baseline."""
    return _beginning(incomplete, ((name, words.what) for name, words in catalogue.BASELINES.items()))


def complete_faults(incomplete: str) -> list[Completion]:
    """Complete the name of a fault model; its rate follows after a colon."""
    return _beginning(incomplete, ((name, words.what) for name, words in catalogue.FAULTS.items()))


def complete_data_sets(incomplete: str) -> list[Completion]:
    """Complete the name of a data set."""
    return _beginning(incomplete, catalogue.DATA_SETS.items())


def complete_spiking_tasks(incomplete: str) -> list[Completion]:
    """Complete the name of a task for spiking graphs."""
    return _beginning(incomplete, catalogue.SPIKING_TASKS.items())


def complete_formats(incomplete: str) -> list[Completion]:
    """Complete the name of an export format, the last of several between commas."""
    before, comma, last = incomplete.rpartition(",")
    found = _beginning(last, catalogue.FORMATS.items())
    return [(before + comma + name, meaning) for name, meaning in found]


def _beginning(start: str, known: Iterable[Completion]) -> list[Completion]:
    return [(name, meaning) for name, meaning in known if name.startswith(start)]
