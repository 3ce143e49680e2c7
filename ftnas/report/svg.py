"""SVG elements as text. Every colour reads on white and on black, and a page may override it by class.

Colours are plain attributes, which style sheets beat, so a saved figure needs none and looks right by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

Point = tuple[float, float]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
SIZE = 12.5  # of text, in the drawing's units: pixels at full width
INK = "#6f757e"  # text and axes
FAINT = "#8b919a"  # grid lines, and marks that are only context

_NARROW, _WIDE = " .,:;'|!()[]ijlftrI", "mwMW@%"

WINNER = "#e0532f"
FRONT = "#2f7fd0"
HAND = "#c9921a"
RANDOM = "#8b919a"
BASELINES = ("#1795b0", "#2a9d7f", "#9268d0", "#c2569a", "#6b8e23", "#a9744f", "#5b6fd6")


def number(value: float) -> str:
    """Return a coordinate with at most two decimals."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def document(width: float, height: float, name: str, parts: Iterable[str]) -> str:
    """Return a whole SVG; ``name`` is what a screen reader says."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(width)} {number(height)}"'
    size = f'width="{number(width)}" height="{number(height)}"'
    text = f'font-family="{FONT}" font-size="{SIZE}"'
    return f'{head} {size} role="img" aria-label="{escape(name)}" {text}>\n' + "\n".join(parts) + "\n</svg>\n"


def text(
    at: Point, words: str, *, anchor: str = "start", colour: str = INK, weight: int = 400, size: float = SIZE
) -> str:
    """Return words whose baseline begins, ends or is centred (``anchor``) at ``at``."""
    place = f'x="{number(at[0])}" y="{number(at[1])}" text-anchor="{anchor}"'
    kind = ' class="ink"' if colour == INK else ' class="label"'
    bold = f' font-weight="{weight}"' if weight != 400 else ""
    small = f' font-size="{number(size)}"' if size != SIZE else ""
    return f'<text {place} fill="{colour}"{kind}{bold}{small}>{escape(words)}</text>'


def text_width(words: str, size: float = SIZE) -> float:
    """Estimate how wide ``words`` are, for the widest of the fonts in ``FONT`` (DejaVu Sans)."""
    return size * sum(0.34 if c in _NARROW else 0.9 if c in _WIDE else 0.63 for c in words)


def line(start: Point, end: Point, *, colour: str = INK, width: float = 1, dash: str = "", opacity: float = 1) -> str:
    """Return a straight line."""
    places = f'x1="{number(start[0])}" y1="{number(start[1])}" x2="{number(end[0])}" y2="{number(end[1])}"'
    kind = {INK: ' class="axis"', FAINT: ' class="grid"'}.get(colour, "")
    return f'<line {places} stroke="{colour}"{kind} stroke-width="{number(width)}"{_dashed(dash)}{_faded(opacity)}/>'


def polyline(points: Sequence[Point], *, colour: str, width: float = 2, dash: str = "", opacity: float = 1) -> str:
    """Return an open line through ``points``."""
    style = f'stroke="{colour}" stroke-width="{number(width)}"{_dashed(dash)}{_faded(opacity)}'
    return f'<polyline points="{_path(points)}" fill="none" {style} stroke-linejoin="round" stroke-linecap="round"/>'


def polygon(points: Sequence[Point], *, colour: str, opacity: float = 1) -> str:
    """Return a filled area without an outline."""
    return f'<polygon points="{_path(points)}" fill="{colour}"{_faded(opacity)}/>'


def circle(at: Point, radius: float, *, colour: str, opacity: float = 1, hollow: bool = False) -> str:
    """Return a dot or, ``hollow``, a ring."""
    place = f'cx="{number(at[0])}" cy="{number(at[1])}" r="{number(radius)}"'
    return f"<circle {place} {_ink(colour, hollow)}{_faded(opacity)}/>"


def marker(at: Point, corners: Sequence[Point], *, colour: str, hollow: bool = False) -> str:
    """Return a mark whose ``corners`` are relative to ``at``; filled marks get a thin edge of the page's colour."""
    points = _path([(at[0] + x, at[1] + y) for x, y in corners])
    return f'<polygon points="{points}" {_ink(colour, hollow)} stroke-linejoin="round"/>'


def hover(words: str, *parts: str) -> str:
    """Return ``parts`` as a group that shows ``words`` under the pointer."""
    return f'<g class="point"><title>{escape(words)}</title>{"".join(parts)}</g>'


SQUARE: tuple[Point, ...] = ((-5, -5), (5, -5), (5, 5), (-5, 5))
DIAMOND: tuple[Point, ...] = ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0))
TRIANGLE: tuple[Point, ...] = ((0, -6.5), (6.2, 4.8), (-6.2, 4.8))
STAR: tuple[Point, ...] = (
    (0, -9.5), (2.3, -3.1), (9, -2.9), (3.7, 1.2), (5.6, 7.7),
    (0, 3.9), (-5.6, 7.7), (-3.7, 1.2), (-9, -2.9), (-2.3, -3.1),
)  # fmt: skip


def _path(points: Sequence[Point]) -> str:
    return " ".join(f"{number(x)},{number(y)}" for x, y in points)


def _ink(colour: str, hollow: bool) -> str:
    return f'fill="none" stroke="{colour}" stroke-width="1.6"' if hollow else f'fill="{colour}"'


def _dashed(dash: str) -> str:
    return f' stroke-dasharray="{dash}"' if dash else ""


def _faded(opacity: float) -> str:
    return f' opacity="{number(opacity)}"' if opacity != 1 else ""
