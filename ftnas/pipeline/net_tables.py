"""A comparison of nets as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from ftnas.report import wording
from ftnas.report.net_comparison import against_first, points, rule_of
from ftnas.report.results import Comparison, Difference, RateScore, Result
from ftnas.report.tables import markdown_table, rates_of
from ftnas.report.verdict import OUTCOMES, outcome

COLUMNS = (
    "name", "label", "family", "training", "size", "origin", "clean", "fault", "rate", "mean", "low", "high", "chips",
    "difference", "difference_low", "difference_high", "verdict", "macs", "flops", "parameters", "weight_bits", "seed",
    "failure",
)  # fmt: skip


def nets_csv(comparison: Comparison) -> str:
    """Return one line a net and rate, with every digit; differences and verdicts are to the first net."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        whole = row.model_dump(exclude={"rates", "differences"})
        for score in row.rates:
            counted = {**score.model_dump(), "chips": len(score.chips)}
            writer.writerow({**whole, **counted, **_to_first(comparison, row, score)})
    return text.getvalue()


def _to_first(comparison: Comparison, row: Result, score: RateScore) -> dict[str, Any]:
    found = difference(row, score.rate)
    if found is None:
        return {}
    ends = {"difference": found.mean, "difference_low": found.low, "difference_high": found.high}
    return {**ends, "verdict": OUTCOMES[outcome(score, comparison.rows[0].at(score.rate))]}


def difference(row: Result, rate: float) -> Difference | None:
    """Return how much more accurate ``row`` is than the first net at ``rate``; ``None`` for that itself."""
    return next((found for found in row.differences if math.isclose(found.rate, rate, rel_tol=1e-6)), None)


def nets_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown table, the rule, and how each net came to its weights."""
    first, rate = comparison.rows[0].title, wording.rate(comparison.rate)
    at_rates = [f"at {wording.rate(value)}" for value in rates_of(comparison)]
    called = f"against {first}"
    head = ["network", "clean", *at_rates, f"minus {first} at {rate}", called, "MFLOPs", "parameters"]
    table = markdown_table(head, [_line(comparison, row) for row in comparison.rows], words=("network", called))
    origins = "\n".join(f"- {row.title}: {row.origin}" for row in comparison.rows)
    return f"{table}\n{measured(comparison)} {rule_of(comparison)}\n\n{origins}\n"


def _line(comparison: Comparison, row: Result) -> list[str]:
    scores = [wording.score(score) for score in row.rates]
    against = [points(difference(row, comparison.rate)), verdict(comparison, row)]
    cost = [wording.megaflops(row.flops), f"{row.parameters:,}"]
    return [row.title, wording.percent(row.clean), *scores, *against, *cost]


def verdict(comparison: Comparison, row: Result) -> str:
    """Return whether ``row`` is better or worse than the first net, in words; empty for that itself."""
    called = against_first(comparison, row)
    return OUTCOMES[called] if called else ""


def measured(comparison: Comparison) -> str:
    """Return what the nets were measured on."""
    images = f"{comparison.test_images} test images of {comparison.data}"
    return f"{comparison.fault} on {comparison.chips} chips, {images}; points are differences chip by chip."
