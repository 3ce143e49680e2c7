"""Cells of a network as text, for terminals.

Every value has a rail that runs downwards: 0 and 1 are the outputs of the last two cells, 2 and more the nodes. An edge
leaves the rail of its source, goes through its operator and meets the others of its node, whose sum begins a rail:

    0   1
    │   │
    ├───┼───▶ sep_conv_3x3  w8 2ⁿ f8 ±2 ─┐
    │   ├───▶ skip_connect ──────────────┤
    │   │   2 ◀──────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ftnas.quantization import Quantization, Range
from ftnas.space import KINDS, Cell, Edge, Genotype, has_numbers

_STEP = 4  # columns from one rail to the next


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of a drawing.

    Attributes:
        tee: where a wire leaves a rail that goes on; ``end`` where the rail is read for the last time.
        into: the arrow into an operator; ``back`` the one into a node.
        corners: at the right of a node's first edge, of each further one, and of the line of its sum.
        join: where a node's rail ends in the cell's output.
    """

    rail: str
    wire: str
    tee: str
    end: str
    crossing: str
    into: str
    back: str
    corners: tuple[str, str, str]
    join: str
    power: str
    either: str


UNICODE = Glyphs("│", "─", "├", "╰", "┼", "▶", "◀", ("┐", "┤", "┘"), "┴", "2ⁿ", "±")
ASCII = Glyphs("|", "-", "+", "`", "|", ">", "<", (".", "+", "'"), "+", "2^n", "+-")
NEEDED = "│─├╰┼▶◀┐┤┘┴ⁿ±"


def genotype_lines(genotype: Genotype, glyphs: Glyphs = UNICODE) -> list[str]:
    """Return the cells one below the other, and what the signs mean."""
    lines = []
    for kind in KINDS:
        if genotype.cell(kind):
            lines += [f"{kind} cell", *(f"  {line}" for line in cell_lines(genotype.cell(kind), kind, glyphs)), ""]
    signs = f"{glyphs.power} power of two, max largest value, {glyphs.either}x fixed at x"
    strided = "; /2 stride 2" if genotype.reduction else ""
    return [
        *lines,
        "0 and 1 are the outputs of the last two cells, 1 the nearer; every node is a sum",
        f"w weights, f features: bits and range ({signs}){strided}",
    ]


def cell_lines(cell: Cell, kind: str, glyphs: Glyphs = UNICODE) -> list[str]:
    """Return the drawing of one cell of ``kind``, normal or reduction; its nodes read only what is above them."""
    labels = {(node, slot): _label(edge, kind, glyphs) for node, slot, edge in _edges(cell)}
    width = max(map(len, labels.values()), default=0)
    lines = ["0   1", _rails(cell, (0, -1), glyphs, count=2)]
    for number, node in enumerate(cell, start=2):
        words = [labels[number, slot].ljust(width) for slot in range(len(node))]
        lines += _node_lines(cell, number, words, glyphs)
        lines.append(_rails(cell, (number, len(node)), glyphs, count=number + 1))
    lines[-1] = _output(len(cell), glyphs)
    return [line.rstrip() for line in lines]


def _edges(cell: Cell) -> Iterator[tuple[int, int, Edge]]:
    """Yield (node, slot, edge) in the order of the drawing."""
    for number, node in enumerate(cell, start=2):
        for slot, edge in enumerate(node):
            yield number, slot, edge


def _rails(cell: Cell, row: tuple[int, int], glyphs: Glyphs, *, count: int) -> str:
    """Return the rails of the first ``count`` values below ``row``, a (node, slot).

    A node's rail runs down to the cell's output, that of an input to the last edge that reads it.
    """
    read = {e.source for node, slot, e in _edges(cell) if (node, slot) > row and e.operator != "none"}
    return "".join((glyphs.rail if v > 1 or v in read else " ").ljust(_STEP) for v in range(count))


def _node_lines(cell: Cell, number: int, words: list[str], glyphs: Glyphs) -> list[str]:
    """Return a line for each edge of a node, and one for their sum."""
    first, further, last = glyphs.corners
    lines, corner = [], ""
    for slot, (edge, word) in enumerate(zip(cell[number - 2], words, strict=True)):
        rails = _rails(cell, (number, slot), glyphs, count=number)
        if edge.operator == "none":
            lines.append(f"{rails}  {word}  {glyphs.rail if corner else ''}")
        else:
            corner = further if corner else first
            end = word.rstrip() + " " + glyphs.wire * (len(word) - len(word.rstrip()) + 1) + corner
            lines.append(f"{_wire(rails, edge.source, glyphs)}{glyphs.into} {end}")
    rails = _rails(cell, (number, len(words)), glyphs, count=number)
    back = f" {glyphs.back}{glyphs.wire * (len(words[0]) + 2 - len(str(number)))}{last}" if corner else " = 0"
    return [*lines, f"{rails}{number}{back}"]


def _wire(rails: str, source: int, glyphs: Glyphs) -> str:
    """Return ``rails`` with a wire that leaves that of ``source`` to the right and crosses the others."""
    start = _STEP * source
    leaving = glyphs.tee if rails[start] == glyphs.rail else glyphs.end
    crossed = rails[start + 1 :].replace(" ", glyphs.wire).replace(glyphs.rail, glyphs.crossing)
    return rails[:start] + leaving + crossed


def _output(nodes: int, glyphs: Glyphs) -> str:
    """Return the line in which all nodes' rails meet."""
    gap = glyphs.wire * (_STEP - 1)
    joined = gap.join([glyphs.end, *([glyphs.join] * (nodes - 1))])
    return " " * 2 * _STEP + joined + glyphs.wire * 3 + glyphs.into + " concatenated: the cell's output"


def _label(edge: Edge, kind: str, glyphs: Glyphs) -> str:
    """Return the operator, its stride where that is 2, and its numbers where it has some."""
    stride = 2 if kind == "reduction" and edge.source < 2 else 1
    numbers = f"  {_numbers(edge.quantization, glyphs)}" if has_numbers(edge.operator, stride) else ""
    return f"{edge.operator}{' /2' if stride == 2 and edge.operator != 'none' else ''}{numbers}"


def _numbers(quantization: Quantization, glyphs: Glyphs) -> str:
    weights, features = _range(quantization.weight_range, glyphs), _range(quantization.feature_range, glyphs)
    return f"w{quantization.weight_bits} {weights} f{quantization.feature_bits} {features}"


def _range(limits: Range, glyphs: Glyphs) -> str:
    return {"power_of_two": glyphs.power, "fixed": f"{glyphs.either}{limits.limit:g}"}.get(limits.policy, limits.policy)
