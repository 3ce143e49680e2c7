"""Table and figure of an experiment: a grid of trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftnas.files import csv_text
from ftnas.report import svg, wording
from ftnas.report.axes import Plot, Scale, spread_percent, spread_ratio
from ftnas.report.palette import SEQUENCE, in_sequence

Results = Mapping[str, Any]
Row = Mapping[str, Any]

PANEL = (330.0, 280.0)
LEFT, TOP, RIGHT, BOTTOM = 52.0, 62.0, 12.0, 46.0
LEGEND_LINE = 20.0
DASHES = ("", "6 4", "2 4")


def grid_csv(results: Results, *, single: Sequence[str] = ("clean", "zeros", "sharpness"), rate: str = "rate") -> str:
    """Return one line for each combination, fault and rate: mean over seeds, interval, and each seed's mean.

    Args:
        results: of the experiment.
        single: keys of the numbers that a row has but once.
        rate: what the rate of these faults is called.
    """
    axes = list(results["axes"])
    seeds = [f"seed_{seed}" for seed in results["seeds"]]
    lines = [
        [*(row["options"][axis] for axis in axes), *(row[key] for key in single),
         *(found[key] for key in ("fault", "rate", "mean", "low", "high")), *found["seeds"]]
        for row in results["rows"]
        for found in row["faults"]
    ]  # fmt: skip
    return csv_text([*axes, *single, "fault", rate, "accuracy", "low", "high", *seeds], lines)


def grid_markdown(results: Results) -> str:
    """Return one line for each combination, with a column for each fault and rate."""
    axes = list(results["axes"])
    columns = [f"{fault['fault']} {wording.rate(fault['rate'])}" for fault in results["rows"][0]["faults"]]
    heads = [*axes, "clean", "zeros", "sharpness", *columns]
    lines = [heads, ["---"] * len(axes) + ["---:"] * (len(heads) - len(axes))]
    for row in results["rows"]:
        first = [*(row["options"][axis] for axis in axes)]
        single = [f"{100 * row['clean']:.1f}", f"{100 * row['zeros']:.0f} %", f"{row['sharpness']:.2f}"]
        scores = [wording.plus_minus(found["mean"], found["low"], found["high"]) for found in row["faults"]]
        lines.append([*first, *single, *scores])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    seeds, chips = len(results["seeds"]), results["chips"]
    words = f"Accuracy in %, mean of {seeds} trainings on the same {chips} chips"
    return f"{body}\n\n{words}; {100 * results['confidence']:g} % interval over trainings.\n"


def grid_figure(results: Results) -> str:
    """Draw accuracy against rate: a panel for each fault and option of the first axis, a curve for each of the rest.

    Of a single axis each option is a curve.

    Of the other axes the last has a colour for each option, those before it a dash.
    """
    axes = list(results["axes"])
    faults = list(dict.fromkeys(found["fault"] for found in results["rows"][0]["faults"]))
    options = list(results["axes"][axes[0]]) if len(axes) > 1 else [None]
    curves = list(dict.fromkeys(_curve(row, axes) for row in results["rows"]))
    colours = in_sequence(list(dict.fromkeys(curve[-1] for curve in curves)))
    dashes = _dashes(curves)
    y = _shares(results)
    parts = []
    for line, option in enumerate(options):
        for column, fault in enumerate(faults):
            rows = [row for row in results["rows"] if option in (None, row["options"][axes[0]])]
            place = (column * PANEL[0], line * PANEL[1])
            title = f"{axes[0]} {option}: {fault}" if len(axes) > 1 else fault
            parts.append(_panel(rows, fault, title, place, axes, y, colours, dashes))
    below = len(options) * PANEL[1] + 24
    parts += _legend(curves, colours, dashes, below)
    width = max(len(faults) * PANEL[0], 40 + max(svg.text_width(_title(curve)) for curve in curves)) + 12
    return svg.document(width, below + len(curves) * LEGEND_LINE + 6, str(results["name"]), parts)


def _curve(row: Row, axes: Sequence[str]) -> tuple[str, ...]:
    """Return the options that tell the curve of ``row``: all but the first, which has a panel."""
    return tuple(row["options"][axis] for axis in (axes[1:] or axes))


def _dashes(curves: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Return a dash for each curve: one for all that share their colour's axis, and another where colours run out."""
    groups = list(dict.fromkeys(curve[:-1] for curve in curves))
    names = list(dict.fromkeys(curve[-1] for curve in curves))
    places = {curve: groups.index(curve[:-1]) + names.index(curve[-1]) // len(SEQUENCE) for curve in curves}
    return {curve: DASHES[place % len(DASHES)] for curve, place in places.items()}


def _shares(results: Results) -> tuple[float, float]:
    found = [end for row in results["rows"] for fault in row["faults"] for end in (fault["low"], fault["high"])]
    return spread_percent([*found, *(row["clean"] for row in results["rows"])])


def _panel(
    rows: Sequence[Row],
    fault: str,
    title: str,
    place: svg.Point,
    axes: Sequence[str],
    y: tuple[float, float],
    colours: Mapping[str, str],
    dashes: Mapping[tuple[str, ...], str],
) -> str:
    of_fault = [(row, [found for found in row["faults"] if found["fault"] == fault]) for row in rows]
    rates = [found["rate"] for found in of_fault[0][1]]
    x = Scale(*spread_ratio(rates, margin=0.08), place[0] + LEFT, place[0] + PANEL[0] - RIGHT, log=True)
    plot = Plot(x, Scale(*y, place[1] + PANEL[1] - BOTTOM, place[1] + TOP))
    parts = [svg.text((place[0] + LEFT - 34, place[1] + 24), title, weight=700)]
    parts += plot.frame("Fault rate (log scale)", "Accuracy (%)", x_ticks=rates, x_name=wording.rate)
    for row, found in of_fault:
        curve = _curve(row, axes)
        parts += _line(plot, found, colours[curve[-1]], dashes[curve], _title(curve))
    return "\n".join(parts)


def _line(plot: Plot, found: Sequence[Row], colour: str, dash: str, title: str) -> list[str]:
    points = [plot.at(one["rate"], 100 * one["mean"]) for one in found]
    parts = [svg.polyline(points, colour=colour, width=1.8, dash=dash)]
    for at, one in zip(points, found, strict=True):
        ends = [plot.at(one["rate"], 100 * min(max(one[end], 0.0), 1.0)) for end in ("low", "high")]
        score = wording.plus_minus(one["mean"], one["low"], one["high"])
        words = f"{title}\nrate {wording.rate(one['rate'])}: {score} %, {len(one['seeds'])} trainings"
        whisker = svg.line(ends[0], ends[1], colour=colour, opacity=0.5)
        parts.append(svg.hover(words, whisker, svg.circle(at, 3, colour=colour)))
    return parts


def _legend(
    curves: Sequence[tuple[str, ...]],
    colours: Mapping[str, str],
    dashes: Mapping[tuple[str, ...], str],
    top: float,
) -> list[str]:
    parts = []
    for index, curve in enumerate(curves):
        y = top + index * LEGEND_LINE
        parts.append(svg.polyline([(18, y), (46, y)], colour=colours[curve[-1]], width=2.2, dash=dashes[curve]))
        parts.append(svg.text((54, y + 4), _title(curve)))
    return parts


def _title(curve: tuple[str, ...]) -> str:
    return ", ".join(curve)
