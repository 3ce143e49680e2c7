"""Architecture weights: which paths they give, how often, and what gradient the gates carry."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

import ftnas.search.architecture
from ftnas.networks import Mixture, all_edges
from ftnas.quantization import Quantization, Range
from ftnas.search.architecture import ArchitectureWeights, Sample
from ftnas.space import Edge, Genotype, SearchSpace, Sizes, load_space

# Three inputs to each of two nodes: every edge of the cell is on every path, so a path shows all picks.
OPEN = SearchSpace(
    name="open",
    operators=("none", "skip_connect", "sep_conv_3x3", "conv_1x1"),
    quantization=(Quantization(), Quantization(weight_bits=4), Quantization(feature_range=Range("fixed", 2.0))),
    nodes=2,
    inputs_per_node=3,
    search=Sizes(channels=4, cells=2, reductions=(1,)),
    final=Sizes(channels=4, cells=2, reductions=(1,)),
)
DARTS = load_space("darts_feature_faults")
EDGES = all_edges(OPEN.nodes)


def picks(sample: Sample, kind: str) -> dict[tuple[int, int], Edge]:
    """Return what stands on each (node, source) of a path."""
    assert isinstance(sample.plan, Genotype)
    return {(i, edge.source): edge for i, node in enumerate(sample.plan.cell(kind), start=2) for edge in node}


def uneven(space: SearchSpace = OPEN) -> ArchitectureWeights:
    """Return architecture weights that all differ."""
    architecture = ArchitectureWeights(space)
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weights in architecture.parameters():
            weights.copy_(torch.randn(weights.shape, generator=rng))
    return architecture


@pytest.mark.parametrize("kind", OPEN.kinds)
@pytest.mark.parametrize("first", [0, 8, 40])
def test_in_a_round_of_fair_paths_each_operator_of_each_edge_comes_once(kind: str, first: int) -> None:
    architecture = ArchitectureWeights(OPEN)
    paths = [picks(architecture.fair_path(first + i, key="k"), kind) for i in range(len(OPEN.operators))]
    for edge in EDGES:
        assert sorted(path[edge].operator for path in paths) == sorted(OPEN.operators)


@pytest.mark.parametrize("kind", OPEN.kinds)
@pytest.mark.parametrize("first", [0, 6, 39])
def test_in_a_round_of_fair_paths_each_quantisation_of_each_edge_comes_once(kind: str, first: int) -> None:
    architecture = ArchitectureWeights(OPEN)
    paths = [picks(architecture.fair_path(first + i, key="k"), kind) for i in range(len(OPEN.quantization))]
    for edge in EDGES:
        assert sorted(path[edge].quantization for path in paths) == sorted(OPEN.quantization)


def test_the_edges_of_a_fair_path_take_their_operators_in_orders_of_their_own() -> None:
    architecture = ArchitectureWeights(OPEN)
    paths = [picks(architecture.fair_path(step, key="k"), "normal") for step in range(len(OPEN.operators))]
    assert len({tuple(path[edge].operator for path in paths) for edge in EDGES}) > 1


def test_fair_paths_do_not_follow_the_weights() -> None:
    assert uneven().fair_path(5, key="k").plan == ArchitectureWeights(OPEN).fair_path(5, key="k").plan


@pytest.mark.parametrize("name", ["fair", "gumbel"])
def test_a_path_is_a_function_of_key_and_step(name: str) -> None:
    def path(key: str, step: int) -> object:
        architecture = ArchitectureWeights(DARTS)
        if name == "fair":
            return architecture.fair_path(step, key=key).plan
        return architecture.gumbel_path(step, key=key, temperature=1.0).plan

    forward = {(key, step): path(key, step) for key in "ab" for step in range(4)}
    backward = {place: path(*place) for place in reversed(forward)}
    assert forward == backward
    assert len(set(forward.values())) == len(forward)


@pytest.mark.parametrize("step", range(6))
def test_the_inputs_of_a_node_are_distinct(step: int) -> None:
    plan = ArchitectureWeights(DARTS).fair_path(step, key="k").plan
    assert isinstance(plan, Genotype)
    for kind in DARTS.kinds:
        assert all(len({edge.source for edge in node}) == len(node) for node in plan.cell(kind))


def test_all_sources_of_a_node_are_read_equally_often() -> None:
    architecture, steps = ArchitectureWeights(DARTS), 400
    paths = [picks(architecture.fair_path(step, key="k"), "normal") for step in range(steps)]
    reads = Counter(edge for path in paths for edge in path)
    # Node 4 reads 2 of 4 sources: binomial with a standard deviation of 10.
    assert all(abs(reads[4, source] - steps / 2) < 40 for source in range(4))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_gumbel_paths_pick_operators_with_their_probabilities(temperature: float) -> None:
    wanted, steps = torch.tensor([0.05, 0.1, 0.25, 0.6]), 300
    architecture = ArchitectureWeights(OPEN)
    with torch.no_grad():
        architecture.operators["normal"].copy_(wanted.log().expand(len(EDGES), -1))
    counts: Counter[str] = Counter()
    for step in range(steps):
        path = picks(architecture.gumbel_path(step, key="k", temperature=temperature), "normal")
        counts.update(edge.operator for edge in path.values())
    shares = torch.tensor([counts[name] / counts.total() for name in OPEN.operators])
    # 1,500 draws: a standard deviation of at most 0.013.
    assert (shares - wanted).abs().max() < 0.05


def test_gumbel_paths_mostly_take_a_strong_quantisation() -> None:
    architecture = ArchitectureWeights(OPEN)
    with torch.no_grad():
        architecture.quantization["reduction"][:, 2] = 8.0
    paths = [picks(architecture.gumbel_path(step, key="k", temperature=1.0), "reduction") for step in range(40)]
    hits = [edge.quantization == OPEN.quantization[2] for path in paths for edge in path.values()]
    assert sum(hits) > 0.95 * len(hits)


@pytest.mark.parametrize("kind", OPEN.kinds)
def test_gates_are_one_to_the_bit(kind: str) -> None:
    architecture = uneven()
    for sample in (architecture.fair_path(2, key="k"), architecture.gumbel_path(2, key="k", temperature=0.5)):
        assert sample.gates is not None
        assert torch.equal(sample.gates[kind], torch.ones(OPEN.nodes, OPEN.inputs_per_node))


def gradient_of_gate(sample: Sample, architecture: ArchitectureWeights, node: int, slot: int) -> list[Tensor]:
    assert sample.gates is not None
    weights = [architecture.operators["normal"], architecture.quantization["normal"]]
    return list(torch.autograd.grad(sample.gates["normal"][node, slot], weights, retain_graph=True))


def gradient_of_probability(
    sample: Sample, architecture: ArchitectureWeights, node: int, slot: int, *, temperature: float
) -> list[Tensor]:
    """Return the gradient of P(operator) * P(quantisation) of the edge in that slot, straight from the softmax."""
    assert isinstance(sample.plan, Genotype)
    edge = sample.plan.normal[node][slot]
    row = EDGES.index((node + 2, edge.source))
    weights = [architecture.operators["normal"], architecture.quantization["normal"]]
    operators, numbers = ((w[row] / temperature).softmax(0) for w in weights)
    chance = operators[OPEN.operators.index(edge.operator)] * numbers[OPEN.quantization.index(edge.quantization)]
    return list(torch.autograd.grad(chance, weights))


@pytest.mark.parametrize("slot", range(OPEN.inputs_per_node))
@pytest.mark.parametrize("node", range(OPEN.nodes))
def test_the_gradient_of_a_fair_gate_is_that_of_the_probability(node: int, slot: int) -> None:
    architecture = uneven()
    sample = architecture.fair_path(7, key="k")
    found = gradient_of_gate(sample, architecture, node, slot)
    wanted = gradient_of_probability(sample, architecture, node, slot, temperature=1.0)
    torch.testing.assert_close(found, wanted)
    assert found[0].abs().sum() > 0


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_gradient_of_a_gumbel_gate_is_that_of_the_probability(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ftnas.search.architecture, "_gumbel", lambda like, rng: torch.zeros_like(like))
    architecture = uneven()
    sample = architecture.gumbel_path(7, key="k", temperature=temperature)
    found = gradient_of_gate(sample, architecture, 1, 0)
    wanted = gradient_of_probability(sample, architecture, 1, 0, temperature=temperature)
    torch.testing.assert_close(found, wanted)
    assert found[1].abs().sum() > 0


def test_without_noise_a_gumbel_path_takes_the_strongest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ftnas.search.architecture, "_gumbel", lambda like, rng: torch.zeros_like(like))
    architecture = uneven()
    path = picks(architecture.gumbel_path(0, key="k", temperature=1.0), "reduction")
    best = architecture.operators["reduction"].argmax(1).tolist()
    assert [path[edge].operator for edge in EDGES] == [OPEN.operators[index] for index in best]


@pytest.mark.parametrize("space", [OPEN, DARTS, load_space("tiny")], ids=lambda space: space.name)
def test_the_rows_of_a_mixture_sum_to_one(space: SearchSpace) -> None:
    plan = uneven(space).mixture().plan
    assert not isinstance(plan, Genotype)
    assert set(plan) == set(space.kinds)
    for mixture in plan.values():
        assert isinstance(mixture, Mixture)
        for rows in (mixture.operators, mixture.quantization):
            torch.testing.assert_close(rows.sum(1), torch.ones(len(all_edges(space.nodes))))


def test_the_probabilities_written_down_are_those_of_the_mixture() -> None:
    architecture = uneven()
    plan = architecture.mixture().plan
    assert not isinstance(plan, Genotype)
    for kind, roles in architecture.probabilities().items():
        torch.testing.assert_close(torch.tensor(roles["operators"]), plan[kind].operators.detach())
        torch.testing.assert_close(torch.tensor(roles["quantization"]), plan[kind].quantization.detach())
