"""Accuracy under faults against what protection costs: a panel for each net and fault, a curve for each way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftnas.report import svg, wording
from ftnas.report.axes import Plot, Scale, spread_percent
from ftnas.report.palette import in_sequence

PANEL = (420.0, 320.0)
LEFT, RIGHT, TOP, BOTTOM = 56.0, 20.0, 62.0, 52.0
LEGEND_LINE = 20.0

Row = Mapping[str, Any]


def hardening_figure(results: Mapping[str, Any]) -> str:
    """Draw the results of a hardening experiment; whiskers are intervals over chips, dots on a line its budgets."""
    nets, ways = list(results["nets"]), list(results["ways"])
    colours = in_sequence(ways)
    faults = [(fault["fault"], fault["rate"]) for fault in results["rows"][0]["faults"]]
    parts = []
    for line, net in enumerate(nets):
        for column, (fault, rate) in enumerate(faults):
            rows = [row for row in results["rows"] if row["net"] == net]
            place = (column * PANEL[0], line * PANEL[1])
            parts.append(_panel(rows, column, f"{net}: {fault} {wording.rate(rate)}", place, colours))
    below = len(nets) * PANEL[1] + 24
    for index, way in enumerate(ways):
        y = below + index * LEGEND_LINE
        parts.append(svg.polyline([(18, y), (46, y)], colour=colours[way], width=2.2))
        parts.append(svg.text((54, y + 4), way))
    parts.append(svg.text((18, below + len(ways) * LEGEND_LINE + 4), "dotted: without faults; dashed: no protection"))
    width = max(len(faults) * PANEL[0], 420) + 12
    return svg.document(width, below + (len(ways) + 1) * LEGEND_LINE + 6, str(results["name"]), parts)


def _panel(rows: Sequence[Row], index: int, title: str, place: svg.Point, colours: Mapping[str, str]) -> str:
    ends = [row["faults"][index][end] for row in rows for end in ("low", "high")]
    dearest = max(100 * _extra(row) for row in rows) or 1.0
    x = Scale(-0.03 * dearest, 1.05 * dearest, place[0] + LEFT, place[0] + PANEL[0] - RIGHT)
    y = Scale(*spread_percent([*ends, *(row["clean"] for row in rows)]), place[1] + PANEL[1] - BOTTOM, place[1] + TOP)
    plot = Plot(x, y)
    parts = [svg.text((place[0] + LEFT - 34, place[1] + 24), title, weight=700)]
    parts += plot.frame("Extra multiply-accumulates, units included (%)", "Accuracy (%)")
    bare = next(row for row in rows if row["way"] == "none")
    for share, dash in ((bare["clean"], "2 4"), (bare["faults"][index]["mean"], "6 4")):
        parts.append(svg.line((x.start, y(100 * share)), (x.end, y(100 * share)), dash=dash, opacity=0.7))
    for way, colour in colours.items():
        drawn = sorted((row for row in rows if row["way"] == way), key=_extra)
        parts += _curve(plot, [bare, *drawn], index, way, colour)
    return "\n".join(parts)


def _curve(plot: Plot, rows: Sequence[Row], index: int, way: str, colour: str) -> list[str]:
    points = [plot.at(100 * _extra(row), 100 * row["faults"][index]["mean"]) for row in rows]
    parts = [svg.polyline(points, colour=colour, width=1.8)]
    for row, at in zip(rows[1:], points[1:], strict=True):
        one = row["faults"][index]
        low, high = (plot.at(100 * _extra(row), 100 * min(max(one[end], 0.0), 1.0)) for end in ("low", "high"))
        words = (
            f"{way}, budget {row['budget']}: {100 * one['mean']:.1f} % ({100 * one['low']:.1f} to "
            f"{100 * one['high']:.1f}), {100 * _extra(row):.0f} % extra work"
        )
        parts.append(
            svg.hover(words, svg.line(low, high, colour=colour, opacity=0.5), svg.circle(at, 3, colour=colour))
        )
    return parts


def _extra(row: Row) -> float:
    return float(row["overhead"]["work"])
