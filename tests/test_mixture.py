"""The mixture of all operators: everything has a gradient, and one choice an edge is that path."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from genotype_strategies import genotypes_of
from hypothesis import given, settings
from hypothesis import strategies as st
from path_nets import SPACES, fresh_supernet, images, mixed

from ftnas.networks import Mixture, all_edges
from ftnas.space import Genotype, SearchSpace
from ftnas.training import recalibrate


def even_mixture(space: SearchSpace) -> dict[str, Mixture]:
    edges = len(all_edges(space.nodes))
    shares = [len(space.operators), len(space.quantization)]
    return {
        kind: Mixture(*(torch.full((edges, options), 1 / options, requires_grad=True) for options in shares))
        for kind in space.kinds
    }


def test_the_edges_of_a_cell_are_every_pair_of_a_node_and_an_earlier_value() -> None:
    assert all_edges(3) == ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 0), (4, 1), (4, 2), (4, 3))


@mixed
def test_a_mixture_gives_every_operator_a_gradient(name: str) -> None:
    supernet = copy.deepcopy(fresh_supernet(name)).train()
    supernet(images(), even_mixture(SPACES[name])).square().sum().backward()
    assert [key for key, parameter in supernet.named_parameters() if parameter.grad is None] == []


@mixed
def test_a_mixture_gives_all_shares_but_those_of_none_a_gradient(name: str) -> None:
    space, supernet = SPACES[name], copy.deepcopy(fresh_supernet(name)).train()
    mixtures = even_mixture(space)
    supernet(images(), mixtures).square().sum().backward()
    for mixture in mixtures.values():
        gradient = mixture.operators.grad
        assert gradient is not None
        assert ((gradient != 0).all(0)).tolist() == [operator != "none" for operator in space.operators]


@mixed
def test_a_mixture_gives_the_shares_of_numbers_gradients(name: str) -> None:
    supernet = copy.deepcopy(fresh_supernet(name)).train()
    mixtures = even_mixture(SPACES[name])
    supernet(images(), mixtures).square().sum().backward()
    for mixture in mixtures.values():
        assert mixture.quantization.grad is not None
        assert bool((mixture.quantization.grad != 0).any(1).all())


def one_hot(space: SearchSpace, genotype: Genotype) -> dict[str, Mixture]:
    """Return the mixture that gives all of an edge to its operator and numbers, and of any other edge to none."""
    edges, none = all_edges(space.nodes), space.operators.index("none")
    mixtures = {}
    for kind in space.kinds:
        operators = torch.zeros(len(edges), len(space.operators))
        quantization = torch.zeros(len(edges), len(space.quantization))
        chosen = {(n, e.source): e for n, node in enumerate(genotype.cell(kind), start=2) for e in node}
        for row, place in enumerate(edges):
            edge = chosen.get(place)
            operators[row, space.operators.index(edge.operator) if edge else none] = 1.0
            quantization[row, space.quantization.index(edge.quantization) if edge else 0] = 1.0
        mixtures[kind] = Mixture(operators, quantization)
    return mixtures


def reads_each_source_once(genotype: Genotype) -> bool:
    cells: Mapping[str, Any] = {kind: genotype.cell(kind) for kind in ("normal", "reduction")}
    return all(len({edge.source for edge in node}) == len(node) for cell in cells.values() for node in cell)


@settings(max_examples=3)
@given(st.data())
@mixed
def test_a_mixture_of_one_choice_an_edge_is_that_path(name: str, data: st.DataObject) -> None:
    space = SPACES[name]
    # Canonical forms move ``none`` to source 0, where it would stand beside another edge.
    genotype = data.draw(genotypes_of(space).map(space.canonical).filter(reads_each_source_once))
    supernet = copy.deepcopy(fresh_supernet(name))
    recalibrate(supernet, images(), forward=lambda x: supernet(x, even_mixture(space)))
    supernet.eval()
    assert torch.allclose(supernet(images(), one_hot(space, genotype)), supernet(images(), genotype), atol=1e-6)
