"""What a page says of one run: words, numbers and drawings, ready for the template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from ftnas.report import wording
from ftnas.report.drawing import genotype_svg
from ftnas.report.figures import Figure, by_section
from ftnas.report.record import RunRecord
from ftnas.report.results import Comparison, RateScore, Result
from ftnas.report.run_tables import correlations
from ftnas.report.tables import against, count, rates_of, table_rows
from ftnas.report.verdict import RULE, headline, outcome, tally
from ftnas.space import Genotype

Facts = list[tuple[str, str]]

SECTIONS = {
    "run": "What was run",
    "front": "Pareto front",
    "cells": "Cells",
    "curves": "Accuracy against fault rate",
    "comparison": "Comparison",
    "vulnerability": "Vulnerability by layer",
    "ranking": "Ranking quality",
    "training": "Training",
    "search": "Search history",
}


@dataclass(frozen=True)
class Tile:
    """One large number of the headline."""

    value: str
    words: str


@dataclass(frozen=True)
class TableRow:
    """One network of the comparison table.

    Attributes:
        scores: (mean, interval) at each rate, in words.
        single: whether it is one of several random cells, which have a table of their own.
    """

    result: Result
    scores: tuple[tuple[str, str], ...]
    count: str
    outcome: str
    against: str
    single: bool


def run_view(record: RunRecord, found: Iterable[Figure], *, title: str, prefix: str = "") -> dict[str, Any]:
    """Return what the template shows of a run.

    Args:
        record: of the run.
        found: its figures.
        title: what it is called on the page.
        prefix: of the ids of its sections and figures, where several runs share a page.
    """
    comparison, sections = record.comparison, by_section(found)
    shown = [(name, words) for name, words in SECTIONS.items() if name != "vulnerability" or name in sections]
    return {
        "title": title,
        "sections": shown,
        "prefix": prefix,
        "record": record,
        "sentences": _sentences(record),
        "tiles": _tiles(record),
        "facts": _facts(record),
        "config": yaml.safe_dump(dict(record.config), sort_keys=False, allow_unicode=True),
        "figures": sections,
        "cells": cells(record),
        "front": [(row, [] if row.genotype is None else wording.cell_lines(row.genotype)) for row in record.front_rows],
        "rule": RULE.format(confidence=100 * comparison.confidence) if comparison else "",
        "rates": [(rate, wording.rate(rate)) for rate in rates_of(comparison)] if comparison else [],
        "rows": _rows(comparison) if comparison else [],
        "correlations": correlations(record.ranking) if record.ranking else [],
        "gain": gain(record),
    }


def _sentences(record: RunRecord) -> list[str]:
    """Return the report's first words: how the winner does, or that there is none yet."""
    if record.comparison and record.comparison.winner:
        return [headline(record.comparison), tally(record.comparison)]
    if record.winner:
        return [f"The winner is trained and measured, {_best(record.winner)}; it has not been compared yet."]
    return ["This run has no winner yet. What is there so far is shown below."]


def _best(winner: Result) -> str:
    lowest = min(winner.rates, key=lambda score: score.rate)
    return f"{wording.score(lowest)} under {winner.fault} at rate {wording.rate(lowest.rate)}"


def _tiles(record: RunRecord) -> list[Tile]:
    winner, comparison = record.winner, record.comparison
    if winner is None:
        return []
    score = winner.at(comparison.rate) if comparison else None
    under = f"under faults, {wording.interval(score.low, score.high)}" if score else ""
    return [
        *([Tile(wording.percent(score.mean), under)] if score else []),
        Tile(wording.percent(winner.clean), "without faults"),
        Tile(wording.amount(winner.flops), "FLOPs per image"),
        Tile(wording.amount(winner.parameters), f"parameters, {wording.kibibytes(winner.weight_bits)}"),
        Tile(str(winner.chips), "chips measured"),
    ]


def _facts(record: RunRecord) -> Facts:
    """Return what was run, on what, with which versions, and how long it took."""
    e = record.environment
    space = record.space or {}
    facts = [
        ("Command", e.command),
        ("Started", e.started),
        ("Seed", str(e.seed)),
        ("Data", data_of(record)),
        ("Search space", ": ".join(str(space[key]) for key in ("name", "description") if space.get(key))),
        ("Versions", f"ftnas {e.ftnas}, Python {e.python}, torch {e.torch}, optuna {e.optuna}, numpy {e.numpy}"),
        ("Machine", f"{e.platform}, {e.cores or 'unknown'} cores, {e.threads} used by each process"),
        ("Candidates", _counts(record)),
        ("Training time", _times(record)),
    ]
    return [fact for fact in facts if fact[1]]


def data_of(record: RunRecord) -> str:
    """Return the data set and how many of its images were used, but not where they lie."""
    data = record.config.get("data", "not named in the configuration")
    if isinstance(data, Mapping):
        data = {key: part for key, part in data.items() if key != "directory"}
    return _short(data)


def _short(value: Any) -> str:
    """Return a section of the configuration on one line."""
    if isinstance(value, Mapping) and set(value) - {"name"} and value.get("name"):
        rest = _short({key: part for key, part in value.items() if key != "name"})
        return f"{value['name']}, {rest}" if rest else str(value["name"])
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(part)}" for key, part in value.items() if part is not None)
    return str(value)


def _counts(record: RunRecord) -> str:
    scored, front, leaders = len(record.candidates), len(record.front), len(record.leaders)
    return f"{scored} scored, {front} on the front, {leaders} scored again on fresh chips"


def _times(record: RunRecord) -> str:
    supernet = sum(epoch.seconds for epoch in record.supernet)
    final = sum(epoch.seconds for training in record.trainings for epoch in training.history)
    parts = [f"{wording.duration(supernet)} supernet"] * bool(supernet)
    parts += [f"{wording.duration(final)} for {len(record.trainings)} networks from scratch"] * bool(final)
    return wording.listing(parts) if parts else "nothing trained yet"


def cells(record: RunRecord) -> dict[str, Any] | None:
    """Return the winner's drawing and its text; ``None`` if there is no winner yet."""
    genotype = record.winner_genotype
    if genotype is None:
        return None
    parts = [Genotype(genotype.normal), Genotype((), genotype.reduction)]  # one below the other, large enough to read
    drawings = [genotype_svg(part) for part in parts if part.normal or part.reduction]
    return {"key": genotype.key, "drawings": [Markup(d) for d in drawings], "lines": wording.cell_lines(genotype)}


def _rows(comparison: Comparison) -> list[TableRow]:
    winner = comparison.winner
    ours = winner.at(comparison.rate) if winner else None
    random = comparison.family("random")
    rows = []
    for row in table_rows(comparison):
        called = "self" if row is winner else outcome(ours, row.at(comparison.rate))
        scores, single = scores_of(row, rates_of(comparison)), len(random) > 1 and row in random
        rows.append(TableRow(row, scores, count(row), called, against(row, comparison), single))
    return rows


def scores_of(row: Result, rates: Iterable[float]) -> tuple[tuple[str, str], ...]:
    """Return (mean, interval) in words at each of ``rates``, empty where ``row`` was not measured."""
    return tuple(_score(row.at(rate)) for rate in rates)


def _score(score: RateScore | None) -> tuple[str, str]:
    if score is None:
        return "", ""
    return f"{100 * score.mean:.1f}", wording.interval(score.low, score.high).removesuffix(" %")


def gain(record: RunRecord) -> str:
    """Return what the search gained over random cells, and whether that is more than chance."""
    gain = record.ranking.gain_over_random if record.ranking else None
    if gain is None:
        return ""
    points = f"{100 * gain.mean:+.1f} points (95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
    if gain.low > 0:
        told = "more than chance explains"
    else:
        told = "less than random cells reach" if gain.high < 0 else "no more than chance explains"
    return f"Against {gain.n} random cells of the same space the search gains {points} under faults: {told}."
