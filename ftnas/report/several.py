"""Several runs side by side: their winners in one table and one figure, their fronts, their cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ftnas.errors import RunError
from ftnas.report import svg, wording
from ftnas.report.axes import HEIGHT, WIDTH, Plot, Scale, spread_percent, spread_ratio
from ftnas.report.curves import SMALL, Curve, curves_figure
from ftnas.report.figures import Figure
from ftnas.report.front import candidate_words, stairs
from ftnas.report.labels import Label, at_ends
from ftnas.report.palette import in_sequence
from ftnas.report.record import RunRecord
from ftnas.report.results import Result
from ftnas.report.run_tables import Table, to_csv
from ftnas.report.run_view import data_of, scores_of
from ftnas.report.tables import markdown_table
from ftnas.report.verdict import outcome

MILLION = 1e6
RULE = (
    "Winners are compared only where they were measured under the same faults on the same images. One beats another "
    "only if their {confidence:.0f} % intervals of accuracy do not overlap, at the strongest rate that all of them "
    "were measured at (the shaded column); intervals that overlap are called level. The interval is over chips."
)
WORDS = {"best": "best", "level": "level with the best", "behind": "worse than the best", "unknown": "not comparable"}


@dataclass(frozen=True)
class Entry:
    """One run on the page; a run without a comparison has no result and stands in no table."""

    title: str
    record: RunRecord
    result: Result | None
    colour: str


@dataclass(frozen=True)
class Group:
    """Runs whose winners may be compared: one data set and one kind of fault.

    Attributes:
        judged: the strongest rate that all winners were measured at; ``None`` if there is none.
    """

    data: str
    fault: str
    entries: tuple[Entry, ...]
    judged: float | None

    @property
    def rates(self) -> tuple[float, ...]:
        """Every rate that some winner was measured at, in rising order."""
        return tuple(sorted({score.rate for _, result in self.results for score in result.rates}))

    @property
    def results(self) -> tuple[tuple[Entry, Result], ...]:
        """The runs that have a winner, and its result."""
        return tuple((entry, entry.result) for entry in self.entries if entry.result is not None)

    @property
    def name(self) -> str:
        """Which words set this group's files apart from another's."""
        return "".join(c if c.isalnum() else "_" for c in f"{self.data}_{self.fault}")


def entries_of(records: Sequence[RunRecord]) -> tuple[Entry, ...]:
    """Return the runs under titles that tell them apart, each with a colour of its own.

    Raises:
        RunError: a run is given twice.
    """
    folders = [record.folder.resolve() for record in records]
    if twice := [folder for folder, count in Counter(folders).items() if count > 1]:
        raise RunError(f"{twice[0]}: is given twice; each run stands in a report once")
    names = Counter(record.name for record in records)
    titles = [record.name if names[record.name] == 1 else str(record.folder) for record in records]
    ink = in_sequence(titles)
    return tuple(Entry(title, record, record.winner, ink[title]) for title, record in zip(titles, records, strict=True))


def groups_of(entries: Sequence[Entry]) -> tuple[Group, ...]:
    """Return the runs with winners in groups that may be compared, in the order of the first run of each."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.result is not None:
            found.setdefault((data_of(entry.record), entry.result.fault), []).append(entry)
    return tuple(Group(data, fault, tuple(some), _judged(some)) for (data, fault), some in found.items())


def _judged(entries: Sequence[Entry]) -> float | None:
    results = [entry.result for entry in entries if entry.result is not None]
    shared = [score.rate for score in results[0].rates if all(row.at(score.rate) for row in results)]
    return max(shared, default=None)


def called(group: Group, result: Result) -> str:
    """Return ``best``, ``level``, ``behind`` or ``unknown``: how ``result`` does against the best of ``group``."""
    if group.judged is None:
        return "unknown"
    best = max((other for _, other in group.results), key=lambda other: _mean(other, group.judged))
    verdict = outcome(best.at(group.judged), result.at(group.judged))
    return "best" if result is best else {"beats": "behind"}.get(verdict, verdict)


def _mean(result: Result, rate: float | None) -> float:
    score = None if rate is None else result.at(rate)
    return -1.0 if score is None else score.mean


def overview(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return what the template shows above the runs."""
    groups = groups_of(entries)
    confidences = [entry.record.comparison.confidence for entry in entries if entry.record.comparison]
    return {
        "rule": RULE.format(confidence=100 * max(confidences, default=0.95)),
        "groups": [_table(group) for group in groups],
        "without": [entry.title for entry in entries if entry.result is None],
    }


def _table(group: Group) -> dict[str, Any]:
    rows = [
        {
            "entry": entry,
            "result": result,
            "scores": scores_of(result, group.rates),
            "called": called(group, result),
            "words": WORDS[called(group, result)],
            "trained": _trained(entry.record),
        }
        for entry, result in group.results
    ]
    rates = [(rate, wording.rate(rate)) for rate in group.rates]
    return {"data": group.data, "fault": group.fault, "judged": group.judged, "rates": rates, "rows": rows}


def _trained(record: RunRecord) -> str:
    """Return the rate trained for and the seed, as far as they are known."""
    rate = f"trained at {wording.rate(record.comparison.rate)}, " if record.comparison else ""
    return f"{rate}seed {record.environment.seed}"


def winners_table(entries: Sequence[Entry]) -> Table | None:
    """Return all winners as one table; ``None`` if there is none."""
    lines, cells = [], []
    for group in groups_of(entries):
        for entry, result in group.results:
            kept = {"run": entry.title, "data": group.data, "fault": group.fault, "key": result.key}
            cost = {name: getattr(result, name) for name in ("flops", "parameters", "weight_bits")}
            for score in result.rates:
                ends = {"rate": score.rate, "mean": score.mean, "low": score.low, "high": score.high}
                lines.append({**kept, "clean": result.clean, **ends, "chips": len(score.chips), **cost})
            at = None if group.judged is None else result.at(group.judged)
            under = "" if at is None else f"{wording.score(at)} at {wording.rate(at.rate)}"
            head = (entry.title, group.data, group.fault, wording.percent(result.clean), under)
            cells.append((*head, WORDS[called(group, result)], wording.megaflops(result.flops)))
    columns = ("run", "data", "faults", "clean", "under faults", "is", "MFLOPs")
    words = ("run", "data", "faults", "is")
    return Table("winners", to_csv(lines), markdown_table(columns, cells, words=words)) if lines else None


def overview_figures(entries: Sequence[Entry]) -> tuple[Figure, ...]:
    """Return accuracy against the rate of all winners, and the fronts; one of each for each group."""
    return tuple(_figures(groups_of(entries)))


def _figures(groups: Sequence[Group]) -> Iterator[Figure]:
    several = len(groups) > 1
    for group in groups:
        where = f"{group.data}, {group.fault}"
        curves = [Curve.of(row, entry.colour, title=entry.title, strong=True) for entry, row in group.results]
        drawn = [curve for curve in curves if curve.scores]
        size = SMALL if several else (WIDTH, HEIGHT)
        if drawn:
            caption = f"The winners of the runs on {where}. Bands are intervals over chips."
            name = f"winners_{group.name}" if several else "winners"
            yield Figure(
                name, "winners", caption, curves_figure(drawn, fault=group.fault, trained=None, size=size, name=caption)
            )
    for group in groups:
        if any(entry.record.front for entry in group.entries):
            where = f"{group.data}, {group.fault}"
            caption = (
                f"The Pareto fronts of the runs on {where}, scored with each run's own shared weights; "
                "point at a dot to read its genotype."
            )
            name = f"fronts_{group.name}" if several else "fronts"
            yield Figure(name, "fronts", caption, _fronts(group, SMALL if several else (WIDTH, HEIGHT)))


def _fronts(group: Group, size: tuple[float, float]) -> str:
    """Draw the front of each run as stairs, named at their ends."""
    entries = [entry for entry in group.entries if entry.record.front_rows]
    rows = [row for entry in entries for row in entry.record.front_rows]
    right = size[0] - 14 - max(1.08 * svg.text_width(entry.title) for entry in entries)
    x = Scale(*spread_ratio([row.flops / MILLION for row in rows]), 46, right, log=True)
    plot = Plot(x, Scale(*spread_percent(row.faulty for row in rows), size[1] - 50, 38))
    parts = plot.frame("MFLOPs per image", "Accuracy under faults, shared weights (%)")
    labels = []
    for entry in entries:
        front = entry.record.front_rows
        line, end = stairs(plot, front, entry.colour)
        parts += line
        parts += [
            svg.hover(
                f"{entry.title}: {candidate_words(row)}",
                svg.circle(plot.at(row.flops / MILLION, 100 * row.faulty), 4.4, colour=entry.colour),
            )
            for row in front
        ]
        labels.append(Label(end, entry.title, entry.colour, 600))
    parts += at_ends(labels, right + 14, top=plot.y.end, bottom=plot.y.start)
    return svg.document(*size, "Pareto fronts", parts)
