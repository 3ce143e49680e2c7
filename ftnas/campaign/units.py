"""What a record of one chip or fault has to hold before statistics are made of it: records come out of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftnas.campaign.outcomes import Outcomes
from ftnas.campaign.records import Content


def check_unit(content: Content) -> None:
    """Refuse a record whose numbers are none.

    Raises:
        KeyError: a part is missing.
        TypeError: one is of another kind.
        ValueError: a number is impossible.
    """
    for part in content.get("rates", [content]):
        if "score" in part:
            if not 0 <= part["score"] <= 1:
                raise ValueError(f"a score of {part['score']}")
        else:
            _check_counts(part["images"])
            Outcomes(**part["images"])
        if "faults" in part:
            _check_counts(part["faults"])


def _check_counts(counts: Any) -> None:
    if not isinstance(counts, Mapping):
        raise TypeError(f"counts are needed, got {counts!r}")
    for name, count in counts.items():
        if count is not None and (not isinstance(count, int) or count < 0):
            raise ValueError(f"{name} of {count!r}")
