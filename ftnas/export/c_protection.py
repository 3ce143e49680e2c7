"""Redundancy and what corrects it in C: the calls, and the tables of channels and limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ftnas.export.graph import Correct, Gather, Halve
from ftnas.networks.correction import CORRECTIONS

# Of ``enum merge`` in inference.c, by what the rule computes.
_NAMES = {
    "smaller_half": "SMALLER_HALF",
    "smaller_near_half": "SMALLER_NEAR_HALF",
    "masked_sum": "MASKED_SUM",
    "plain_sum": "PLAIN_SUM",
    "smaller": "SMALLER",
    "rounded_mean": "ROUNDED_MEAN",
    "majority": "MAJORITY",
    "median": "MEDIAN",
    "zeroed": "ZEROED",
    "clipped": "CLIPPED",
}


def merge_name(operation: Correct) -> str:
    """Return what C calls the rule of ``operation``."""
    return _NAMES[CORRECTIONS[operation.method, operation.rule].__name__]


def protection_tables(table: str, operation: Any) -> Iterator[tuple[str, str, list[int]]]:
    """Yield type, name and numbers of each table that ``operation`` needs; ``table`` is what their names begin with."""
    if isinstance(operation, Gather | Halve | Correct):
        yield "int32_t", f"{table}_channels", list(operation.channels)
    if isinstance(operation, Correct):
        for index, limit in enumerate(operation.limits):
            yield "int32_t", f"{table}_limit_{index}", list(limit)


def limit_names(table: str, operation: Correct) -> tuple[str, str]:
    """Return the names of the tables of limits in C, 0 where there is none."""
    names = [f"{table}_limit_{index}" for index in range(len(operation.limits))]
    first, second = [*names, "0", "0"][:2]
    return first, second
