"""Every figure of a report, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ftnas.files import write_text
from ftnas.report import wording
from ftnas.report.axes import HEIGHT, WIDTH
from ftnas.report.curves import SMALL, Curve, curves_figure, groups
from ftnas.report.drawing import genotype_svg
from ftnas.report.exposure import MOST, idle, together, vulnerability_figure
from ftnas.report.front import pareto_figure
from ftnas.report.histories import ranking_figure, search_figure, supernet_figure, trainings_figure
from ftnas.report.palette import colours
from ftnas.report.raster import write_png
from ftnas.report.record import RunRecord
from ftnas.report.results import Comparison, Result, Vulnerability
from ftnas.report.verdict import random_mean


@dataclass(frozen=True)
class Figure:
    """A picture and what a reader must know to read it. ``name`` is also its file's."""

    name: str
    section: str
    caption: str
    svg: str


CELLS = "cells"  # as a file both cells side by side; the page draws them one below the other
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


def write_figures(found: Iterable[Figure], folder: Path) -> None:
    """Write each figure as ``NAME.svg`` and ``NAME.png``."""
    for figure in found:
        write_text(folder / f"{figure.name}.svg", figure.svg)
        write_png(figure.svg, folder / f"{figure.name}.png")


def by_section(found: Iterable[Figure]) -> dict[str, list[dict[str, Any]]]:
    """Return figures for the template by the section that they belong to."""
    sections: dict[str, list[dict[str, Any]]] = {}
    for figure in found:
        inline = {"name": figure.name, "caption": figure.caption, "svg": Markup(figure.svg)}
        sections.setdefault(figure.section, []).append(inline)
    return sections


def _figures(record: RunRecord) -> Iterator[Figure]:
    if record.candidates:
        caption = FRONT_CAPTION + (TRAINED_CAPTION if record.comparison else "")
        yield Figure("pareto_front", "front", caption, pareto_figure(record))
    if record.winner_genotype:
        yield Figure(CELLS, CELLS, "The winner's cells.", genotype_svg(record.winner_genotype))
    if record.comparison:
        yield from _curves(record.comparison)
    if record.vulnerability and record.vulnerability.layers:
        caption = _vulnerability_caption(record.vulnerability)
        yield Figure("vulnerability", "vulnerability", caption, vulnerability_figure(record.vulnerability))
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
    how = {"fault-tolerant": "trained with faults like the winner", "plain": "trained without faults"}.get(training, "")
    scaled = "scaled to the winner's FLOPs" if size == "scaled" else "at their own size"
    caption = f"Baselines {scaled}, {how}." if training else "The networks of the run's own search space."
    name = "_".join(part for part in ("accuracy_against_rate", training.replace("-", "_"), size) if part)
    ink = colours(comparison)
    svg = curves_figure(
        [Curve.of(row, ink[row.name]) for row in drawn],
        fault=comparison.fault,
        trained=comparison.rate,
        size=(WIDTH, HEIGHT) if large else SMALL,
        name=caption,
    )
    return Figure(name, "curves", f"{caption} Bands are {100 * comparison.confidence:.0f} % intervals.", svg)


def _vulnerability_caption(found: Vulnerability) -> str:
    """Return what was measured, what all layers together do, and how many layers nothing depends on."""
    chips, count = len(found.all.changed.chips), len(found.layers)
    caption = (
        f"One layer of the winner fails at a time, from input (top) to output, under {found.fault} at rate "
        f"{wording.rate(found.rate)}, on {chips} chips and {found.images:,} test images; for comparison, "
        f"{together(found)}. Lines are 95 % intervals over chips, cut off at the ends of the scale."
    )
    if idle(found):
        unread = f"{idle(found)} of the {count} layers change no answer on any chip"
        caption += f" {unread}: perhaps nothing depends on them."
    if count > MOST:
        caption += f" Drawn are the {MOST} layers that change most answers; all are in tables/layers.csv."
    return caption
