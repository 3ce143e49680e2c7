"""Where words go so that they cover neither marks nor each other, and legends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ftnas.report import svg

LINE = 16.0  # height of a line of text
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Label:
    """Words that belong to the mark at ``at``."""

    at: svg.Point
    words: str
    colour: str
    weight: int = 400


def beside(labels: Sequence[Label], bounds: Box, *, avoid: Iterable[svg.Point] = ()) -> list[str]:
    """Return each label beside its mark, at the first of many places that is free and within ``bounds``.

    The first labels choose first. A label that finds no free place goes where it covers least of the other labels,
    of their marks and of the small marks to ``avoid``.
    """
    taken: list[Box] = [(x - 7, y - 7, x + 7, y + 7) for x, y in (label.at for label in labels)]
    taken += [(x - 4, y - 4, x + 4, y + 4) for x, y in avoid]
    parts = []
    for label in labels:
        places = _places(label)
        box, anchor, base, tied = min(places, key=lambda place: _cost(place[0], taken, bounds))
        taken.append(box)
        if tied:
            end = (min(max(label.at[0], box[0]), box[2]), box[1] if box[1] > label.at[1] else box[3])
            parts.append(svg.line(label.at, end, colour=label.colour, width=0.8, opacity=0.6))
        parts.append(svg.text(base, label.words, anchor=anchor, colour=label.colour, weight=label.weight))
    return parts


def _places(label: Label) -> list[tuple[Box, str, svg.Point, bool]]:
    """Return the places around a mark, best first: box, text anchor, base of the text, and whether a line ties it."""
    (x, y), width = label.at, svg.text_width(label.words)
    places = []
    for down in (0.0, -18.0, 18.0, -34.0, 34.0, -50.0, 50.0, -66.0, 66.0, -82.0, 82.0):
        tied = abs(down) > 20
        for gap, anchor in ((11.0, "start"), (-11.0, "end")):
            left = x + gap if anchor == "start" else x + gap - width
            places.append(((left, y + down - 9, left + width, y + down + 7), anchor, (x + gap, y + down + 4.3), tied))
    return places


def _cost(box: Box, taken: Sequence[Box], bounds: Box) -> float:
    outside = max(bounds[0] - box[0], 0) + max(box[2] - bounds[2], 0)
    outside += max(bounds[1] - box[1], 0) + max(box[3] - bounds[3], 0)
    return 1000 * outside + sum(_overlap(box, other) for other in taken)


def _overlap(a: Box, b: Box) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    return across * down if across > 0 and down > 0 else 0.0


def at_ends(labels: Sequence[Label], x: float, *, top: float, bottom: float) -> list[str]:
    """Return labels in a column at ``x``, each near the end of its line, with a thin line that leads there."""
    parts = []
    ordered = sorted(labels, key=lambda label: label.at[1])
    for label, y in zip(ordered, _apart([label.at[1] for label in ordered], top, bottom), strict=True):
        parts.append(svg.polyline([label.at, (x - 10, y), (x - 4, y)], colour=label.colour, width=0.8, opacity=0.55))
        parts.append(svg.text((x, y + 4.3), label.words, colour=label.colour, weight=label.weight))
    return parts


def _apart(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Return rising places near the rising ``wanted`` ones, a line apart where there is room for that."""
    gap = min(LINE, (bottom - top) / max(1, len(wanted) - 1))
    places: list[float] = []
    for y in wanted:
        places.append(max(y, top, places[-1] + gap if places else top))
    limit = bottom
    for i in range(len(places) - 1, -1, -1):
        places[i] = min(places[i], limit)
        limit = places[i] - gap
    return places


def legend(items: Sequence[tuple[str, str]], *, left: float, right: float, top: float = 14) -> tuple[list[str], float]:
    """Return a legend in rows, and how much height it takes. Each item is a mark drawn around (0, 0), and its words."""
    parts, x, y = [], left, top
    for mark, words in items:
        width = 22 + svg.text_width(words) + 14
        if x > left and x + width > right:
            x, y = left, y + LINE + 4
        parts.append(f'<g transform="translate({svg.number(x + 9)} {svg.number(y)})">{mark}</g>')
        parts.append(svg.text((x + 22, y + 4.3), words))
        x += width
    return parts, y - top + LINE + 14
