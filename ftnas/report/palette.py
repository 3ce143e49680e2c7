"""One colour a network, the same in every figure."""

from __future__ import annotations

from ftnas.report import svg
from ftnas.report.results import Comparison, Result
from ftnas.report.verdict import opponents

FAMILIES = {
    "winner": svg.WINNER,
    "finalist": svg.FRONT,
    "hand": svg.HAND,
    "random": svg.RANDOM,
    "baseline": svg.BASELINES[1],
}


def colours(comparison: Comparison) -> dict[str, str]:
    """Return a colour by row name. All trainings of one baseline network share theirs."""
    rows = [*comparison.rows, *opponents(comparison)]
    networks = sorted({network(row) for row in rows if row.family == "baseline"})
    order = {name: svg.BASELINES[i % len(svg.BASELINES)] for i, name in enumerate(networks)}
    return {row.name: FAMILIES[row.family] if row.family != "baseline" else order[network(row)] for row in rows}


def network(row: Result) -> str:
    """Return the network's name without its width, which sets one training of it apart from another."""
    return row.label.split(" x ")[0]
