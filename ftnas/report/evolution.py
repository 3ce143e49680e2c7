"""The report of an evolution: its front, how it went, the winner, from the plain data of ``results.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftnas.report import svg, wording
from ftnas.report.axes import HEIGHT, WIDTH, Plot, Scale, spread, spread_percent
from ftnas.report.figures import Figure, by_section
from ftnas.report.labels import legend
from ftnas.report.page import render

Row = Mapping[str, Any]

FRONT_CAPTION = (
    "The front of accuracy, faulty accuracy and size. Discs: test samples on faulty chips, with 95 % intervals over "
    "chips; rings: test samples without faults. The star is the winner."
)
HISTORY_CAPTION = (
    "The fittest net of each generation on training samples, without faults and on that generation's chips, and its "
    "size in synapses and hidden neurons."
)


def front_figure(nets: Sequence[Row], winner: str) -> str:
    """Draw accuracy against size: each net's without faults and at its first fault, the winner as a star."""
    items, above = legend(_front_legend(), left=12, right=WIDTH)
    sizes = [net["size"] for net in nets]
    shares = [value for net in nets for value in (net["test"], net["faults"][0]["low"], net["faults"][0]["high"])]
    x = Scale(*spread(sizes, least=4), 46, WIDTH - 16)
    plot = Plot(x, Scale(*spread_percent(shares), HEIGHT - 50, above + 28))
    parts = [*items, *plot.frame("Size (synapses and hidden neurons)", "Accuracy on test samples (%)")]
    best = [plot.at(size, 100 * value) for size, value in _best_so_far(nets)]
    parts.append(svg.polyline([*best, (plot.x.end, best[-1][1])], colour=svg.FRONT, width=1.8, opacity=0.6))
    parts += [_net(plot, net, is_winner=net["key"] == winner) for net in nets]
    return svg.document(WIDTH, HEIGHT, "Front of size and accuracy", parts)


def _best_so_far(nets: Sequence[Row]) -> Iterator[tuple[float, float]]:
    """Yield the corners of what can be had at a size: the best faulty accuracy of all nets that are no larger."""
    best: float | None = None
    for net in sorted(nets, key=lambda net: (net["size"], -net["faults"][0]["mean"])):
        value = net["faults"][0]["mean"]
        if best is None or value > best:
            if best is not None:
                yield net["size"], best
            yield net["size"], value
            best = value


def _net(plot: Plot, net: Row, *, is_winner: bool) -> str:
    fault = net["faults"][0]
    at = plot.at(net["size"], 100 * fault["mean"])
    ends = [plot.at(net["size"], 100 * fault[end]) for end in ("low", "high")]
    words = (
        f"{net['key']}: {net['synapses']} synapses, {net['hidden']} hidden neurons\n{fault['fault']}: "
        f"{wording.percent(fault['mean'])}, without faults {wording.percent(net['test'])} (test samples)"
    )
    colour = svg.WINNER if is_winner else svg.FRONT
    mark = svg.marker(at, svg.STAR, colour=colour) if is_winner else svg.circle(at, 4.6, colour=colour)
    ring = svg.circle(plot.at(net["size"], 100 * net["test"]), 4.2, colour=svg.INK, hollow=True)
    return svg.hover(words, svg.line(ends[0], ends[1], colour=colour, width=1.3), ring, mark)


def _front_legend() -> list[tuple[str, str]]:
    zero = (0.0, 0.0)
    return [
        (svg.circle(zero, 4.6, colour=svg.FRONT), "on faulty chips"),
        (svg.circle(zero, 4.2, colour=svg.INK, hollow=True), "without faults"),
        (svg.marker(zero, svg.STAR, colour=svg.WINNER), "winner"),
    ]


def history_figure(history: Sequence[Row]) -> str:
    """Draw accuracy, faulty accuracy and, below, the size of the fittest net by generation."""
    items, above = legend(_history_legend(), left=12, right=WIDTH)
    x = Scale(*spread([line["generation"] for line in history], least=2, margin=0.01), 46, WIDTH - 16)
    shares = [line[key] for line in history for key in ("clean", "faulty")]
    upper = Plot(x, Scale(*spread_percent(shares), 300, above + 28))
    low, high = spread([line["size"] for line in history], least=4)
    lower = Plot(x, Scale(max(low, -0.5), high, HEIGHT + 30, 370))
    parts = [*items, *upper.frame("", "Accuracy (%)"), *lower.frame("Generation", "Size")]
    for plot, key, factor, colour in (
        (upper, "clean", 100, svg.INK), (upper, "faulty", 100, svg.FRONT), (lower, "size", 1, svg.HAND),
    ):  # fmt: skip
        points = [plot.at(line["generation"], factor * line[key]) for line in history]
        parts.append(svg.polyline(points, colour=colour, width=1.8))
    return svg.document(WIDTH, HEIGHT + 80, "The fittest net by generation", parts)


def _history_legend() -> list[tuple[str, str]]:
    names = {"without faults": svg.INK, "on faulty chips": svg.FRONT, "size": svg.HAND}
    return [(svg.line((-8, 0), (8, 0), colour=colour, width=2.4), words) for words, colour in names.items()]


def evolution_figures(results: Row, graph: str, raster: str) -> tuple[Figure, ...]:
    """Return the figures of an evolution; ``graph`` and ``raster`` are of its winner."""
    return (
        Figure("front", "front", FRONT_CAPTION, front_figure(results["nets"], results["winner"])),
        Figure("network", "winner", "The winner: blue synapses excite, red ones inhibit.", graph),
        Figure("raster", "winner", "What its neurons fire for the first test sample.", raster),
        Figure("history", "history", HISTORY_CAPTION, history_figure(results["history"])),
    )


def evolution_page(
    results: Row, figures: Sequence[Figure], columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> str:
    """Return the page of an evolution."""
    return render(
        "evolution_page.html.jinja",
        title=results["name"],
        results=results,
        figures=by_section(figures),
        columns=columns,
        rows=rows,
    )
