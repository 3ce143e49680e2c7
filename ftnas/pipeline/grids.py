"""Grids of choices: every combination of options, what each comes to, and what an option gains over another."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from ftnas.campaign import CONFIDENCE
from ftnas.campaign.intervals import student_interval

Keys = dict[str, Any]
Axes = Mapping[str, Mapping[str, Keys]]


def check_grid(axes: Axes, seeds: Sequence[int], against: str | None) -> None:
    """Refuse choices without options, an option to compare ``against`` that is not there, and a seed that comes twice.

    Raises:
        ValueError: names the key.
    """
    for axis, options in axes.items():
        if not options:
            raise ValueError(f"axes.{axis}: at least one option is needed")
    known = [option for options in axes.values() for option in options]
    if against is not None and against not in known:
        raise ValueError(f"against: unknown option; choose from {', '.join(known)}, got {against!r}")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: each once, got {list(seeds)}")


def combinations_of(axes: Axes) -> Iterator[dict[str, str]]:
    """Yield every choice of one option for each axis, the last axis changing fastest."""
    for options in itertools.product(*axes.values()):
        yield dict(zip(axes, options, strict=True))


def chosen_keys(base: Mapping[str, Any], axes: Axes, combination: Mapping[str, str]) -> Keys:
    """Return the keys of ``base`` as the options of ``combination`` change them."""
    keys = dict(base)
    for axis, option in combination.items():
        keys = merged(keys, axes[axis][option])
    return keys


def merged(keys: Mapping[str, Any], changes: Mapping[str, Any]) -> Keys:
    """Return ``keys`` with ``changes``, sections merged into sections."""
    result = dict(keys)
    for key, value in changes.items():
        there = result.get(key)
        result[key] = merged(there, value) if isinstance(there, Mapping) and isinstance(value, Mapping) else value
    return result


def option_name(combination: Mapping[str, str], seed: int) -> str:
    """Return the name of the folder of one combination and seed."""
    words = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", option) for option in combination.values())
    return f"{words}-seed{seed}"


def with_rivals(axes: Axes, against: str | None, rows: Sequence[Keys]) -> Iterator[tuple[Keys, Keys]]:
    """Yield each row of another option than ``against``, and the row that has ``against`` instead; rows by options."""
    axis = next((axis for axis, options in axes.items() if against in options), None)
    for row in rows if axis is not None else ():
        if row["options"][axis] != against:
            yield row, next(other for other in rows if other["options"] == {**row["options"], axis: against})


def mean_interval(values: Sequence[float], *, bounds: tuple[float, float] = (0.0, 1.0)) -> Keys:
    """Return the mean of ``values``, which lie between ``bounds``, and the ends of its interval."""
    interval = student_interval(values, CONFIDENCE, bounds=bounds)
    return {"mean": fmean(values), "low": interval.low, "high": interval.high}


def gains(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return how far each of ``ours``, one a seed or chip, is above that of the same seed or chip in ``theirs``."""
    return [one - other for one, other in zip(ours, theirs, strict=True)]
