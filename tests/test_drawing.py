"""Drawings of cells: they can be read back, and nothing in them overlaps."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import pytest
from genotype_strategies import any_genotype, genotypes_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ftnas.errors import SpaceError
from ftnas.report.drawing import genotype_from_svg, genotype_svg
from ftnas.space import Edge, Genotype, hand_made, load_space, w_ftt_net

SVG = "{http://www.w3.org/2000/svg}"
WEIGHTS = load_space("darts_weight_faults")
Box = tuple[float, float, float, float]


@settings(max_examples=50)
@given(any_genotype, st.text(max_size=20))
def test_a_genotype_survives_its_drawing(genotype: Genotype, title: str) -> None:
    assert genotype_from_svg(genotype_svg(genotype, title)) == genotype


def test_an_indented_drawing_reads_the_same() -> None:
    root = ET.fromstring(genotype_svg(w_ftt_net()))
    ET.indent(root)
    assert genotype_from_svg(ET.tostring(root, encoding="unicode")) == w_ftt_net()


def test_the_same_genotype_gives_the_same_drawing() -> None:
    assert genotype_svg(w_ftt_net(), "a") == genotype_svg(w_ftt_net(), "a")


@settings(max_examples=30)
@given(genotypes_of(WEIGHTS))
def test_no_two_boxes_of_a_cell_overlap(genotype: Genotype) -> None:
    for cell in cells_of(genotype_svg(genotype)):
        boxes = pills(cell)
        assert not any(overlap(one, other) for one, other in itertools.combinations(boxes, 2))


@settings(max_examples=30)
@given(genotypes_of(WEIGHTS))
def test_everything_lies_within_its_cell(genotype: Genotype) -> None:
    for cell in cells_of(genotype_svg(genotype)):
        width, height = (float(cell[0].attrib[key]) for key in ("width", "height"))
        for x, y, w, h in pills(cell):
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height


@settings(max_examples=30)
@given(genotypes_of(WEIGHTS))
def test_no_wire_runs_through_the_box_of_an_operator(genotype: Genotype) -> None:
    for cell in cells_of(genotype_svg(genotype)):
        edges = [group for group in cell if group.get("class") == "edge"]
        boxes = [(float(b.attrib["x"]), float(b.attrib["y"]), *sides(b)) for e in edges for b in e.iter(f"{SVG}rect")]
        lines = [line for edge in edges for line in straight_parts(edge)]
        assert not any(overlap(line, box) for line in lines for box in boxes)


def test_every_edge_is_drawn_with_its_operator() -> None:
    drawn = [edge.findtext(f"{SVG}text") for edge in edges_of(genotype_svg(hand_made(WEIGHTS)))]
    assert drawn == ["sep_conv_3x3"] * 8 + ["sep_conv_3x3 /2"] * 8


def test_only_none_edges_are_dashed() -> None:
    cell = ((Edge("none", 0), Edge("skip_connect", 1)),)
    none, skip = edges_of(genotype_svg(Genotype(cell)))
    assert any("stroke-dasharray" in part.attrib for part in none)
    assert not any("stroke-dasharray" in part.attrib for part in skip)


def test_numbers_are_written_only_where_an_edge_has_some() -> None:
    cell = ((Edge("skip_connect", 0), Edge("sep_conv_3x3", 0)),)
    lines = [len(edge.findall(f"{SVG}text")) for edge in edges_of(genotype_svg(Genotype(cell, cell)))]
    assert sorted(lines) == [1, 2, 2, 2]  # a skip at stride 2 is two convolutions


def test_the_title_is_text_and_never_markup() -> None:
    assert ET.fromstring(genotype_svg(w_ftt_net(), "<script>&")).findtext(f"{SVG}title") == "<script>&"


@pytest.mark.parametrize(
    ("edge", "message"),
    [(Edge("conv_7x7", 0), "unknown operator 'conv_7x7'"), (Edge("none", 2), "node 2 cannot read 2; sources are 0..1")],
)
def test_a_cell_that_cannot_be_drawn_is_refused(edge: Edge, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        genotype_svg(Genotype(((edge,),)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<svg", '<!DOCTYPE svg [<!ENTITY a "b">]><svg', "a DOCTYPE is not allowed"),
        ("</svg>", "", "cannot be read"),
        ("data-cell", "data-sell", "needs one normal cell"),
        ('data-cell="reduction"', 'data-cell="normal"', "needs one normal cell"),
        ('data-cell="reduction"', 'data-cell="odd"', "needs one normal cell"),
        ("data-source", "data-sauce", "lacks 'data-source'"),
        ('data-slot="1"', 'data-slot="0"', "edge 0 of node 2 is out of place"),
        ('data-slot="1"', 'data-slot="2"', "lacks 1"),
        ('data-node="5"', 'data-node="9"', "node 9 is out of place"),
        ('data-weight-bits="8"', 'data-weight-bits="eight"', "cannot be read"),
        ('data-weight-range="power_of_two"', 'data-weight-range="loose"', "unknown range 'loose'"),
    ],
)
def test_a_broken_drawing_is_one_clear_line(old: str, new: str, message: str) -> None:
    with pytest.raises(SpaceError) as error:
        genotype_from_svg(genotype_svg(w_ftt_net()).replace(old, new))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def cells_of(drawing: str) -> list[ET.Element]:
    return [group for group in ET.fromstring(drawing).iter(f"{SVG}g") if "data-cell" in group.attrib]


def edges_of(drawing: str) -> list[ET.Element]:
    return [group for group in ET.fromstring(drawing).iter(f"{SVG}g") if group.get("class") == "edge"]


def pills(cell: ET.Element) -> list[Box]:
    """Return the boxes of operators, inputs and output, and those of nodes, as (x, y, width, height)."""
    boxes = list(cell.iter(f"{SVG}rect"))[1:]  # the first is the cell itself
    rectangles = [(float(b.attrib["x"]), float(b.attrib["y"]), *sides(b)) for b in boxes]
    circles = [(*(float(c.attrib[k]) for k in ("cx", "cy")), float(c.attrib["r"])) for c in cell.iter(f"{SVG}circle")]
    return rectangles + [(x - r, y - r, 2 * r, 2 * r) for x, y, r in circles]


def straight_parts(edge: ET.Element) -> list[Box]:
    """Return the fall and the run of an edge's wire, ``M x y V y q ... H x``, as boxes of no width."""
    numbers = [float(n) for n in re.findall(r"-?[0-9.]+", edge.findall(f"{SVG}path")[1].attrib["d"])]
    x, top, bottom, bend, end = numbers[0], numbers[1], numbers[2], numbers[4], numbers[-1]
    return [(x, top, 0.0, bottom - top), (x + bend, bottom + bend, end - x - bend, 0.0)]


def sides(box: ET.Element) -> tuple[float, float]:
    return float(box.attrib["width"]), float(box.attrib["height"])


def overlap(one: Box, other: Box) -> bool:
    apart = any(one[i] + one[i + 2] <= other[i] or other[i] + other[i + 2] <= one[i] for i in (0, 1))
    return not apart
