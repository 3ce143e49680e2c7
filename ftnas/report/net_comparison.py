"""The report of a comparison of nets: what `comparison.json` says of them, as one page, figures and tables.

The file is that of a run (see ``results.Comparison``) with a little more. At the top level:

* ``fault``: the faults without their rates, joined by `` + ``; ``rate``: the rate at which wins are called;
  ``chips`` and ``confidence`` as in a run; ``test_images``: how many; ``data``: the data set's name;
* ``rows``: the nets, the first the one that the others are held against. Each is a ``results.Result`` (``name``,
  unique; ``label``; ``family``; ``training``; ``size``; costs; ``seed``, or null where there is none; ``clean``;
  ``fault``; ``rates`` of ``{"rate", "mean", "low", "high", "chips": [...]}``) and has ``origin``, one line on how it
  came to its weights. ``family`` of a net that the user gave is ``own``, of a run's winner ``winner``, of a baseline
  ``baseline``; ``training`` is ``fault-tolerant``, ``plain`` or ``given`` (taken as it was). Every row but the first
  may have ``differences``: at each rate ``{"rate", "mean", "low", "high"}`` of its accuracy minus the first net's on
  the same chips, as shares.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ftnas.errors import RunError
from ftnas.files import write_text
from ftnas.report import wording
from ftnas.report.axes import HEIGHT, WIDTH
from ftnas.report.curves import Curve, curves_figure
from ftnas.report.figures import Figure, by_section, write_figures
from ftnas.report.page import render
from ftnas.report.palette import in_sequence
from ftnas.report.record import read_comparison
from ftnas.report.results import Comparison, Difference, Result
from ftnas.report.run_view import scores_of
from ftnas.report.tables import rates_of
from ftnas.report.verdict import OUTCOMES, Outcome, outcome

FILE = "comparison.json"
RULE = (
    "A net is better or worse than {first} only if their {confidence:.0f} % intervals of accuracy at rate {rate} do "
    "not overlap; intervals that overlap are called level. The interval is over chips: one chip is one draw of faults, "
    "the same for all nets, so the difference to {first} is taken chip by chip and has an interval of its own."
)
TRAININGS = {"fault-tolerant": "trained with faults", "plain": "trained plainly", "given": "taken as it is"}


# How the first net does against those that do so against it.
VERBS: dict[Outcome, str] = {"behind": "beats", "level": "is level with", "beats": "is beaten by"}


def write_comparison_report(folder: Path) -> Path:
    """Write ``report.html`` and ``figures/`` into ``folder`` from its ``comparison.json``.

    Args:
        folder: of a comparison of nets.

    Returns:
        The page's path.

    Raises:
        RunError: the file is missing or is no comparison; the message names the place.
    """
    comparison = read_comparison(folder / FILE)
    if not comparison.rows:
        raise RunError(f"{folder / FILE}: rows: is empty; a comparison has at least one net")
    figures = _figures(comparison)
    page = render(
        "comparison_page.html.jinja",
        title=folder.resolve().name,
        comparison=comparison,
        sentence=verdict_sentence(comparison),
        rule=rule_of(comparison),
        rates=[(rate, wording.rate(rate)) for rate in rates_of(comparison)],
        rows=_rows(comparison),
        figures=by_section(figures),
    )
    write_figures(figures, folder / "figures")
    write_text(folder / "report.html", page)
    return folder / "report.html"


def rule_of(comparison: Comparison) -> str:
    """Return the rule by which the first net is said to win, in words."""
    named = {"first": comparison.rows[0].title, "rate": wording.rate(comparison.rate)}
    return RULE.format(confidence=100 * comparison.confidence, **named)


def against_first(comparison: Comparison, row: Result) -> Outcome | None:
    """Return how ``row`` does against the first net; ``None`` for that itself."""
    first = comparison.rows[0]
    return None if row is first else outcome(row.at(comparison.rate), first.at(comparison.rate))


def verdict_sentence(comparison: Comparison) -> str:
    """Return one sentence: what the first net keeps under faults, and which others it beats."""
    first = comparison.rows[0]
    score = first.at(comparison.rate)
    kept = "was not measured" if score is None else f"keeps {wording.score(score)} of the test images right"
    start = f"{first.title} {kept} under {comparison.fault} at rate {wording.rate(comparison.rate)}"
    clauses = []
    for called, verb in VERBS.items():
        names = [row.title for row in comparison.rows if against_first(comparison, row) == called]
        clauses += [f"{verb} {wording.listing(names)}"] if names else []
    return f"{start}; it {wording.listing(clauses)}." if clauses else f"{start}."


def points(found: Difference | None) -> str:
    """Return a difference in points with its interval; empty where there is none."""
    if found is None:
        return ""
    return f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _difference(row: Result, rate: float) -> Difference | None:
    return next((found for found in row.differences if math.isclose(found.rate, rate, rel_tol=1e-6)), None)


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    ink = in_sequence([row.name for row in comparison.rows])
    rows = []
    for row in comparison.rows:
        called, difference = against_first(comparison, row), points(_difference(row, comparison.rate)).partition(" ")
        rows.append(
            {
                "result": row,
                "colour": ink[row.name],
                "scores": scores_of(row, rates_of(comparison)),
                "called": called or "self",
                "words": OUTCOMES[called] if called else "",
                "difference": (difference[0], difference[2].strip("()")),
                "training": TRAININGS.get(row.training, row.training),
            }
        )
    return rows


def _figures(comparison: Comparison) -> list[Figure]:
    ink = in_sequence([row.name for row in comparison.rows])
    first = comparison.rows[0]
    # The first is drawn last, on top of the others.
    curves = [Curve.of(row, ink[row.name], strong=row is first) for row in reversed(comparison.rows)]
    drawn = [curve for curve in curves if curve.scores]
    if not drawn:
        return []
    caption = (
        f"Accuracy of each net under {comparison.fault}, all on the same chips. "
        f"Bands are {100 * comparison.confidence:.0f} % intervals over chips."
    )
    figure = curves_figure(drawn, fault=comparison.fault, trained=None, size=(WIDTH, HEIGHT), name=caption)
    return [Figure("accuracy_against_rate", "curves", caption, figure)]
