"""Cells as SVG: drawn with nothing but text, and read back exactly."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from ftnas.errors import SpaceError
from ftnas.quantization import Quantization, Range
from ftnas.report.shapes import INK, box, canvas, number, path, subscript, text
from ftnas.space import KINDS, Cell, Edge, Genotype, has_numbers

# Family of operators: (line, fill, words of the legend). An operator belongs to the first that it begins with.
_FAMILIES: dict[str, tuple[str, str, str]] = {
    "sep_conv": ("#2563a8", "#e6effa", "separable convolution"),
    "dil_conv": ("#6d3fb0", "#efe8fa", "dilated convolution"),
    "relu_conv_bn": ("#b3421e", "#fceae3", "dense convolution"),
    "conv_1x1": ("#946000", "#fdf2dc", "bare 1x1 convolution"),
    "max_pool": ("#1d7a4c", "#e2f4ea", "max pooling"),
    "avg_pool": ("#11707d", "#def3f5", "average pooling"),
    "skip": ("#4b5563", "#f1f3f5", "skip"),
    "none": ("#8b929d", "#fafafa", "none"),
}
_NOTES = ("w weights, f features: bits and range", "2ⁿ power of two", "max largest value", "±x fixed")
_STRIDED = "/2 stride 2"
_DARK, _GREY, _PAPER = "#333c4a", "#5b6472", "#fcfcfd"
_PILL = (146.0, 34.0)  # the box of an operator
_LINE, _GAP = 42.0, 22.0  # from one box to the next, between two nodes
_NODE = 14.0  # radius
_COLUMN = _PILL[0] + 4 * _NODE  # from one node's boxes to the next node's
_LANE = 4.0  # between wires that leave one source
_INPUT, _TOP = (62.0, 26.0), 34.0
_BEND = 12.0
_MARGIN = 24.0
_CAPTION = 26.0
_LEGEND_ROW = 20.0
_LEAST_WIDTH = 440.0


@dataclass(frozen=True, slots=True)
class _Wire:
    """An edge and its place: slot ``slot`` of the node with id ``node``, its box's left middle at ``(x, y)``."""

    edge: Edge
    node: int
    slot: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where everything of one cell goes, relative to the cell's corner.

    Attributes:
        wires: all edges.
        sources: where the wires of each id leave downwards.
        nodes: the centres of the nodes.
    """

    wires: tuple[_Wire, ...]
    sources: tuple[tuple[float, float], ...]
    nodes: tuple[tuple[float, float], ...]
    width: float
    height: float


def genotype_svg(genotype: Genotype, title: str = "") -> str:
    """Return a drawing of the cells side by side; ``genotype_from_svg`` reads it back.

    A cell is a staircase: each node has a row and a column of its own, so no wire runs through a box. Wires leave
    a source downwards and turn right into the box of their operator; the boxes of a node are summed in its circle.

    Raises:
        SpaceError: an operator is unknown, or a node reads one that comes later.
    """
    plans = {kind: _plan(_drawable(genotype.cell(kind))) for kind in KINDS if genotype.cell(kind)}
    top = _MARGIN + (34 if title else 0)
    width = max(_MARGIN + sum(plan.width + _MARGIN for plan in plans.values()), _LEAST_WIDTH)
    below = top + _CAPTION + max((plan.height for plan in plans.values()), default=0) + 30
    legend = _legend(genotype, width, below)
    title = "".join(filter(str.isprintable, title))
    root = canvas(width, legend[-1][1] + _MARGIN, title or "The cells of a network")
    if title:
        text(root, (_MARGIN, _MARGIN + 16), title, size=17, bold=True)
    x = _MARGIN
    for kind, plan in plans.items():
        _draw_cell(root, kind, plan, x, top)
        x += plan.width + _MARGIN
    _draw_legend(root, legend)
    return ET.tostring(root, encoding="unicode") + "\n"


def genotype_from_svg(drawing: str) -> Genotype:
    """Return the genotype that a drawing of ``genotype_svg`` shows.

    Raises:
        SpaceError: this is no such drawing, or it declares a document type (whose entities may grow without end).
    """
    if "<!doctype" in drawing.lower():
        raise SpaceError("drawing: a DOCTYPE is not allowed")
    try:
        cells = [cell for cell in ET.fromstring(drawing).iter() if "data-cell" in cell.attrib]
        by_kind = {cell.attrib["data-cell"]: _read_cell(cell) for cell in cells}
    except KeyError as error:
        raise SpaceError(f"drawing: an edge or cell lacks {error}") from None
    except (ET.ParseError, ValueError) as error:
        raise SpaceError(f"drawing: cannot be read ({error})") from None
    if not cells or len(by_kind) < len(cells) or not set(by_kind) <= set(KINDS):
        raise SpaceError("drawing: needs one normal cell and at most one reduction cell, as ftnas draws them")
    return Genotype(*(by_kind.get(kind, ()) for kind in KINDS))


def _read_cell(cell: ET.Element) -> Cell:
    nodes: list[dict[int, Edge]] = [{} for _ in range(int(cell.attrib["data-nodes"]))]
    for group in cell.iter():
        if "data-operator" in group.attrib:
            node, slot = int(group.attrib["data-node"]) - 2, int(group.attrib["data-slot"])
            if node not in range(len(nodes)) or slot in nodes[node]:
                raise ValueError(f"edge {slot} of node {node + 2} is out of place")
            nodes[node][slot] = _read_edge(group.attrib)
    return tuple(tuple(node[slot] for slot in range(len(node))) for node in nodes)


def _read_edge(data: dict[str, str]) -> Edge:
    numbers = {key: data[_attribute(key)] for key in Quantization().to_dict()}
    return Edge(data["data-operator"], int(data["data-source"]), Quantization.from_dict(numbers))


def _drawable(cell: Cell) -> Cell:
    for node, edges in enumerate(cell, start=2):
        for edge in edges:
            if edge.source not in range(node):
                raise SpaceError(f"genotype: node {node} cannot read {edge.source}; sources are 0..{node - 1}")
    return cell


def _plan(cell: Cell) -> _Plan:
    """Lay a cell out: inputs at the top left, each node one row lower and one column further right."""
    inputs = [(_input_left(number) + _INPUT[0] / 2, _TOP) for number in (0, 1)]
    x, y = _input_left(2), _TOP + _INPUT[1] / 2 + _GAP
    wires: list[_Wire] = []
    nodes: list[tuple[float, float]] = []
    for node, edges in enumerate(cell, start=2):
        rows = [y + _PILL[1] / 2 + slot * _LINE for slot in range(max(len(edges), 1))]
        wires += [_Wire(edge, node, slot, x, rows[slot]) for slot, edge in enumerate(edges)]
        nodes.append((x + _PILL[0] + 2 * _NODE, (rows[0] + rows[-1]) / 2))
        x, y = x + _COLUMN, rows[-1] + _PILL[1] / 2 + _GAP
    return _Plan(tuple(wires), (*inputs, *nodes), tuple(nodes), x + 66, y)


def _input_left(position: int) -> float:
    return _MARGIN + position * (_INPUT[0] + 12)


def _draw_cell(root: ET.Element, kind: str, plan: _Plan, x: float, y: float) -> None:
    text(root, (x, y + 14), f"{kind.capitalize()} cell", size=14, bold=True)
    place = {"transform": f"translate({number(x)} {number(y + _CAPTION)})"}
    group = ET.SubElement(root, "g", place | {"data-cell": kind, "data-nodes": str(len(plan.nodes))})
    box(group, 0, 0, (plan.width, plan.height), fill=_PAPER, stroke="#e2e5ea", radius=10)
    _draw_output(group, plan)
    for wire, lane in _lanes(plan):
        _draw_edge(group, kind, wire, plan, lane)
    for position in (0, 1):
        _draw_input(group, position)
    for node, (nx, ny) in enumerate(plan.nodes, start=2):
        circle = {"cx": number(nx), "cy": number(ny), "r": number(_NODE), "fill": "#ffffff"}
        ET.SubElement(group, "circle", circle | {"stroke": _DARK, "stroke-width": "1.6"})
        text(group, (nx, ny + 4), str(node), bold=True, centred=True)


def _draw_input(group: ET.Element, position: int) -> None:
    left = _input_left(position)
    box(group, left, _TOP - _INPUT[1] / 2, _INPUT, fill=_DARK, stroke=_DARK, radius=6)
    label = text(group, (left + _INPUT[0] / 2, _TOP + 3), "c", fill="#ffffff", centred=True)
    subscript(label, f"k-{2 - position}")


def _draw_output(group: ET.Element, plan: _Plan) -> None:
    """Draw a bar at the right that all nodes run into: their concatenation."""
    x, top, bottom = plan.width - 44, plan.nodes[0][1] - 26, plan.nodes[-1][1] + 26
    for nx, ny in plan.nodes:
        path(group, f"M{number(nx + _NODE)} {number(ny)}H{number(x)}", _DARK, width=1.2)
    box(group, x, top, (26, bottom - top), fill=_DARK, stroke=_DARK, radius=6)
    middle = (top + bottom) / 2
    label = text(group, (x + 17, middle), "concat", fill="#ffffff", centred=True)
    label.set("transform", f"rotate(-90 {number(x + 17)} {number(middle)})")


def _lanes(plan: _Plan) -> Iterator[tuple[_Wire, float]]:
    """Yield each wire with its shift from its source's middle; those that end lowest run leftmost: none cross."""
    for source in range(len(plan.sources)):
        wires = sorted((wire for wire in plan.wires if wire.edge.source == source), key=lambda wire: -wire.y)
        lane = min(_LANE, 2 * _NODE / max(len(wires), 1))
        for position, wire in enumerate(wires):
            yield wire, (position - (len(wires) - 1) / 2) * lane


def _draw_edge(group: ET.Element, kind: str, wire: _Wire, plan: _Plan, lane: float) -> None:
    stroke, fill, _ = _FAMILIES[_family(wire.edge.operator)]
    dashed = wire.edge.operator == "none"
    edge = ET.SubElement(group, "g", _edge_data(wire))
    from_source = _down_and_right(plan.sources[wire.edge.source], lane, wire)
    path(edge, from_source, _PAPER, width=4.5)  # a gap where it crosses another
    path(edge, from_source, stroke, width=1.7, dashed=dashed)
    path(edge, _into_node(wire, plan.nodes[wire.node - 2]), stroke, width=1.7, dashed=dashed)
    pill = box(edge, wire.x, wire.y - _PILL[1] / 2, _PILL, fill=fill, stroke=stroke, radius=7)
    if dashed:
        pill.set("stroke-dasharray", "4 3")
    _label(edge, kind, wire, stroke)


def _down_and_right(source: tuple[float, float], lane: float, wire: _Wire) -> str:
    bend = number(_BEND)
    down = f"M{number(source[0] + lane)} {number(source[1])}V{number(wire.y - _BEND)}"
    return f"{down}q0 {bend} {bend} {bend}H{number(wire.x)}"


def _into_node(wire: _Wire, node: tuple[float, float]) -> str:
    right, y, height = wire.x + _PILL[0], number(wire.y), number(node[1])
    bend, end = number((right + node[0]) / 2), number(node[0] - _NODE)
    return f"M{number(right)} {y}C{bend} {y} {bend} {height} {end} {height}"


def _label(group: ET.Element, kind: str, wire: _Wire, colour: str) -> None:
    """Write operator and, where it has numbers, quantisation into the box."""
    edge, middle = wire.edge, wire.x + _PILL[0] / 2
    stride = 2 if kind == "reduction" and edge.source < 2 else 1
    name = f"{edge.operator} /2" if stride == 2 and edge.operator != "none" else edge.operator
    if not has_numbers(edge.operator, stride):
        text(group, (middle, wire.y + 4), name, size=11.5, fill=colour, bold=True, centred=True)
        return
    text(group, (middle, wire.y - 2.5), name, size=11.5, fill=colour, bold=True, centred=True)
    numbers = text(group, (middle, wire.y + 11), _short(edge.quantization), size=10, fill=INK, centred=True)
    if len(numbers.text or "") > 24:
        numbers.attrib.update({"textLength": number(_PILL[0] - 10), "lengthAdjust": "spacingAndGlyphs"})


_Entry = tuple[float, float, str, str]  # of the legend: (x, y, words, family or nothing)


def _legend(genotype: Genotype, width: float, y: float) -> list[_Entry]:
    """Return the legend from ``y`` on: the families that occur, then how numbers are written."""
    present = {_family(edge.operator) for kind in KINDS for node in genotype.cell(kind) for edge in node}
    families = [(_FAMILIES[family][2], family) for family in _FAMILIES if family in present]
    placed = list(_wrapped(families, width, y))
    notes = [(note, "") for note in ((*_NOTES, _STRIDED) if genotype.reduction else _NOTES)]
    return placed + list(_wrapped(notes, width, placed[-1][1] + _LEGEND_ROW if placed else y))


def _wrapped(entries: list[tuple[str, str]], width: float, y: float) -> Iterator[_Entry]:
    x = _MARGIN
    for words, family in entries:
        step = 6.4 * len(words) + (40 if family else 18)
        if x > _MARGIN and x + step > width:
            x, y = _MARGIN, y + _LEGEND_ROW
        yield x, y, words, family
        x += step


def _draw_legend(root: ET.Element, legend: list[_Entry]) -> None:
    for x, y, words, family in legend:
        if family:
            stroke, fill, _ = _FAMILIES[family]
            box(root, x, y - 10, (14, 14), fill=fill, stroke=stroke, radius=3)
        text(root, (x + 20 if family else x, y + 1), words, size=11.5, fill=INK if family else _GREY)


def _edge_data(wire: _Wire) -> dict[str, str]:
    edge = wire.edge
    place = {"data-node": str(wire.node), "data-slot": str(wire.slot), "data-source": str(edge.source)}
    numbers = {_attribute(key): str(value) for key, value in edge.quantization.to_dict().items()}
    return {"class": "edge", "data-operator": edge.operator} | place | numbers


def _attribute(key: str) -> str:
    return "data-" + key.replace("_", "-")


def _family(operator: str) -> str:
    for family in _FAMILIES:
        if operator.startswith(family):
            return family
    raise SpaceError(f"unknown operator {operator!r} cannot be drawn")


def _short(quantization: Quantization) -> str:
    weight, feature = _short_range(quantization.weight_range), _short_range(quantization.feature_range)
    return f"w{quantization.weight_bits} {weight} · f{quantization.feature_bits} {feature}"


def _short_range(limits: Range) -> str:
    return {"power_of_two": "2ⁿ", "fixed": f"±{limits.limit:g}"}.get(limits.policy, limits.policy)
