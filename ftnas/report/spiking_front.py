"""The front of a search for layered spiking nets: accuracy under faults against spikes, with synapses as size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ftnas.report import svg, wording
from ftnas.report.axes import HEIGHT, WIDTH, Plot, Scale, spread_percent, spread_ratio
from ftnas.report.labels import Label, beside, legend

Row = Mapping[str, Any]
SMALLEST, LARGEST = 3.0, 9.0  # radius of a mark: its area grows with the synapses


def spiking_front_figure(rows: Sequence[Row], results: Row) -> str:
    """Draw all candidates, those on the front, and the finalists with their intervals on the test images.

    Args:
        rows: candidates with ``name``, ``clean``, ``faulty``, ``synapses`` and ``spikes``.
        results: with ``front``, names, and ``nets``, rows whose ``faulty`` has ``mean``, ``low`` and ``high``.
    """
    nets = results["nets"]
    items, above = legend(_legend(), left=12, right=WIDTH)
    spikes = [max(row["spikes"], 0.1) for row in (*rows, *nets)]
    shares = [*(row["faulty"] for row in rows), *(net["faulty"][end] for net in nets for end in ("low", "high"))]
    x = Scale(*spread_ratio(spikes), 46, WIDTH - 16, log=True)
    plot = Plot(x, Scale(*spread_percent(shares), HEIGHT - 50, above + 28))
    largest = max(row["synapses"] for row in rows)
    parts = [*items, *plot.frame("Spikes per image (log scale)", "Accuracy under faults (%)")]
    for row in sorted(rows, key=lambda row: row["name"] in results["front"]):
        parts.append(_candidate(plot, row, on_front=row["name"] in results["front"], largest=largest))
    parts += [_finalist(plot, net) for net in nets]
    labels = [Label(_place(plot, net), net["name"], svg.WINNER, 600) for net in nets]
    parts += beside(labels, (plot.x.start, plot.y.end - 4, WIDTH, plot.y.start), avoid=[])
    return svg.document(WIDTH, HEIGHT, "Front of spiking nets", parts)


def _candidate(plot: Plot, row: Row, *, on_front: bool, largest: int) -> str:
    at = plot.at(max(row["spikes"], 0.1), 100 * row["faulty"])
    radius = SMALLEST + (LARGEST - SMALLEST) * math.sqrt(row["synapses"] / largest)
    words = (
        f"{row['name']}: faulty {wording.percent(row['faulty'])}, clean {wording.percent(row['clean'])}\n"
        f"{row['synapses']:,} synapses, {row['spikes']:.0f} spikes an image"
    )
    if on_front:
        return svg.hover(words, svg.circle(at, radius, colour=svg.FRONT, opacity=0.8))
    return svg.hover(words, svg.circle(at, radius, colour=svg.FAINT, opacity=0.45))


def _finalist(plot: Plot, net: Row) -> str:
    found = net["faulty"]
    ends = [plot.at(max(net["spikes"], 0.1), 100 * found[end]) for end in ("low", "high")]
    words = f"{net['name']}, trained in full: {100 * found['mean']:.1f} % on {len(found['chips'])} chips"
    mark = svg.marker(_place(plot, net), svg.STAR, colour=svg.WINNER)
    return svg.hover(words, svg.line(ends[0], ends[1], colour=svg.WINNER, width=1.4), mark)


def _place(plot: Plot, net: Row) -> svg.Point:
    return plot.at(max(net["spikes"], 0.1), 100 * net["faulty"]["mean"])


def _legend() -> list[tuple[str, str]]:
    zero = (0.0, 0.0)
    return [
        (svg.circle(zero, 3.4, colour=svg.FAINT, opacity=0.7), "candidate"),
        (svg.circle(zero, 4.6, colour=svg.FRONT), "on the front (area: synapses)"),
        (svg.marker(zero, svg.STAR, colour=svg.WINNER), "trained in full, on test images"),
    ]
