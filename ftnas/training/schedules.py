"""Numbers that change over a training: constant, in a ramp, or in steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import PlainSerializer, PlainValidator

FORMS = "a number, {from: 0, to: 0.2, over: 0.5} (a ramp), or {0: 0, 0.25: 0.2} (steps)"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A number over a training; time is the share of it that is done, 0 to 1.

    Attributes:
        points: (time, value), times rising from 0.
        ramp: whether the value goes straight from point to point, or holds until the next.
    """

    points: tuple[tuple[float, float], ...]
    ramp: bool = False

    @classmethod
    def read(cls, given: Any) -> Schedule:
        """Read what a configuration says.

        Raises:
            ValueError: it is none of the forms.
        """
        if isinstance(given, Schedule):
            return given
        if _is_number(given):
            return cls(((0.0, float(given)),))
        if not isinstance(given, Mapping) or not given:
            raise ValueError(f"{FORMS} is needed, got {given!r}")
        return _ramp(given) if "from" in given or "to" in given else _steps(given)

    def at(self, time: float) -> float:
        """Return the value after the share ``time`` of the training."""
        before = [point for point in self.points if point[0] <= time][-1]
        after = next((point for point in self.points if point[0] > time), None)
        if not self.ramp or after is None:
            return before[1]
        share = (time - before[0]) / (after[0] - before[0])
        return before[1] + share * (after[1] - before[1])

    @property
    def highest(self) -> float:
        """The largest value it ever has."""
        return max(value for _, value in self.points)

    @property
    def lowest(self) -> float:
        """The smallest value it ever has."""
        return min(value for _, value in self.points)

    def to_plain(self) -> Any:
        """Return plain data that ``read`` takes."""
        if len(self.points) == 1:
            return self.points[0][1]
        if self.ramp:
            (_, first), (over, last) = self.points
            return {"from": first, "to": last, "over": over}
        return dict(self.points)


Number: TypeAlias = float | Schedule


def value_at(number: Number, time: float) -> float:
    """Return ``number`` after the share ``time`` of the training."""
    return number.at(time) if isinstance(number, Schedule) else number


def _ramp(given: Mapping[Any, Any]) -> Schedule:
    if not {"from", "to"} <= set(given) <= {"from", "to", "over"} or not all(map(_is_number, given.values())):
        raise ValueError(f"{FORMS} is needed, got {dict(given)!r}")
    over = float(given.get("over", 1.0))
    if not 0 < over <= 1:
        raise ValueError(f"over is a share of the training, more than 0 and at most 1, got {over:g}")
    return Schedule(((0.0, float(given["from"])), (over, float(given["to"]))), ramp=True)


def _steps(given: Mapping[Any, Any]) -> Schedule:
    try:
        points = sorted((float(time), float(value)) for time, value in given.items())
    except (TypeError, ValueError):
        raise ValueError(f"{FORMS} is needed, got {dict(given)!r}") from None
    if points[0][0] != 0 or points[-1][0] >= 1 or not all(math.isfinite(value) for _, value in points):
        raise ValueError(f"steps begin at 0 and are shares of the training below 1, got {dict(given)!r}")
    return Schedule(tuple(points))


def _is_number(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and abs(given) < 1e300


def _between(low: float, high: float) -> Any:
    def validated(given: Any) -> Schedule:
        schedule = Schedule.read(given)
        if not low <= schedule.lowest <= schedule.highest <= high:
            allowed = f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"
            raise ValueError(f"values must be {allowed}, got {given!r}")
        return schedule

    return PlainValidator(validated)


_PLAIN = PlainSerializer(Schedule.to_plain)
Amount = Annotated[Schedule, _between(0, math.inf), _PLAIN]
Share = Annotated[Schedule, _between(0, 1), _PLAIN]


def constant(value: float) -> Schedule:
    """Return the schedule that always is ``value``."""
    return Schedule(((0.0, value),))
