"""The report: one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ftnas.files import write_text
from ftnas.report import wording
from ftnas.report.drawing import genotype_svg
from ftnas.report.figures import Figure, figures, write_figures
from ftnas.report.record import RunRecord, read_run
from ftnas.report.results import Comparison, Correlation, RateScore, Result
from ftnas.report.tables import against, count, rates_of, table_rows
from ftnas.report.verdict import RULE, headline, outcome, tally
from ftnas.space import Genotype

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class Tile:
    """One large number of the headline."""

    value: str
    words: str


@dataclass(frozen=True)
class TableRow:
    """One network of the comparison table; ``scores`` are (mean, interval) at each rate, in words."""

    result: Result
    scores: tuple[tuple[str, str], ...]
    count: str
    outcome: str
    against: str


def write_report(run: Path) -> Path:
    """Write ``report.html`` and ``figures/*.svg`` into the run folder and return the report's path.

    A run that is not finished gives a report of what is there, which says what is missing.

    Raises:
        RunError: ``run`` is no run folder, or one of its files is corrupt.
    """
    record = read_run(run)
    found = figures(record)
    page = render(record, found)
    write_figures(found, run / "figures")
    write_text(run / "report.html", page)
    return run / "report.html"


def render(record: RunRecord, found: tuple[Figure, ...]) -> str:
    """Return the report as HTML text."""
    templates = Environment(
        loader=PackageLoader("ftnas.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(kibibytes=wording.kibibytes, megaflops=wording.megaflops)
    comparison = record.comparison
    return templates.get_template("page.html.jinja").render(
        record=record,
        sentences=_sentences(record),
        tiles=_tiles(record),
        facts=_facts(record),
        config=yaml.safe_dump(dict(record.config), sort_keys=False, allow_unicode=True),
        figures=_by_section(found),
        cells=_cells(record),
        rule=RULE.format(confidence=100 * comparison.confidence) if comparison else "",
        rates=[(rate, wording.rate(rate)) for rate in rates_of(comparison)] if comparison else [],
        rows=_rows(comparison) if comparison else [],
        correlations=_correlations(record),
        gain=_gain(record),
    )


def _by_section(found: tuple[Figure, ...]) -> dict[str, list[dict[str, Any]]]:
    sections: dict[str, list[dict[str, Any]]] = {}
    for figure in found:
        inline = {"name": figure.name, "caption": figure.caption, "svg": Markup(figure.svg)}
        sections.setdefault(figure.section, []).append(inline)
    return sections


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
        ("Data", _short(record.config.get("data", "not named in the configuration"))),
        ("Search space", ": ".join(str(space[key]) for key in ("name", "description") if space.get(key))),
        ("Versions", f"ftnas {e.ftnas}, Python {e.python}, torch {e.torch}, optuna {e.optuna}, numpy {e.numpy}"),
        ("Machine", f"{e.platform}, {e.cores or 'unknown'} cores, {e.threads} used by each process"),
        ("Candidates", _counts(record)),
        ("Training time", _times(record)),
    ]
    return [fact for fact in facts if fact[1]]


def _counts(record: RunRecord) -> str:
    scored, front, leaders = len(record.candidates), len(record.front), len(record.leaders)
    return f"{scored} scored, {front} on the front, {leaders} scored again on fresh chips"


def _short(value: Any) -> str:
    """Return a section of the configuration on one line."""
    if isinstance(value, Mapping) and set(value) - {"name"} and value.get("name"):
        rest = _short({key: part for key, part in value.items() if key != "name"})
        return f"{value['name']}, {rest}" if rest else str(value["name"])
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(part)}" for key, part in value.items() if part is not None)
    return str(value)


def _times(record: RunRecord) -> str:
    supernet = sum(epoch.seconds for epoch in record.supernet)
    final = sum(epoch.seconds for training in record.trainings for epoch in training.history)
    parts = [f"{wording.duration(supernet)} supernet"] * bool(supernet)
    parts += [f"{wording.duration(final)} for {len(record.trainings)} networks from scratch"] * bool(final)
    return wording.listing(parts) if parts else "nothing trained yet"


def _cells(record: RunRecord) -> dict[str, Any] | None:
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
    rows = []
    for row in table_rows(comparison):
        found = [row.at(rate) for rate in rates_of(comparison)]
        scores = tuple(_score(score) for score in found)
        called = "self" if row is winner else outcome(ours, row.at(comparison.rate))
        rows.append(TableRow(row, scores, count(row), called, against(row, comparison)))
    return rows


def _score(score: RateScore | None) -> tuple[str, str]:
    if score is None:
        return "", ""
    return f"{100 * score.mean:.1f}", wording.interval(score.low, score.high).removesuffix(" %")


def _correlations(record: RunRecord) -> list[tuple[str, Correlation]]:
    ranking = record.ranking
    if ranking is None:
        return []
    named = {
        "score under faults": ranking.tau_faulty,
        "score without faults": ranking.tau_clean,
        "FLOPs alone": ranking.tau_flops,
        "parameters alone": ranking.tau_parameters,
    }
    return [(name, tau) for name, tau in named.items() if tau is not None]


def _gain(record: RunRecord) -> str:
    gain = record.ranking.gain_over_random if record.ranking else None
    if gain is None:
        return ""
    points = f"{100 * gain.mean:+.1f} points (95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
    if gain.low > 0:
        told = "more than chance explains"
    else:
        told = "less than random cells reach" if gain.high < 0 else "no more than chance explains"
    return f"Against {gain.n} random cells of the same space the search gains {points} under faults: {told}."
