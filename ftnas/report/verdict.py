"""Who beats whom, by one rule: the 95 % intervals over chips do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ftnas.report import wording
from ftnas.report.results import Comparison, RateScore, Result, mean_of

Outcome = Literal["beats", "level", "behind", "unknown"]

RULE = (
    "One network beats another only if their {confidence:.0f} % intervals of accuracy under faults do not overlap; "
    "intervals that overlap are called level. The interval is over chips (one chip is one draw of faults), "
    "for the mean of the random cells over cells."
)
OUTCOMES: dict[Outcome, str] = {
    "beats": "better",
    "level": "level",
    "behind": "worse",
    "unknown": "not measured",
}


@dataclass(frozen=True)
class Verdict:
    """How the winner does against ``other`` at one rate."""

    other: Result
    outcome: Outcome


def outcome(ours: RateScore | None, theirs: RateScore | None) -> Outcome:
    """Apply the rule."""
    if ours is None or theirs is None:
        return "unknown"
    if ours.low > theirs.high:
        return "beats"
    return "behind" if ours.high < theirs.low else "level"


def random_mean(comparison: Comparison) -> Result | None:
    """Return the mean of the random cells of the winner's space; a single cell stands for itself."""
    cells = comparison.family("random")
    if len(cells) == 1:
        return cells[0]
    failed = sum(cell.failure is not None for cell in cells)
    return mean_of(cells, f"mean of {len(cells)} random cells{f' ({failed} failed in training)' * bool(failed)}")


def opponents(comparison: Comparison) -> tuple[Result, ...]:
    """Return what the winner is held against: the hand-made cell, the mean random cell, the baselines."""
    mean = random_mean(comparison)
    middle = () if mean is None else (mean,)
    return (*comparison.family("hand"), *middle, *comparison.family("baseline"))


def verdicts(comparison: Comparison) -> tuple[Verdict, ...]:
    """Return the winner's verdict against each opponent at the rate trained for."""
    winner = comparison.winner
    ours = None if winner is None else winner.at(comparison.rate)
    return tuple(Verdict(other, outcome(ours, other.at(comparison.rate))) for other in opponents(comparison))


def peers(comparison: Comparison) -> tuple[Result, ...]:
    """Return the fairest opponents: trained with faults and, of the baselines, scaled to the winner's FLOPs.

    Where no baseline was scaled, or none trained with faults, the others stand in for them.
    """
    baselines = comparison.family("baseline")
    tolerant = [row for row in baselines if row.training == "fault-tolerant"] or list(baselines)
    scaled = [row for row in tolerant if row.size == "scaled"] or tolerant
    return tuple(row for row in opponents(comparison) if row.family != "baseline" or row in scaled)


def headline(comparison: Comparison) -> str:
    """Return one sentence: the winner's accuracy under faults, and whom it beats."""
    winner = comparison.winner
    ours = None if winner is None else winner.at(comparison.rate)
    if ours is None:
        return "The comparison holds no winner measured at the rate it was trained for."
    named = {row.name for row in peers(comparison)}
    found = [verdict for verdict in verdicts(comparison) if verdict.other.name in named]
    clauses = [_clause(found, "beats", "beats"), _clause(found, "level", "is level with")]
    clauses = [clause for clause in [*clauses, _clause(found, "behind", "is beaten by")] if clause]
    under = f"under {comparison.fault} at rate {wording.rate(comparison.rate)}"
    kept = f"The winner keeps {wording.score(ours)} of the test images right {under}"
    return f"{kept}; it {wording.listing(clauses)}." if clauses else f"{kept}."


def tally(comparison: Comparison) -> str:
    """Return one sentence that counts every verdict of the table, not only those of the headline."""
    found = verdicts(comparison)
    counts = {name: sum(verdict.outcome == name for verdict in found) for name in OUTCOMES}
    parts = [f"better than {counts['beats']}", f"level with {counts['level']}", f"worse than {counts['behind']}"]
    parts += [f"not comparable with {counts['unknown']}"] * bool(counts["unknown"])
    return f"Of all {len(found)} opponents in the table, the winner is {wording.listing(parts)}."


def _clause(found: Sequence[Verdict], wanted: Outcome, verb: str) -> str:
    names = [_named(verdict.other) for verdict in found if verdict.outcome == wanted]
    return f"{verb} {wording.listing(names)}" if names else ""


def _named(row: Result) -> str:
    if row.name == "random-mean":
        return f"the {row.title}"
    return f"the {row.title} cell" if row.family == "hand" else row.title
