"""Scales, ticks and the frame of a plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ftnas.report import svg

WIDTH, HEIGHT = 900.0, 450.0


@dataclass(frozen=True)
class Scale:
    """Maps values ``low..high`` to places ``start..end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of ``value``."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Return round values inside the scale."""
        return log_ticks(self.low, self.high, count) if self.log else linear_ticks(self.low, self.high, count)


@dataclass(frozen=True)
class Plot:
    """A plot's two scales; ``frame`` draws what lies behind the data."""

    x: Scale
    y: Scale

    def at(self, x: float, y: float) -> svg.Point:
        """Return where the values ``x`` and ``y`` meet."""
        return self.x(x), self.y(y)

    def frame(
        self,
        x_label: str,
        y_label: str,
        *,
        x_ticks: Sequence[float] | None = None,
        x_name: Callable[[float], str] = "{:g}".format,
        left: float | None = None,
    ) -> list[str]:
        """Return grid lines, tick labels and axis labels. The y label stands above the axis, so nobody tilts a head.

        ``left`` is where the plot begins, if that is left of the x scale.
        """
        start = self.x.start if left is None else left
        parts = [svg.text((start - 34, self.y.end - 14), y_label, weight=600)]
        for value in self.y.ticks():
            y = self.y(value)
            parts.append(svg.line((start, y), (self.x.end, y), colour=svg.FAINT, width=0.8, opacity=0.35))
            parts.append(svg.text((start - 8, y + 4.2), f"{value:g}", anchor="end"))
        parts.append(svg.line((start, self.y.start), (self.x.end, self.y.start), opacity=0.8))
        parts += self._x_ticks(self.x.ticks() if x_ticks is None else x_ticks, x_name)
        middle = (start + self.x.end) / 2
        return [*parts, svg.text((middle, self.y.start + 40), x_label, anchor="middle", weight=600)]

    def _x_ticks(self, ticks: Sequence[float], name: Callable[[float], str]) -> list[str]:
        parts, free = [], -math.inf
        for value in ticks:
            x, half = self.x(value), svg.text_width(name(value)) / 2
            parts.append(svg.line((x, self.y.start), (x, self.y.start + 4), opacity=0.8))
            if x - half > free:
                parts.append(svg.text((x, self.y.start + 18), name(value), anchor="middle"))
                free = x + half + 4
        return parts


LARGEST = 1e15  # what is beyond, as the loss of a net that diverged, sets no axis


def linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` multiples of 1, 2 or 5 times a power of ten within ``low..high``."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return 1, 2 and 5 times powers of ten within ``low..high``; powers alone where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    inside = [value for value in fine if low <= value <= high]
    if len(inside) > 2 * count:
        return [10.0**p for p in powers if low <= 10.0**p <= high]
    return inside if len(inside) >= 3 else linear_ticks(low, high, count)


def spread(values: Iterable[float], *, margin: float = 0.06, least: float = 0.0) -> tuple[float, float]:
    """Return the range of the ``values`` that can be drawn with a margin on both sides, at least ``least`` wide."""
    finite = [value for value in values if abs(value) < LARGEST] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    extra = max((high - low) * margin, (least - (high - low)) / 2, 1e-9 + abs(high) * 1e-3)
    return low - extra, high + extra


def spread_percent(shares: Iterable[float]) -> tuple[float, float]:
    """Return a range for shares in percent, never beyond 0..100 by more than a mark needs."""
    low, high = spread([100 * share for share in shares], least=4)
    return max(low, -1.0), min(high, 101.0)


def spread_ratio(values: Iterable[float], *, margin: float = 0.05) -> tuple[float, float]:
    """Return a range of positive ``values`` for a logarithmic scale, with a margin on both sides."""
    low, high = min(values := list(values)), max(values)
    factor = max(math.exp(margin * (math.log(high) - math.log(low))), 1.15)
    return max(low / factor, math.ulp(0.0)), high * factor
