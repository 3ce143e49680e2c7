"""The few SVG shapes that a drawing of cells is made of."""

from __future__ import annotations

import xml.etree.ElementTree as ET

INK = "#20262f"
_FONT = "font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif"


def canvas(width: float, height: float, title: str) -> ET.Element:
    """Return an empty white picture; ``title`` is what a screen reader says."""
    view = {"viewBox": f"0 0 {number(width)} {number(height)}", "width": number(width), "height": number(height)}
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "style": _FONT} | view)
    ET.SubElement(root, "title").text = title
    ET.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    return root


def number(value: float) -> str:
    """Write a coordinate: a tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0")


def box(
    parent: ET.Element, x: float, y: float, size: tuple[float, float], *, fill: str, stroke: str, radius: float
) -> ET.Element:
    """Add a rectangle with round corners; ``size`` is (width, height)."""
    place = {"x": number(x), "y": number(y), "width": number(size[0]), "height": number(size[1])}
    style = {"rx": number(radius), "fill": fill, "stroke": stroke, "stroke-width": "1.2"}
    return ET.SubElement(parent, "rect", place | style)


def path(parent: ET.Element, d: str, stroke: str, *, width: float, dashed: bool = False) -> ET.Element:
    """Add a line along ``d``, in SVG's path notation."""
    style = {"stroke": stroke, "stroke-width": number(width), "fill": "none"}
    return ET.SubElement(parent, "path", {"d": d} | style | ({"stroke-dasharray": "5 4"} if dashed else {}))


def text(
    parent: ET.Element,
    place: tuple[float, float],
    content: str,
    *,
    size: float = 12,
    fill: str = INK,
    bold: bool = False,
    centred: bool = False,
) -> ET.Element:
    """Add a line of text; ``place`` is where its base line starts, or its middle where it is ``centred``."""
    style = {"font-size": number(size), "fill": fill} | ({"font-weight": "600"} if bold else {})
    anchor = {"text-anchor": "middle"} if centred else {}
    element = ET.SubElement(parent, "text", {"x": number(place[0]), "y": number(place[1])} | style | anchor)
    element.text = content
    return element


def subscript(parent: ET.Element, content: str) -> None:
    """Add a subscript to the end of a text."""
    tail = ET.SubElement(parent, "tspan", {"dy": "3", "font-size": "9"})
    tail.text = content
