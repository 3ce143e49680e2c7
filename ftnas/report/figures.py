"""Every figure of a report, by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ftnas.files import write_text
from ftnas.report.axes import HEIGHT, WIDTH
from ftnas.report.curves import SMALL, curves_figure, groups
from ftnas.report.front import pareto_figure
from ftnas.report.histories import ranking_figure, search_figure, supernet_figure, trainings_figure
from ftnas.report.record import RunRecord
from ftnas.report.results import Comparison, Result
from ftnas.report.verdict import random_mean


@dataclass(frozen=True)
class Figure:
    """A picture and what a reader must know to read it. ``name`` is also its file's."""

    name: str
    section: str
    caption: str
    svg: str


FRONT_CAPTION = (
    "Each dot is an architecture scored with the supernet's shared weights; point at one to read its genotype."
)
TRAINED_CAPTION = (
    " Filled marks are networks trained from scratch and measured on the test set at the rate they were trained for, "
    "with their intervals: their heights compare with one another, not with the dots."
)
RANKING_CAPTION = (
    "Each dot is an architecture: blue from the search, grey drawn at random, red the winner. Shared weights need not "
    "foretell the accuracy, only the order: tau is 1 if both orders agree, 0 if neither tells of the other."
)


SUPERNET_CAPTION = (
    "The supernet's fault-tolerant training by epoch: the loss of the shared weights (both), its parts without and "
    "with faults, and the loss that moves the architecture weights (cells), on images of its own."
)


def figures(record: RunRecord) -> tuple[Figure, ...]:
    """Return the figures that the run has data for."""
    return tuple(_figures(record))


def write_figures(found: tuple[Figure, ...], folder: Path) -> None:
    """Write each figure as ``NAME.svg``."""
    for figure in found:
        write_text(folder / f"{figure.name}.svg", figure.svg)


def _figures(record: RunRecord) -> Iterator[Figure]:
    if record.candidates:
        caption = FRONT_CAPTION + (TRAINED_CAPTION if record.comparison else "")
        yield Figure("pareto_front", "front", caption, pareto_figure(record))
    if record.comparison:
        yield from _curves(record.comparison)
    if record.ranking and record.ranking.points:
        yield Figure("ranking", "ranking", RANKING_CAPTION, ranking_figure(record))
    if record.supernet:
        caption = SUPERNET_CAPTION
        yield Figure("supernet_training", "training", caption, supernet_figure(record))
    if any(training.history for training in record.trainings):
        caption = "Every network trained from scratch; point at a line to read its name."
        yield Figure("final_trainings", "training", caption, trainings_figure(record))
    if record.candidates:
        caption = "Accuracy under faults with the shared weights, by trial; the line is the best so far."
        yield Figure("search_history", "search", caption, search_figure(record))


def _curves(comparison: Comparison) -> Iterator[Figure]:
    """Return a figure for each way in which baselines were trained, the fairest first and largest."""
    own = [row for row in (random_mean(comparison), *comparison.family("hand")) if row is not None]
    winner = [comparison.winner] if comparison.winner else []
    for i, (group, rows) in enumerate((groups(comparison) or {("", ""): ()}).items()):
        drawn = [*rows, *own, *winner]
        if drawn:
            yield _curve(drawn, comparison, group, large=i == 0)


def _curve(drawn: list[Result], comparison: Comparison, group: tuple[str, str], *, large: bool) -> Figure:
    training, size = group
    width, height = (WIDTH, HEIGHT) if large else SMALL
    how = {"fault-tolerant": "trained with faults like the winner", "plain": "trained without faults"}.get(training, "")
    scaled = "scaled to the winner's FLOPs" if size == "scaled" else "at their own size"
    caption = f"Baselines {scaled}, {how}." if training else "The networks of the run's own search space."
    name = "_".join(part for part in ("accuracy_against_rate", training.replace("-", "_"), size) if part)
    svg = curves_figure(drawn, comparison, width=width, height=height, name=caption)
    return Figure(name, "curves", f"{caption} Bands are {100 * comparison.confidence:.0f} % intervals.", svg)
