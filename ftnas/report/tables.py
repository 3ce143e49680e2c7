"""The comparison as CSV and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftnas.campaign import CONFIDENCE
from ftnas.files import csv_text
from ftnas.report import wording
from ftnas.report.results import Comparison, Result
from ftnas.report.verdict import OUTCOMES, outcome, random_mean

AnyRow = Result | Mapping[str, Any]  # as an object or as in result.json
Cells = Sequence[str]

COLUMNS = (
    "name", "label", "family", "training", "size", "clean", "fault", "rate", "mean", "low", "high",
    "chips", "macs", "flops", "parameters", "weight_bits", "seed", "key", "failure",
)  # fmt: skip


def comparison_csv(rows: Sequence[AnyRow]) -> str:
    """Return one line a network and rate, with every digit: the long form that other tools read."""
    return csv_text(COLUMNS, (line for row in rows for line in _long(Result.model_validate(row))))


def _long(row: Result) -> list[list[object]]:
    whole = row.model_dump(exclude={"rates"})
    lines = []
    for score in row.rates:
        values = {**whole, **score.model_dump(), "chips": len(score.chips)}
        lines.append(["" if values[column] is None else values[column] for column in COLUMNS])
    return lines


def table_rows(comparison: Comparison) -> tuple[Result, ...]:
    """Return the rows in reading order: winner, hand-made, mean random cell, baselines, each random cell."""
    winner, mean = comparison.winner, random_mean(comparison)
    searched = [row for row in comparison.family("winner", "finalist") if row is not winner]
    first = [row for row in (winner, *searched, *comparison.family("hand"), mean) if row is not None]
    random = comparison.family("random")
    return (*first, *comparison.family("baseline"), *(row for row in random if row is not mean))


def rates_of(comparison: Comparison) -> tuple[float, ...]:
    """Return every rate that some row was measured at, in rising order."""
    return tuple(sorted({score.rate for row in comparison.rows for score in row.rates}))


def comparison_markdown(rows: Sequence[AnyRow], *, rate: float | None = None) -> str:
    """Return the comparison as a Markdown table: percent with intervals, one line a network.

    ``rate`` is the one at which wins are called; without it no column says who wins.
    """
    results = tuple(Result.model_validate(row) for row in rows)
    fault = results[0].fault if results else ""
    comparison = Comparison(fault=fault, rate=rate or 0.0, chips=0, confidence=CONFIDENCE, rows=results)
    rates = rates_of(comparison)
    head = ["network", "training", "clean", *(f"at {wording.rate(value)}" for value in rates)]
    head += ["MFLOPs", "parameters", "weight bits", "intervals over"]
    head += [] if rate is None else [f"the winner at {wording.rate(rate)} is"]
    lines = [_markdown_row(row, rates, comparison)[: len(head)] for row in table_rows(comparison)]
    return markdown_table(head, lines, words=("network", "training", "intervals over", head[-1] if rate else ""))


def markdown_table(head: Cells, rows: Sequence[Cells], *, words: Cells = ()) -> str:
    """Return a Markdown table; the columns of ``words``, or else the first, are set left, all others right."""
    left = set(words or head[:1])
    rule = ["---" if name in left else "---:" for name in head]
    return "\n".join(_line(cells) for cells in (head, rule, *rows)) + "\n"


def _markdown_row(row: Result, rates: Sequence[float], comparison: Comparison) -> list[str]:
    scores = [row.at(rate) for rate in rates]
    faulty = ["" if score is None else wording.score(score) for score in scores]
    cost = [wording.megaflops(row.flops), f"{row.parameters:,}", f"{row.weight_bits:,}", count(row)]
    training = f"{row.training}, {row.failure}" if row.failure else row.training
    return [row.title, training, wording.percent(row.clean), *faulty, *cost, against(row, comparison)]


def count(row: Result) -> str:
    """Return over how many chips, or for a mean over how many nets, the intervals of ``row`` are."""
    return f"{row.chips} nets" if row.name.endswith("-mean") else f"{row.chips} chips"


def against(row: Result, comparison: Comparison) -> str:
    """Return how the winner does against ``row``, in words; empty for the winner itself."""
    winner = comparison.winner
    if winner is None or row.name == winner.name:
        return ""
    return OUTCOMES[outcome(winner.at(comparison.rate), row.at(comparison.rate))]


def _line(cells: Cells) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
