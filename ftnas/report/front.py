"""The Pareto front: what faulty accuracy costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ftnas.report import svg, wording
from ftnas.report.axes import HEIGHT, WIDTH, Plot, Scale, spread_percent, spread_ratio
from ftnas.report.labels import Label, beside, legend
from ftnas.report.palette import colours
from ftnas.report.record import RunRecord
from ftnas.report.results import RateScore, Result, Scored
from ftnas.report.verdict import peers

MARKS = {"winner": svg.STAR, "hand": svg.TRIANGLE, "random": svg.DIAMOND, "baseline": svg.SQUARE}
Trained = list[tuple[Result, RateScore]]

MILLION = 1e6


def pareto_figure(record: RunRecord) -> str:
    """Draw all candidates, the front, the leaders' fresh scores and the trained nets."""
    trained = _trained(record)
    items, above = legend(_legend(record, trained), left=12, right=WIDTH)
    plot = _plot(record, trained, top=above + 28)
    parts = [*items, *plot.frame("MFLOPs per image (2 × multiply-accumulates)", "Accuracy under faults (%)")]  # noqa: RUF001
    parts += [_candidate(plot, row, front=False) for row in record.candidates if row.key not in record.front]
    parts += stairs(plot, record.front_rows, svg.FRONT)[0]
    leaders = [(row, row.fresh_faulty) for row in record.leaders if row.fresh_faulty is not None]
    parts += [_tie(plot, row, fresh) for row, fresh in leaders]
    parts += [_candidate(plot, row, front=True) for row in record.front_rows]  # over the ties, which would hide them
    parts += [_leader(plot, row, fresh) for row, fresh in leaders]
    ink = colours(record.comparison) if record.comparison else {}
    parts += _marks(plot, trained, ink)
    return svg.document(WIDTH, HEIGHT, "Pareto front", [*parts, *_labels(plot, trained, ink, record)])


def _trained(record: RunRecord) -> Trained:
    """Return the trained nets that belong in the picture, with their scores at the rate trained for."""
    comparison = record.comparison
    if comparison is None:
        return []
    rows = [*([comparison.winner] if comparison.winner else []), *peers(comparison)]
    return [(row, score) for row in rows if (score := row.at(comparison.rate)) is not None]


def _plot(record: RunRecord, trained: Trained, *, top: float) -> Plot:
    costs = [row.flops / MILLION for row in (*record.candidates, *record.leaders)]
    costs += [row.flops / MILLION for row, _ in trained]
    shares = [row.faulty for row in record.candidates]
    shares += [row.fresh_faulty for row in record.leaders if row.fresh_faulty is not None]
    shares += [end for _, score in trained for end in (score.low, score.high)]
    x = Scale(*spread_ratio(costs), 46, WIDTH - 16, log=True)
    return Plot(x, Scale(*spread_percent(shares), HEIGHT - 50, top))


def _candidate(plot: Plot, row: Scored, *, front: bool) -> str:
    at = plot.at(row.flops / MILLION, 100 * row.faulty)
    if front:
        return svg.hover(candidate_words(row), svg.circle(at, 4.6, colour=svg.FRONT))
    return svg.hover(candidate_words(row), svg.circle(at, 3.4, colour=svg.FAINT, opacity=0.55))


def candidate_words(row: Scored) -> str:
    """Return what the dot of a candidate says under the pointer: scores, cost and genotype."""
    cost = f"{wording.megaflops(row.flops)} MFLOPs, {row.parameters:,} parameters"
    scores = f"faulty {wording.percent(row.faulty)}, clean {wording.percent(row.clean)} (shared weights)"
    head = f"{row.key} (trial {row.trial}, {row.source})"
    return "\n".join([head, scores, cost, _cells(row)])


def _cells(row: Scored) -> str:
    return "genotype not kept" if row.genotype is None else "\n".join(wording.cell_lines(row.genotype))


def stairs(plot: Plot, front: Iterable[Scored], colour: str) -> tuple[list[str], svg.Point]:
    """Return the line of what can be had (at a cost, the best accuracy of all that cost no more), and its end."""
    points: list[svg.Point] = []
    for row in front:
        x, y = plot.at(row.flops / MILLION, 100 * row.faulty)
        if points and y > points[-1][1]:
            continue  # the front of another objective, such as a reward, may hold what is worse under faults
        points += [(x, points[-1][1]), (x, y)] if points else [(x, y)]
    if not points:
        return [], (plot.x.end, plot.y.start)
    end = (plot.x.end, points[-1][1])
    return [svg.polyline([*points, end], colour=colour, width=1.8, opacity=0.75)], end


def _tie(plot: Plot, row: Scored, fresh: float) -> str:
    """Return the line from the score that made a candidate a leader to its score on ``fresh`` chips."""
    x = row.flops / MILLION
    return svg.line(plot.at(x, 100 * row.faulty), plot.at(x, 100 * fresh), colour=svg.FRONT, width=1, dash="2 3")


def _leader(plot: Plot, row: Scored, fresh: float) -> str:
    words = f"{row.key} on {len(row.fresh_chips)} fresh chips: {wording.percent(fresh)}\n{_cells(row)}"
    at = plot.at(row.flops / MILLION, 100 * fresh)
    return svg.hover(words, svg.marker(at, svg.DIAMOND, colour=svg.FRONT, hollow=True))


def _marks(plot: Plot, trained: Trained, ink: Mapping[str, str]) -> list[str]:
    """Return the trained nets' marks with their intervals, the winner's on top."""
    parts = []
    for row, score in reversed(trained):
        x = row.flops / MILLION
        low, high = plot.at(x, 100 * score.low), plot.at(x, 100 * score.high)
        colour = ink[row.name]
        words = f"{row.title}, trained from scratch\n{wording.score(score)}, {wording.megaflops(row.flops)} MFLOPs"
        mark = svg.marker(plot.at(x, 100 * score.mean), MARKS[row.family], colour=colour)
        parts.append(svg.hover(words, svg.line(low, high, colour=colour, width=1.4), mark))
    return parts


def _labels(plot: Plot, trained: Trained, ink: Mapping[str, str], record: RunRecord) -> list[str]:
    """Return the trained nets' names; nothing may hide the front."""
    front = [plot.at(row.flops / MILLION, 100 * row.faulty) for row in record.front_rows]
    labels = [
        Label(
            plot.at(row.flops / MILLION, 100 * score.mean),
            row.title,
            ink[row.name],
            700 if row.family == "winner" else 500,
        )
        for row, score in trained
    ]
    return beside(labels, (plot.x.start, plot.y.end - 4, WIDTH, plot.y.start), avoid=front)


def _legend(record: RunRecord, trained: Trained) -> list[tuple[str, str]]:
    zero = (0.0, 0.0)
    items = [(svg.circle(zero, 3.4, colour=svg.FAINT, opacity=0.7), "candidate (shared weights)")]
    if record.front:
        items.append((svg.circle(zero, 4.6, colour=svg.FRONT), "on the front"))
    if record.leaders:
        items.append((svg.marker(zero, svg.DIAMOND, colour=svg.FRONT, hollow=True), "leader on fresh chips"))
    if trained:
        items.append((svg.marker(zero, svg.STAR, colour=svg.WINNER), "winner, trained"))
    if len(trained) > 1:
        items.append((svg.marker(zero, svg.SQUARE, colour=svg.INK), "others, trained"))
    return items
