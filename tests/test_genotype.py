"""Genotypes: plain data, one canonical form for all isomorphic ones."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import pytest
from genotype_strategies import any_genotype, cells
from hypothesis import given, settings
from hypothesis import strategies as st

from ftnas.errors import SpaceError
from ftnas.space import Cell, Edge, Genotype, load_space, w_ftt_net


@settings(max_examples=40)
@given(any_genotype)
def test_a_genotype_survives_json(genotype: Genotype) -> None:
    assert Genotype.from_json(genotype.to_json()) == genotype


@settings(max_examples=40)
@given(any_genotype)
def test_equal_genotypes_give_equal_text_and_hash(genotype: Genotype) -> None:
    twin = Genotype.from_dict(json.loads(genotype.to_json()))
    assert (twin.to_json(), hash(twin), twin.key) == (genotype.to_json(), hash(genotype), genotype.key)


@settings(max_examples=40)
@given(any_genotype)
def test_a_genotype_and_its_canonical_form_share_a_key_and_a_form_only_if_they_are_equal(genotype: Genotype) -> None:
    canonical = genotype.canonical()
    assert canonical.key == genotype.key
    assert (canonical.form == genotype.form) == (canonical.to_json() == genotype.to_json())


@settings(max_examples=40)
@given(any_genotype)
def test_the_canonical_form_is_its_own_canonical_form(genotype: Genotype) -> None:
    assert genotype.canonical().canonical() == genotype.canonical()


@settings(max_examples=40)
@given(any_genotype)
def test_the_canonical_form_keeps_every_operator_and_its_numbers(genotype: Genotype) -> None:
    def content(cell: Cell) -> Counter[Any]:
        return Counter((edge.operator, edge.quantization) for node in cell for edge in node)

    canonical = genotype.canonical()
    assert content(canonical.normal) == content(genotype.normal)
    assert content(canonical.reduction) == content(genotype.reduction)


@settings(max_examples=40)
@given(cells(), st.randoms(use_true_random=False))
def test_the_canonical_form_ignores_the_order_of_edges(cell: Cell, random: Any) -> None:
    shuffled = tuple(tuple(random.sample(node, len(node))) for node in cell)
    assert Genotype(shuffled).canonical() == Genotype(cell).canonical()


@settings(max_examples=40)
@given(cells(least_nodes=2), st.data())
def test_the_canonical_form_ignores_the_order_of_nodes(cell: Cell, data: st.DataObject) -> None:
    reordered = renumbered(cell, data.draw(st.sampled_from(valid_orders(cell))))
    assert Genotype(reordered).canonical() == Genotype(cell).canonical()


@settings(max_examples=40)
@given(cells(), st.data())
def test_the_canonical_form_ignores_where_none_reads(cell: Cell, data: st.DataObject) -> None:
    moved = tuple(
        tuple(
            Edge("none", data.draw(st.integers(0, node - 1)), edge.quantization) if edge.operator == "none" else edge
            for edge in edges
        )
        for node, edges in enumerate(cell, start=2)
    )
    assert Genotype(moved).canonical() == Genotype(cell).canonical()


def test_two_cells_of_the_tiny_space_share_a_key_exactly_when_they_are_isomorphic() -> None:
    space = load_space("tiny")
    decisions = space.decisions()
    options = itertools.product(*(range(decision.options) for decision in decisions))
    names = [decision.name for decision in decisions]
    genotypes = [space.genotype(dict(zip(names, numbers, strict=True))) for numbers in options]
    assert len(genotypes) == space.size
    views = [(space.canonical(genotype).key, meanings(genotype.normal)) for genotype in genotypes]
    for (key, one), (other_key, other) in itertools.combinations(views, 2):
        assert (key == other_key) == bool(one & other)


def test_swapping_the_two_cell_inputs_changes_the_key() -> None:
    one = Genotype(((Edge("sep_conv_3x3", 0), Edge("conv_1x1", 1)),))
    other = Genotype(((Edge("sep_conv_3x3", 1), Edge("conv_1x1", 0)),))
    assert one.key != other.key


def test_the_key_of_a_published_net_never_changes() -> None:
    assert w_ftt_net().key == "d0926ab5b8b9"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema must be 1, got 2"),
        ({"normal": None}, "NoneType"),
        ({"normal": [[{"operator": "none", "source": 0}]]}, "key 'quantization' is missing"),
        ({"normal": [[{"operator": "none", "source": "0"}]]}, "source must be a whole number from 0, got '0'"),
        ({"normal": [[{"operator": "none", "source": -1}]]}, "source must be a whole number from 0, got -1"),
        ({"normal": [[{"operator": 3, "source": 0}]]}, "operator must be a name, got 3"),
        ({"normal": [["none"]]}, "string indices"),
        ({"normal": [[{"operator": "none", "source": 0, "quantization": {}}]]}, "key 'weight_bits' is missing"),
        ({"normal": [[{"operator": "none", "source": 0, "quantization": 8}]]}, "genotype: "),
    ],
)
def test_wrong_data_is_one_clear_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError) as error:
        Genotype.from_dict(w_ftt_net().to_dict() | change)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"schema": 1}'])
def test_text_that_is_no_genotype_is_one_clear_line(text: str) -> None:
    with pytest.raises(SpaceError, match=r"^genotype: [^\n]+$"):
        Genotype.from_json(text)


def valid_orders(cell: Cell) -> list[tuple[int, ...]]:
    """Return the orders of nodes in which each reads only earlier ones."""

    def fits(order: tuple[int, ...]) -> bool:
        place = {node: position for position, node in enumerate(order)}
        edges = ((node, edge) for node, node_edges in enumerate(cell) for edge in node_edges if edge.source >= 2)
        return all(place[edge.source - 2] < place[node] for node, edge in edges)

    return [order for order in itertools.permutations(range(len(cell))) if fits(order)]


def renumbered(cell: Cell, order: tuple[int, ...]) -> Cell:
    new = {0: 0, 1: 1} | {old + 2: position + 2 for position, old in enumerate(order)}
    return tuple(tuple(Edge(e.operator, new[e.source], e.quantization) for e in cell[old]) for old in order)


def meanings(cell: Cell) -> frozenset[Any]:
    """Return what a cell of the tiny space computes, under every naming of its nodes, with no help of the library."""

    def edge(names: dict[int, str], source: int, operator: str, numbers: Any) -> Any:
        if operator == "none":
            return ("none",)
        return (operator, names[source], numbers if operator == "sep_conv_3x3" else None)

    found = set()
    for letters in itertools.permutations("ab"):
        names = {0: "input 0", 1: "input 1", 2: letters[0], 3: letters[1]}
        nodes = (
            (names[node], tuple(sorted(edge(names, e.source, e.operator, e.quantization) for e in edges)))
            for node, edges in enumerate(cell, start=2)
        )
        found.add(frozenset(nodes))
    return frozenset(found)
