"""Figures of a campaign: accuracy against the fault rate, and which bits of which layers matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftnas.report import svg, wording
from ftnas.report.axes import Plot, Scale, spread_percent, spread_ratio

Row = Mapping[str, Any]

WIDTH, HEIGHT = 720.0, 440.0
LEFT, CLEAN, RIGHT = 56.0, 64.0, 24.0  # the strip of width CLEAN shows the accuracy without faults

CELL = (58.0, 22.0)
TOP, GAP = 74.0, 16.0
STRONG, STRONG_INK = 0.55, "#ffffff"  # on a stronger colour than this, grey could not be read
LIGHTEST = 0.04  # opacity of a bit that changes nothing, so that it differs from one not measured


def accuracy_figure(rows: Sequence[Row], *, clean: float, title: str, strength: str = "Fault rate") -> str:
    """Draw the accuracy at each rate, its band the interval over chips, its thin lines from worst to best chip.

    Args:
        rows: from ``campaign.rows``; a rate of 0 is left out, as the axis is logarithmic.
        clean: the accuracy without faults.
        title: what a screen reader says, and the heading.
        strength: what the axis shows.
    """
    drawn = sorted((row for row in rows if row["rate"] > 0), key=lambda row: float(row["rate"]))
    ends = [row[name] for row in drawn for name in ("accuracy_lowest", "accuracy_highest", "accuracy_low")]
    x = Scale(
        *spread_ratio([row["rate"] for row in drawn] or [1.0], margin=0.06), LEFT + CLEAN, WIDTH - RIGHT, log=True
    )
    plot = Plot(x, Scale(*spread_percent([*ends, clean]), HEIGHT - 52, 80))
    ticks = [row["rate"] for row in drawn]
    chips = max([row["chips"] for row in drawn], default=0)
    words = f"Mean of {chips} chips, band: the interval of the mean, thin lines: from the worst chip to the best"
    parts = [svg.text((LEFT - 34, 22), title, weight=700, size=14), svg.text((LEFT - 34, 42), words)]
    parts += plot.frame(f"{strength} (log scale)", "Accuracy (%)", x_ticks=ticks, x_name=wording.rate, left=LEFT)
    parts += [*_clean(plot, clean), *_band(plot, drawn), *(_chip_range(plot, row) for row in drawn)]
    points = [plot.at(row["rate"], 100 * row["accuracy"]) for row in drawn]
    parts.append(svg.polyline(points, colour=svg.WINNER, width=2.4))
    parts += [_mark(at, row) for at, row in zip(points, drawn, strict=True)]
    return svg.document(WIDTH, HEIGHT, title, parts)


def heat_map(cells: Sequence[Row], layers: Sequence[Row], *, title: str) -> str:
    """Draw how often a fault in each bit of each layer changes an answer; the colour goes by the square root.

    Args:
        cells: from ``campaign.layer_bit_rows``; an estimate has no interval, and no number of faults.
        layers: from ``campaign.layer_rows``, drawn as a last column.
        title: what a screen reader says, and the heading.
    """
    names = [str(row["site"]) for row in layers]
    bits = max(int(row["bits"]) for row in layers)
    left = 24 + max(svg.text_width(name) for name in names)
    peak = max([row["mean"] or 0.0 for row in (*cells, *layers)], default=0.0) or 1.0
    parts = [svg.text((14, 22), title, weight=700, size=14)]
    parts.append(svg.text((14, 42), "Answers changed by one fault (%), by layer and bit (the highest bit first)"))
    for bit in range(bits):
        parts.append(svg.text((left + (bits - bit - 0.5) * CELL[0], TOP - 8), str(bit), anchor="middle", weight=600))
    parts.append(svg.text((left + GAP + (bits + 0.5) * CELL[0], TOP - 8), "all", anchor="middle", weight=600))
    for line, name in enumerate(names):
        parts.append(svg.text((left - 8, TOP + (line + 0.5) * CELL[1] + 4), name, anchor="end"))
    for row in cells:
        place = (left + (bits - 1 - row["bit"]) * CELL[0], TOP + names.index(str(row["site"])) * CELL[1])
        parts.append(_cell(place, row, f"{row['site']}, bit {row['bit']}", peak))
    for line, row in enumerate(layers):
        parts.append(_cell((left + GAP + bits * CELL[0], TOP + line * CELL[1]), row, str(row["site"]), peak))
    width = max(left + GAP + (bits + 1) * CELL[0] + 14, 28 + 1.08 * svg.text_width(title, 14))
    return svg.document(width, TOP + len(names) * CELL[1] + 14, title, parts)


def _clean(plot: Plot, accuracy: float) -> list[str]:
    """Return the accuracy without faults: a mark at the left, and a dotted line across."""
    x, y = LEFT + CLEAN / 2 - 6, plot.y(100 * accuracy)
    below = plot.y.start
    words = f"no faults: {wording.percent(accuracy)}"
    return [
        svg.line((x, y), (plot.x.end, y), dash="2 4", opacity=0.6),
        svg.hover(words, svg.circle((x, y), 4, colour=svg.INK)),
        svg.line((x, below), (x, below + 4), opacity=0.8),
        svg.text((x, below + 18), "none", anchor="middle"),
        *(svg.line((LEFT + CLEAN + d - 8, below + 5), (LEFT + CLEAN + d - 2, below - 5)) for d in (-2, 3)),
    ]


def _band(plot: Plot, rows: Sequence[Row]) -> list[str]:
    upper = [plot.at(row["rate"], 100 * row["accuracy_high"]) for row in rows]
    lower = [plot.at(row["rate"], 100 * row["accuracy_low"]) for row in reversed(rows)]
    return [svg.polygon([*upper, *lower], colour=svg.WINNER, opacity=0.2)] if len(rows) > 1 else []


def _chip_range(plot: Plot, row: Row) -> str:
    worst, best = (plot.at(row["rate"], 100 * row[f"accuracy_{end}"]) for end in ("lowest", "highest"))
    return svg.line(worst, best, width=1.2, opacity=0.7)


def _mark(at: svg.Point, row: Row) -> str:
    low, high = (wording.percent(row[f"accuracy_{end}"]) for end in ("low", "high"))
    confidence = f"{100 * row['confidence']:.3g} %"
    words = f"rate {wording.rate(row['rate'])}: {wording.percent(row['accuracy'])} ({low} to {high}, {confidence})"
    return svg.hover(f"{words}, {row['chips']} chips", svg.circle(at, 4, colour=svg.WINNER))


def _certainty(row: Row) -> str:
    """Return the interval of a share and what it is from; nothing for an estimate that has none."""
    if "low" not in row:
        return ""
    low, high = (f"{100 * row[end]:.3g}" for end in ("low", "high"))
    return f" ({low} to {high} %), {row['injected']} of {row['size']} faults"


def _cell(place: svg.Point, row: Row, name: str, peak: float) -> str:
    (x, y), (width, height), mean = place, CELL, row["mean"]
    if mean is None:
        return svg.hover(f"{name}: no estimate", svg.text((x + width / 2, y + height / 2 + 4), "–", anchor="middle"))  # noqa: RUF001
    corners = [(x + 1, y + 1), (x + width - 1, y + 1), (x + width - 1, y + height - 1), (x + 1, y + height - 1)]
    strength = LIGHTEST + (0.9 - LIGHTEST) * (mean / peak) ** 0.5
    words = f"{name}: {100 * mean:.3g} %{_certainty(row)}"
    ink = STRONG_INK if strength > STRONG else svg.INK
    middle = (x + width / 2, y + height / 2 + 4)
    number = svg.text(middle, f"{100 * mean:.2g}", anchor="middle", size=11, colour=ink)
    return svg.hover(words, svg.polygon(corners, colour=svg.WINNER, opacity=strength), number)
