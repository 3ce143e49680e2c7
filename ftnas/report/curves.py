"""Accuracy against the fault rate, with bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftnas.report import svg, wording
from ftnas.report.axes import Plot, Scale, spread_percent, spread_ratio
from ftnas.report.labels import Label, at_ends
from ftnas.report.palette import colours
from ftnas.report.results import Comparison, Result

CLEAN = 64.0  # width of the strip at the left that shows accuracy without faults
SMALL = (520.0, 380.0)  # two of these stand side by side on a page


def groups(comparison: Comparison) -> dict[tuple[str, str], tuple[Result, ...]]:
    """Return the baselines by (training, size): with faults before plainly, scaled before own size."""
    found: dict[tuple[str, str], tuple[Result, ...]] = {}
    order = {"fault-tolerant": 0, "scaled": 0}
    rows = sorted(comparison.family("baseline"), key=lambda row: (order.get(row.training, 1), order.get(row.size, 1)))
    for row in rows:
        group = (row.training, row.size)
        found[group] = (*found.get(group, ()), row)
    return found


def curves_figure(rows: Sequence[Result], comparison: Comparison, *, width: float, height: float, name: str) -> str:
    """Draw one curve a row, its band the interval over chips. The last row is drawn on top."""
    ink = colours(comparison)
    right = width - 14 - max(svg.text_width(row.title) * (1.08 if _weight(row) == 700 else 1) for row in rows)
    plot = _plot(rows, right, height)
    rates = sorted({score.rate for row in rows for score in row.rates if score.rate > 0})
    parts = plot.frame(
        f"Fault rate of {comparison.fault} (log scale)",
        "Accuracy (%)",
        x_ticks=rates,
        x_name=wording.rate,
        left=46,
    )
    parts += [*_clean_strip(plot), *_trained_at(plot, comparison.rate)]
    for row in rows:
        parts += _curve(plot, row, ink)
    ends = [Label(_points(plot, row)[-1], row.title, ink[row.name], _weight(row)) for row in rows]
    parts += at_ends(ends, right + 14, top=plot.y.end, bottom=plot.y.start)
    return svg.document(width, height, name, parts)


def _weight(row: Result) -> int:
    return 700 if row.family == "winner" else 400


def _plot(rows: Sequence[Result], right: float, height: float) -> Plot:
    rates = [score.rate for row in rows for score in row.rates if score.rate > 0]
    shares = [end for row in rows for score in row.rates for end in (score.low, score.high)]
    shares += [row.clean for row in rows]
    x = Scale(*spread_ratio(rates, margin=0.04), 46 + CLEAN, right, log=True)
    return Plot(x, Scale(*spread_percent(shares), height - 50, 38))


def _clean_strip(plot: Plot) -> list[str]:
    """Return the tick of the clean accuracies, and the break between them and the logarithmic scale."""
    x, y = 46 + CLEAN / 2 - 6, plot.y.start
    gap = [svg.line((46 + CLEAN + d - 8, y + 5), (46 + CLEAN + d - 2, y - 5)) for d in (-2, 3)]
    return [*gap, svg.line((x, y), (x, y + 4), opacity=0.8), svg.text((x, y + 18), "none", anchor="middle")]


def _trained_at(plot: Plot, rate: float) -> list[str]:
    if not plot.x.low <= rate <= plot.x.high:
        return []
    x, top = plot.x(rate), plot.y.end
    return [
        svg.line((x, plot.y.start), (x, top), dash="2 4", opacity=0.7),
        svg.text((x, top - 5), "trained at", anchor="middle", size=11),
    ]


def _points(plot: Plot, row: Result) -> list[svg.Point]:
    return [plot.at(score.rate, 100 * score.mean) for score in row.rates if score.rate > 0]


def _curve(plot: Plot, row: Result, ink: Mapping[str, str]) -> list[str]:
    colour, points = ink[row.name], _points(plot, row)
    first = row.family == "winner"
    dash = "6 4" if row.family in ("random", "hand") else ""
    scores = [score for score in row.rates if score.rate > 0]
    upper = [plot.at(score.rate, 100 * score.high) for score in scores]
    lower = [plot.at(score.rate, 100 * score.low) for score in reversed(scores)]
    clean = (46 + CLEAN / 2 - 6, plot.y(100 * row.clean))
    parts = [
        svg.polygon([*upper, *lower], colour=colour, opacity=0.2),
        svg.polyline([clean, points[0]], colour=colour, width=1, dash="1 4", opacity=0.8),
        svg.polyline(points, colour=colour, width=2.8 if first else 1.7, dash=dash),
        svg.hover(f"{row.title}\nno faults: {wording.percent(row.clean)}", svg.circle(clean, 3.4, colour=colour)),
    ]
    for at, score in zip(points, scores, strict=True):
        words = f"{row.title}\nrate {wording.rate(score.rate)}: {wording.score(score)}, n = {len(score.chips)}"
        parts.append(svg.hover(words, svg.circle(at, 4 if first else 3, colour=colour)))
    return parts
