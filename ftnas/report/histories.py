"""How a run went: the supernet's training, the search, the final trainings, and how well scores foretold them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from ftnas.report import svg, wording
from ftnas.report.axes import WIDTH, Plot, Scale, linear_ticks, spread, spread_percent
from ftnas.report.labels import Label, at_ends, legend
from ftnas.report.palette import FAMILIES
from ftnas.report.record import RunRecord, Training
from ftnas.report.results import Correlation, RankedNet, Scored, SupernetEpoch

Line = tuple[str, str, list[tuple[float, float]]]  # words, colour, (x, y) values
HALF = WIDTH / 2
LOW = 320.0  # height of a figure of two plots


def supernet_figure(record: RunRecord) -> str:
    """Draw the supernet's losses by epoch, and its validation accuracies or else its architecture weights' entropy."""
    epochs = record.supernet
    losses = [
        _line("both", svg.INK, epochs, lambda e: e.loss),
        _line("clean", svg.FRONT, epochs, lambda e: e.clean_loss),
        _line("faulty", svg.WINNER, epochs, lambda e: e.faulty_loss),
        _line("cells", svg.HAND, epochs, lambda e: e.architecture_loss),
    ]
    shares = [
        _line("clean", svg.FRONT, epochs, lambda e: _hundred(e.validation_clean)),
        _line("faulty", svg.WINNER, epochs, lambda e: _hundred(e.validation_faulty)),
    ]
    left = _epochs_plot(losses, 0, "Training loss (nats)", share=False)
    entropy = [_line("mean", svg.INK, epochs, lambda e: e.entropy)]
    if any(points for *_, points in shares):
        right = _epochs_plot(shares, HALF, "Validation accuracy (%)", share=True)
    else:
        right = _epochs_plot(entropy, HALF, "Entropy of the architecture weights (nats)", share=False)
    return svg.document(WIDTH, LOW, "Supernet training", [*left, *right])


def _line(
    words: str, colour: str, epochs: Sequence[SupernetEpoch], value: Callable[[SupernetEpoch], float | None]
) -> Line:
    pairs = [(float(epoch.epoch), value(epoch)) for epoch in epochs]
    return words, colour, [(x, y) for x, y in pairs if y is not None and math.isfinite(y)]


def _hundred(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _epochs_plot(lines: Sequence[Line], left: float, label: str, *, share: bool) -> list[str]:
    """Return one plot by epoch, in the half of the figure that begins at ``left``, its lines named at their ends."""
    drawn = [line for line in lines if line[2]]
    if not drawn:
        return [svg.text((left + 46, LOW / 2), f"{label}: not recorded")]
    plot = _half_plot([point for line in drawn for point in line[2]], left, room=62, share=share)
    parts = plot.frame("Epoch", label, x_ticks=_whole(plot.x))
    for _, colour, points in drawn:
        parts += _drawn(plot, points, colour, width=2)
    ends = [Label(plot.at(*points[-1]), words, colour) for words, colour, points in drawn]
    return [*parts, *at_ends(ends, plot.x.end + 14, top=plot.y.end, bottom=plot.y.start)]


def _drawn(plot: Plot, points: Sequence[tuple[float, float]], colour: str, *, width: float) -> list[str]:
    places = [plot.at(*point) for point in points]
    if len(places) == 1:
        return [svg.circle(places[0], 3, colour=colour)]
    return [svg.polyline(places, colour=colour, width=width)]


def _half_plot(points: Sequence[tuple[float, float]], left: float, *, room: float, share: bool) -> Plot:
    """Return a plot in half a figure; ``room`` is left free at its right."""
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    x = Scale(first - 0.5 * (first == last), last + 0.5 * (first == last), left + 46, left + HALF - room)
    ends = spread_percent(y / 100 for _, y in points) if share else spread(y for _, y in points)
    return Plot(x, Scale(*ends, LOW - 50, 40))


def _whole(scale: Scale) -> list[float]:
    """Return the ticks of ``scale`` that are whole numbers."""
    return [tick for tick in linear_ticks(scale.low, scale.high, 6) if tick == round(tick)]


def search_figure(record: RunRecord) -> str:
    """Draw the faulty accuracy of each trial, and the best so far."""
    rows = sorted(record.candidates, key=lambda row: row.trial)
    items, above = legend(_search_legend(), left=12, right=WIDTH)
    height = LOW + above
    first, last = rows[0].trial, rows[-1].trial
    x = Scale(*spread([first, last], margin=0.02, least=1), 46, WIDTH - 16)
    plot = Plot(x, Scale(*spread_percent(row.faulty for row in rows), height - 50, above + 28))
    parts = [*items, *plot.frame("Trial", "Accuracy under faults (%)", x_ticks=_whole(x))]
    best = _best_so_far(rows)
    steps = [point for (_, before), (trial, y) in pairwise(best) for point in ((trial, before), (trial, y))]
    parts += [_trial(plot, row) for row in rows]
    parts.append(svg.polyline([plot.at(*point) for point in [best[0], *steps]], colour=svg.FRONT, width=2.2))
    return svg.document(WIDTH, height, "Search history", parts)


def _best_so_far(rows: Sequence[Scored]) -> list[tuple[float, float]]:
    best, points = -math.inf, []
    for row in rows:
        best = max(best, 100 * row.faulty)
        points.append((float(row.trial), best))
    return points


def _trial(plot: Plot, row: Scored) -> str:
    at = plot.at(row.trial, 100 * row.faulty)
    found = f"{wording.percent(row.faulty)}, {wording.megaflops(row.flops)} MFLOPs"
    words = f"trial {row.trial} ({row.source}), {row.key}: {found}"
    if row.source == "sampler":
        return svg.hover(words, svg.circle(at, 3.2, colour=svg.FAINT, opacity=0.65))
    return svg.hover(words, svg.marker(at, svg.TRIANGLE, colour=svg.HAND))


def _search_legend() -> list[tuple[str, str]]:
    zero = (0.0, 0.0)
    return [
        (svg.circle(zero, 3.2, colour=svg.FAINT, opacity=0.8), "proposed by the sampler"),
        (svg.marker(zero, svg.TRIANGLE, colour=svg.HAND), "derived from the architecture weights"),
        (svg.line((-8, 0), (8, 0), colour=svg.FRONT, width=2.2), "best so far"),
    ]


def trainings_figure(record: RunRecord) -> str:
    """Draw the losses and clean accuracies of every net trained from scratch, coloured by family."""
    families = {training.name: _family(training) for training in record.trainings if training.history}
    items, above = legend(_families_legend(families), left=12, right=WIDTH)
    halves = [
        *_trainings_plot(record, families, 0, "Training loss (nats)", loss=True),
        *_trainings_plot(record, families, HALF, "Accuracy on its training images (%)", loss=False),
    ]
    moved = f'<g transform="translate(0 {svg.number(above)})">' + "\n".join(halves) + "</g>"
    return svg.document(WIDTH, LOW + above, "Final trainings", [*items, moved])


def _family(training: Training) -> str:
    if training.result is not None:
        return training.result.family
    begins = {"top": "finalist", "winner": "winner", "random": "random", "matched": "random", "hand": "hand"}
    return next((family for start, family in begins.items() if training.name.startswith(start)), "baseline")


def _families_legend(families: Mapping[str, str]) -> list[tuple[str, str]]:
    words = {"winner": "winner", "finalist": "leaders of the search", "hand": "hand-made", "random": "random cells"}
    words["baseline"] = "baselines"
    present = set(families.values())
    return [
        (svg.line((-8, 0), (8, 0), colour=FAMILIES[name], width=2.4), words[name]) for name in words if name in present
    ]


def _trainings_plot(
    record: RunRecord, families: Mapping[str, str], left: float, label: str, *, loss: bool
) -> list[str]:
    curves = []
    for training in record.trainings:
        pairs = [(float(e.epoch), e.loss if loss else _hundred(e.clean_accuracy)) for e in training.history]
        points = [(x, y) for x, y in pairs if y is not None and math.isfinite(y)]
        if points:
            curves.append((training.name, points))
    if not curves:
        return [svg.text((left + 46, LOW / 2), f"{label}: not recorded")]
    plot = _half_plot([point for _, points in curves for point in points], left, room=20, share=not loss)
    parts = plot.frame("Epoch", label, x_ticks=_whole(plot.x))
    order = ["random", "baseline", "hand", "finalist", "winner"]
    for name, points in sorted(curves, key=lambda curve: order.index(families[curve[0]])):
        width = 2.2 if families[name] == "winner" else 1.2
        parts.append(svg.hover(name, *_drawn(plot, points, FAMILIES[families[name]], width=width)))
    return parts


def ranking_figure(record: RunRecord) -> str:
    """Draw the score on shared weights against the accuracy after training, without and with faults."""
    ranking = record.ranking
    points = ranking.points if ranking else ()
    clean = [(p, 100 * p.supernet_clean, 100 * p.final_clean) for p in points]
    faulty = [(p, 100 * p.supernet_faulty, 100 * p.final_faulty) for p in points]
    tau_clean, tau_faulty = (ranking.tau_clean, ranking.tau_faulty) if ranking else (None, None)
    winner = record.winner.key if record.winner else None
    left = _ranking_plot(clean, 0, "clean", tau_clean, winner=winner)
    right = _ranking_plot(faulty, HALF, "under faults", tau_faulty, winner=winner)
    return svg.document(WIDTH, LOW + 66, "Ranking quality", [*left, *right])


def _ranking_plot(
    points: Sequence[tuple[RankedNet, float, float]],
    left: float,
    kind: str,
    tau: Correlation | None,
    *,
    winner: str | None,
) -> list[str]:
    x = Scale(*spread([x for _, x, _ in points], least=1), left + 46, left + HALF - 20)
    plot = Plot(x, Scale(*spread([y for *_, y in points], least=1), LOW - 10, 40))
    parts = plot.frame(f"With shared weights, {kind} (%)", f"Trained from scratch, {kind} (%)")
    for point, across, up in points:
        cost = f"{wording.megaflops(point.flops)} MFLOPs"
        words = f"{point.key}: {across:.1f} % with shared weights, {up:.1f} % trained, {cost}"
        colour = svg.WINNER if point.key == winner else FAMILIES[point.family]
        parts.append(svg.hover(words, svg.circle(plot.at(across, up), 4.6, colour=colour, opacity=0.85)))
    if tau is not None:
        words = f"Kendall's τ = {tau.value:.2f} ({tau.low:.2f} to {tau.high:.2f}), n = {len(points)}"
        parts.append(svg.text(((plot.x.start + plot.x.end) / 2, plot.y.start + 64), words, anchor="middle"))
    return parts
