"""One colour a network, the same in every figure."""

from __future__ import annotations

from collections.abc import Sequence

from ftnas.report import svg
from ftnas.report.results import Comparison, Result
from ftnas.report.verdict import opponents

FAMILIES = {
    "winner": svg.WINNER,
    "finalist": svg.FRONT,
    "hand": svg.HAND,
    "random": svg.RANDOM,
    "baseline": svg.BASELINES[1],
    "own": svg.FRONT,
}
# For things side by side of which none is special: neighbours are as unlike as can be.
SEQUENCE = (svg.WINNER, svg.FRONT, "#2a9d7f", "#9268d0", svg.HAND, "#c2569a", "#1795b0", "#6b8e23", "#a9744f")


def colours(comparison: Comparison) -> dict[str, str]:
    """Return a colour by row name. All trainings of one baseline network share theirs."""
    rows = [*comparison.rows, *opponents(comparison)]
    networks = sorted({network(row) for row in rows if row.family == "baseline"})
    order = {name: svg.BASELINES[i % len(svg.BASELINES)] for i, name in enumerate(networks)}
    return {row.name: FAMILIES[row.family] if row.family != "baseline" else order[network(row)] for row in rows}


def network(row: Result) -> str:
    """Return the network's name without its width, which sets one training of it apart from another."""
    return row.label.split(" x ")[0]


def in_sequence(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each of ``names``, in their order."""
    return {name: SEQUENCE[number % len(SEQUENCE)] for number, name in enumerate(names)}
