"""Deriving architectures from a supernet: by magnitude, and by perturbation under faults."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftnas.networks import all_edges
from ftnas.quantization import Quantization, Range
from ftnas.runtime import keyed_generator
from ftnas.search.architecture import ArchitectureWeights
from ftnas.search.derivation import by_magnitude, by_perturbation
from ftnas.space import Edge, Genotype, SearchSpace, Sizes

PLAIN, CLIPPED, NARROW = Quantization(), Quantization(feature_range=Range("fixed", 2.0)), Quantization(weight_bits=4)


def space_of(*, nodes: int = 3, inputs_per_node: int = 2) -> SearchSpace:
    sizes = Sizes(channels=4, cells=2, reductions=(1,))
    return SearchSpace(
        name="test",
        operators=("none", "skip_connect", "sep_conv_3x3", "conv_1x1", "relu_conv_bn_3x3"),
        quantization=(PLAIN, CLIPPED, NARROW),
        nodes=nodes,
        inputs_per_node=inputs_per_node,
        search=sizes,
        final=sizes,
    )


SPACE = space_of()
EDGES = all_edges(SPACE.nodes)

Logits = dict[tuple[str, int, int], tuple[str, float, Quantization]]  # (kind, node, source) -> strongest options


def weights_with(logits: Logits) -> ArchitectureWeights:
    """Return architecture weights that are 0 but for these."""
    architecture = ArchitectureWeights(SPACE)
    with torch.no_grad():
        for (kind, node, source), (operator, size, numbers) in logits.items():
            row = EDGES.index((node, source))
            architecture.operators[kind][row, SPACE.operators.index(operator)] = size
            architecture.quantization[kind][row, SPACE.quantization.index(numbers)] = 1.0
    return architecture


def test_magnitude_takes_each_nodes_strongest_edges_with_their_strongest_options() -> None:
    # In an order that no relabelling of the nodes leaves alone.
    best: Logits = {
        ("normal", 2, 0): ("relu_conv_bn_3x3", 3.0, NARROW),
        ("normal", 2, 1): ("sep_conv_3x3", 2.0, PLAIN),
        ("normal", 3, 0): ("sep_conv_3x3", 1.0, PLAIN),  # weaker than the other two
        ("normal", 3, 1): ("conv_1x1", 3.0, CLIPPED),
        ("normal", 3, 2): ("sep_conv_3x3", 2.0, NARROW),
        ("normal", 4, 0): ("conv_1x1", 2.0, NARROW),
        ("normal", 4, 1): ("conv_1x1", 3.0, PLAIN),
        **{("reduction", node, source): ("sep_conv_3x3", 2.0, CLIPPED) for node in (2, 3, 4) for source in (0, 1)},
    }
    genotype = by_magnitude(weights_with(best))
    assert [set(node) for node in genotype.normal] == [
        {Edge("relu_conv_bn_3x3", 0, NARROW), Edge("sep_conv_3x3", 1, PLAIN)},
        {Edge("conv_1x1", 1, CLIPPED), Edge("sep_conv_3x3", 2, NARROW)},
        {Edge("conv_1x1", 0, NARROW), Edge("conv_1x1", 1, PLAIN)},
    ]
    assert [set(node) for node in genotype.reduction] == 3 * [
        {Edge("sep_conv_3x3", 0, CLIPPED), Edge("sep_conv_3x3", 1, CLIPPED)}
    ]


def test_magnitude_keeps_each_node_in_its_place() -> None:
    # Another node order is the same architecture, but reads other weights of the supernet.
    best: Logits = {
        (kind, node, source): (operator, 3.0, PLAIN)
        for kind in SPACE.kinds
        for node, operator in ((2, "sep_conv_3x3"), (3, "relu_conv_bn_3x3"), (4, "conv_1x1"))
        for source in (0, 1)
    }
    genotype = by_magnitude(weights_with(best))
    for kind in SPACE.kinds:
        assert [node[0].operator for node in genotype.cell(kind)] == ["sep_conv_3x3", "relu_conv_bn_3x3", "conv_1x1"]


def test_magnitude_ranks_edges_by_their_share_of_the_softmax() -> None:
    architecture = weights_with(
        {("normal", 3, 0): ("conv_1x1", 3.0, PLAIN), ("normal", 3, 1): ("conv_1x1", 2.0, PLAIN)}
    )
    with torch.no_grad():
        # The largest logit of all, but every operator of that edge has it.
        architecture.operators["normal"][EDGES.index((3, 2))] = 9.0
    assert {edge.source for edge in by_magnitude(architecture).normal[1]} == {0, 1}


@given(st.integers(0, 2**32))
def test_magnitude_never_takes_none_however_strong(seed: int) -> None:
    architecture = ArchitectureWeights(SPACE)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for kind in SPACE.kinds:
            architecture.operators[kind].copy_(torch.randn(len(EDGES), len(SPACE.operators), generator=rng))
            architecture.operators[kind][:, 0] += 5.0
    genotype = by_magnitude(architecture)
    SPACE.check(genotype)
    assert all(edge.operator != "none" for kind in SPACE.kinds for node in genotype.cell(kind) for edge in node)


class Planted:
    """Faulty accuracy that is additive over a cell's places: each (kind, node, source, option) has a worth."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space, self.calls = space, 0
        self.edges = all_edges(space.nodes)
        rng = keyed_generator("planted", seed)
        self.operators = {
            kind: torch.rand(len(self.edges), len(space.operators), generator=rng) for kind in space.kinds
        }
        self.numbers = {
            kind: torch.rand(len(self.edges), len(space.quantization), generator=rng) for kind in space.kinds
        }

    def __call__(self, genotype: Genotype) -> float:
        self.calls += 1
        return sum(
            self._worth(kind, node, edge)
            for kind in self.space.kinds
            for node, edges in enumerate(genotype.cell(kind), start=2)
            for edge in edges
        )

    def _worth(self, kind: str, node: int, edge: Edge) -> float:
        row = self.edges.index((node, edge.source))
        operator = self.space.operators.index(edge.operator)
        numbers = self.space.quantization.index(edge.quantization)
        return float(self.operators[kind][row, operator] + self.numbers[kind][row, numbers])

    def best(self, kind: str, node: int) -> Edge:
        """Return the edge into ``node`` that is worth most, other than ``none``."""
        edges = [
            Edge(operator, source, numbers)
            for operator in self.space.operators[1:]
            for source in range(node)
            for numbers in self.space.quantization
        ]
        return max(edges, key=lambda edge: self._worth(kind, node, edge))


# Without operators whose numbers count for nothing, the best edge of a place is one edge.
NUMBERED = space_of(inputs_per_node=1).model_copy(update={"operators": ("none", "sep_conv_3x3", "conv_1x1")})


@pytest.mark.parametrize("completions", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_perturbation_finds_the_planted_edge_of_every_node(seed: int, completions: int) -> None:
    planted = Planted(NUMBERED, seed)
    genotype = by_perturbation(NUMBERED, planted, completions=completions, key="test")
    for kind in NUMBERED.kinds:
        wanted = [planted.best(kind, node) for node in range(2, NUMBERED.nodes + 2)]
        assert [node[0] for node in genotype.cell(kind)] == wanted


def test_perturbation_never_takes_none_even_where_nothing_is_best() -> None:
    planted = Planted(NUMBERED, 0)
    for worth in planted.operators.values():
        worth[:, 0] = 10.0
    genotype = by_perturbation(NUMBERED, planted, completions=1, key="test")
    assert all(edge.operator != "none" for kind in NUMBERED.kinds for node in genotype.cell(kind) for edge in node)


def test_perturbation_scores_every_option_of_every_edge_once_a_completion() -> None:
    planted = Planted(NUMBERED, 0)
    by_perturbation(NUMBERED, planted, completions=2, key="test")
    options = len(NUMBERED.operators) + len(NUMBERED.quantization)
    assert planted.calls == 2 * len(NUMBERED.kinds) * len(EDGES) * options


def test_perturbation_scores_architectures_of_the_space_only() -> None:
    def checked(genotype: Genotype) -> float:
        SPACE.check(genotype)
        return 0.5

    SPACE.check(by_perturbation(SPACE, checked, completions=1, key="test"))


def test_the_key_alone_decides_what_is_perturbed() -> None:
    def seen(key: str) -> list[Genotype]:
        genotypes: list[Genotype] = []

        def note(genotype: Genotype) -> float:
            genotypes.append(genotype)
            return 0.5

        by_perturbation(SPACE, note, completions=1, key=key)
        return genotypes

    assert seen("a") == seen("a")
    assert seen("a") != seen("b")
