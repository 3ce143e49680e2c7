"""Our own SVG drawings as PNG: the few elements that `svg` and `shapes` write, and no others."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Literal

from ftnas.files import replacing

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.path import Path
    from matplotlib.transforms import Transform

SCALE = 2.0  # pixels for each unit of a drawing: sharp at column width in print
UNIT = 0.72  # points of a unit, at 100 units an inch
PAPER = "#ffffff"
FONT = "DejaVu Sans"  # comes with matplotlib, so a picture is the same on every machine
SEMIBOLD = 600

Point = tuple[float, float]
_ALIGNED: dict[str, Literal["left", "center", "right"]] = {"start": "left", "middle": "center", "end": "right"}


def write_png(drawing: str, path: FilePath) -> None:
    """Write an SVG of this package as a PNG on white, two pixels a unit.

    Args:
        drawing: the SVG as text.
        path: of the PNG.

    Raises:
        ValueError: the drawing holds an element that this package does not write.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    root = ET.fromstring(drawing)
    width, height = (float(root.get(side, "")) for side in ("width", "height"))
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # what a user has in a matplotlibrc changes nothing
        figure = Figure(figsize=(width / 100, height / 100), dpi=100 * SCALE, facecolor=PAPER)
        canvas = FigureCanvasAgg(figure)
        for artist in _artists(root, _Place(_flipped(height), float(root.get("font-size", 12)))):
            figure.add_artist(artist)
        with replacing(path) as part, part.open("wb") as file:
            # Half the time of the default level, for a sixth more bytes.
            canvas.print_png(  # type: ignore[no-untyped-call]
                file, metadata={"Software": None}, pil_kwargs={"compress_level": 2}
            )


@dataclass(frozen=True)
class _Place:
    """Where an element lies and how large its text is, as its parents say."""

    transform: Transform
    size: float

    def inside(self, element: ET.Element) -> _Place:
        """Return the place of what is inside ``element``."""
        from matplotlib.transforms import Affine2D

        moved = re.fullmatch(r"translate\(([-\d.]+) ([-\d.]+)\)", element.get("transform", ""))
        if moved is None:
            return self
        return replace(self, transform=Affine2D().translate(float(moved[1]), float(moved[2])) + self.transform)


def _flipped(height: float) -> Transform:
    """Return the way from a drawing's units, y downwards, to pixels, y upwards."""
    from matplotlib.transforms import Affine2D

    return Affine2D().scale(1, -1).translate(0, height).scale(SCALE)


def _artists(parent: ET.Element, place: _Place) -> Iterator[Artist]:
    for element in parent:
        tag = element.tag.rpartition("}")[2]
        if tag == "g":
            yield from _artists(element, place.inside(element))
        elif tag == "text":
            yield _text(element, place)
        elif tag in _SHAPES:
            yield _patch(element, _SHAPES[tag](element), place)
        elif tag != "title":
            raise ValueError(f"<{tag}> cannot be drawn")


def _patch(element: ET.Element, path: Path, place: _Place) -> Artist:
    from matplotlib.patches import PathPatch

    width = float(element.get("stroke-width", 1)) * UNIT
    stroke = element.get("stroke", "none")
    dashes = [float(part) * UNIT / width for part in element.get("stroke-dasharray", "").split()]
    return PathPatch(
        path,
        transform=place.transform,
        facecolor=element.get("fill", "none"),
        edgecolor=stroke,
        linewidth=width if stroke != "none" else 0,
        linestyle=(0, dashes) if dashes else "solid",
        alpha=float(element.get("opacity", 1)),
        capstyle=_capstyle(element),
        joinstyle="round",
    )


def _capstyle(element: ET.Element) -> str:
    return "round" if element.get("stroke-linecap") == "round" else "butt"


def _text(element: ET.Element, place: _Place) -> Artist:
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text

    size = float(element.get("font-size", place.size))
    turned = re.match(r"rotate\(([-\d.]+)", element.get("transform", ""))
    text = Text(
        _at(element, "x"),
        _at(element, "y"),
        _words(element),
        transform=place.transform,
        fontsize=size * UNIT,
        fontfamily=FONT,
        fontweight="bold" if int(element.get("font-weight", 400)) >= SEMIBOLD else "normal",
        color=element.get("fill", "#000000"),
        horizontalalignment=_ALIGNED[element.get("text-anchor", "start")],
        verticalalignment="baseline",
        rotation=-float(turned[1]) if turned else 0,
        rotation_mode="anchor",
        parse_math=False,
    )
    # A name beside a mark keeps its distance from lines; what is as white as the distance stands on a dark area.
    if element.get("class") == "label" and element.get("fill") != PAPER:
        text.set_path_effects([withStroke(linewidth=3 * UNIT, foreground=PAPER)])
    return text


def _words(element: ET.Element) -> str:
    """Return the text with its subscript, as ``c`` and ``k-1``, in characters of their own."""
    lowered = str.maketrans("0123456789-k", "₀₁₂₃₄₅₆₇₈₉₋ₖ")
    return (element.text or "") + "".join((part.text or "").translate(lowered) for part in element)


def _line(element: ET.Element) -> Path:
    return _through([(_at(element, "x1"), _at(element, "y1")), (_at(element, "x2"), _at(element, "y2"))])


def _polyline(element: ET.Element) -> Path:
    return _through(_points(element))


def _polygon(element: ET.Element) -> Path:
    return _through(_points(element), closed=True)


def _points(element: ET.Element) -> list[Point]:
    pairs = (pair.split(",") for pair in element.get("points", "").split())
    return [(float(x), float(y)) for x, y in pairs]


def _through(points: Sequence[Point], *, closed: bool = False) -> Path:
    from matplotlib.path import Path

    return Path([*points, points[0]] if closed else list(points), closed=closed)


def _circle(element: ET.Element) -> Path:
    from matplotlib.path import Path

    return Path.circle((_at(element, "cx"), _at(element, "cy")), _at(element, "r"))


def _rectangle(element: ET.Element) -> Path:
    """Return a rectangle, its corners rounded by ``rx``; a share of the picture, as ``100%``, is the background."""
    from matplotlib.path import Path

    if element.get("width", "").endswith("%"):
        return Path([(0, 0)], closed=False)
    left, top, radius = _at(element, "x"), _at(element, "y"), _at(element, "rx")
    right, bottom = left + _at(element, "width"), top + _at(element, "height")
    corners = ((right, top), (right, bottom), (left, bottom), (left, top))
    before = ((right - radius, top), (right, bottom - radius), (left + radius, bottom), (left, top + radius))
    after = ((right, top + radius), (right - radius, bottom), (left, bottom - radius), (left + radius, top))
    points, codes = [(left + radius, top)], [Path.MOVETO]
    for begin, corner, end in zip(before, corners, after, strict=True):
        points += [begin, corner, end]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path(points, codes)


def _path(element: ET.Element) -> Path:
    """Return the way of a ``path`` of M, H, V, C and q, the commands that drawings of cells use."""
    from matplotlib.path import Path

    points: list[Point] = []
    codes: list[int] = []
    for command, text in re.findall(r"([MHVCq])([^MHVCq]*)", element.get("d", "")):
        values = [float(value) for value in text.split()]
        x, y = points[-1] if points else (0.0, 0.0)
        if command in "HV":
            values = [values[0], y] if command == "H" else [x, values[0]]
        by = (x, y) if command == "q" else (0.0, 0.0)
        new = [(a + by[0], b + by[1]) for a, b in zip(values[::2], values[1::2], strict=True)]
        kinds = {"M": [Path.MOVETO], "C": 3 * [Path.CURVE4], "q": 2 * [Path.CURVE3]}.get(command, [Path.LINETO])
        codes += map(int, kinds)
        points += new
    return Path(points, codes)


def _at(element: ET.Element, name: str) -> float:
    return float(element.get(name, 0))


_SHAPES: dict[str, Callable[[ET.Element], Path]] = {
    "line": _line,
    "polyline": _polyline,
    "polygon": _polygon,
    "circle": _circle,
    "rect": _rectangle,
    "path": _path,
}
