"""Accuracy against the fault rate, with bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ftnas.report import svg, wording
from ftnas.report.axes import Plot, Scale, spread_percent, spread_ratio
from ftnas.report.labels import Label, at_ends
from ftnas.report.results import Comparison, RateScore, Result

LEFT = 46.0
CLEAN = 64.0  # width of the strip at the left that shows accuracy without faults
SMALL = (520.0, 380.0)  # two of these stand side by side on a page
DASHED = ("random", "hand")  # cells of the run's own space


@dataclass(frozen=True)
class Curve:
    """One net's accuracies: without faults, and at each rate above 0 in rising order."""

    title: str
    colour: str
    clean: float
    scores: tuple[RateScore, ...]
    strong: bool = False
    dashed: bool = False

    @classmethod
    def of(cls, row: Result, colour: str, *, title: str | None = None, strong: bool | None = None) -> Curve:
        """Return the curve of ``row``; a winner's is strong."""
        scores = tuple(score for score in row.rates if score.rate > 0)
        strong = row.family == "winner" if strong is None else strong
        return cls(title or row.title, colour, row.clean, scores, strong, row.family in DASHED)


def groups(comparison: Comparison) -> dict[tuple[str, str], tuple[Result, ...]]:
    """Return the baselines by (training, size): with faults before plainly, scaled before own size."""
    found: dict[tuple[str, str], tuple[Result, ...]] = {}
    order = {"fault-tolerant": 0, "scaled": 0}
    rows = sorted(comparison.family("baseline"), key=lambda row: (order.get(row.training, 1), order.get(row.size, 1)))
    for row in rows:
        group = (row.training, row.size)
        found[group] = (*found.get(group, ()), row)
    return found


def curves_figure(
    curves: Sequence[Curve], *, fault: str, trained: float | None, size: tuple[float, float], name: str
) -> str:
    """Draw one curve a net, its band the interval over chips. The last one is drawn on top.

    Args:
        curves: each with a score at some rate.
        fault: what the axis says fails.
        trained: the rate that all were trained for, where it is one.
        size: width and height.
        name: what a screen reader says.
    """
    width, height = size
    right = width - 14 - max(svg.text_width(curve.title) * (1.08 if curve.strong else 1) for curve in curves)
    plot = _plot(curves, right, height)
    rates = sorted({score.rate for curve in curves for score in curve.scores})
    parts = plot.frame(
        f"Fault rate of {fault} (log scale)", "Accuracy (%)", x_ticks=rates, x_name=wording.rate, left=LEFT
    )
    parts += _clean_strip(plot)
    parts += [] if trained is None else _trained_at(plot, trained)
    parts += [part for curve in curves for part in _band(plot, curve)]
    parts += [part for curve in curves for part in _drawn(plot, curve)]
    ends = [
        Label(_points(plot, curve)[-1], curve.title, curve.colour, 700 if curve.strong else 400) for curve in curves
    ]
    parts += at_ends(ends, right + 14, top=plot.y.end, bottom=plot.y.start)
    return svg.document(width, height, name, parts)


def _plot(curves: Sequence[Curve], right: float, height: float) -> Plot:
    rates = [score.rate for curve in curves for score in curve.scores]
    shares = [end for curve in curves for score in curve.scores if _is_known(score) for end in (score.low, score.high)]
    shares += [score.mean for curve in curves for score in curve.scores] + [curve.clean for curve in curves]
    x = Scale(*spread_ratio(rates, margin=0.04), LEFT + CLEAN, right, log=True)
    return Plot(x, Scale(*spread_percent(shares), height - 50, 38))


def _is_known(score: RateScore) -> bool:
    """Return whether the interval says anything: that of a single chip or net is everything from 0 to 1."""
    return (score.low, score.high) != (0.0, 1.0)


def _clean_strip(plot: Plot) -> list[str]:
    """Return the tick of the clean accuracies, and the break between them and the logarithmic scale."""
    x, y = LEFT + CLEAN / 2 - 6, plot.y.start
    gap = [svg.line((LEFT + CLEAN + d - 8, y + 5), (LEFT + CLEAN + d - 2, y - 5)) for d in (-2, 3)]
    return [*gap, svg.line((x, y), (x, y + 4), opacity=0.8), svg.text((x, y + 18), "none", anchor="middle")]


def _trained_at(plot: Plot, rate: float) -> list[str]:
    if not plot.x.low <= rate <= plot.x.high:
        return []
    x, top = plot.x(rate), plot.y.end
    return [
        svg.line((x, plot.y.start), (x, top), dash="2 4", opacity=0.7),
        svg.text((x, top - 5), "trained at", anchor="middle", size=11),
    ]


def _points(plot: Plot, curve: Curve) -> list[svg.Point]:
    return [plot.at(score.rate, 100 * score.mean) for score in curve.scores]


def _band(plot: Plot, curve: Curve) -> list[str]:
    scores = [score for score in curve.scores if _is_known(score)]
    upper = [plot.at(score.rate, 100 * score.high) for score in scores]
    lower = [plot.at(score.rate, 100 * score.low) for score in reversed(scores)]
    return [svg.polygon([*upper, *lower], colour=curve.colour, opacity=0.2)] if len(scores) > 1 else []


def _drawn(plot: Plot, curve: Curve) -> list[str]:
    colour, points = curve.colour, _points(plot, curve)
    clean = (LEFT + CLEAN / 2 - 6, plot.y(100 * curve.clean))
    words = f"{curve.title}\nno faults: {wording.percent(curve.clean)}"
    parts = [
        svg.polyline([clean, points[0]], colour=colour, width=1, dash="1 4", opacity=0.8),
        svg.polyline(points, colour=colour, width=2.8 if curve.strong else 1.7, dash="6 4" if curve.dashed else ""),
        svg.hover(words, svg.circle(clean, 3.4, colour=colour)),
    ]
    for at, score in zip(points, curve.scores, strict=True):
        words = f"{curve.title}\nrate {wording.rate(score.rate)}: {wording.score(score)}, n = {len(score.chips)}"
        mark = svg.circle(at, 4 if curve.strong else 3, colour=colour)
        parts.append(svg.hover(words, *_whisker(plot, score, colour), mark))
    return parts


def _whisker(plot: Plot, score: RateScore, colour: str) -> list[str]:
    """Return the interval at one rate, which a band of a single rate could not show."""
    if not _is_known(score):
        return []
    low, high = plot.at(score.rate, 100 * score.low), plot.at(score.rate, 100 * score.high)
    return [svg.line(low, high, colour=colour, width=1.2, opacity=0.8)]
