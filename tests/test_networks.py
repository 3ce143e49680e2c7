"""Operators, cells and the supernet: a derived net computes to the bit what the supernet computes on its path."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch
from genotype_strategies import genotypes_of
from hypothesis import given, settings
from hypothesis import strategies as st
from small_nets import same_bits, state
from torch import Tensor

from ftnas.cost import genotype_cost, measure
from ftnas.faults import inject, sites
from ftnas.networks import BUILDERS, CellNetwork, Mixture, all_edges
from ftnas.networks.operators import Style
from ftnas.quantization import Quantization, Range, quantized_layers
from ftnas.runtime import seeded
from ftnas.space import OPERATORS, Edge, Genotype, SearchSpace, Sizes, bundled_spaces, has_numbers, load_space
from ftnas.training import recalibrate

SHAPE, CLASSES = (1, 8, 8), 10
SMALL = Sizes(channels=4, cells=2, reductions=(0,))
FLAT = Sizes(channels=4, cells=2)
LEARNED = Quantization(weight_range=Range("learned"), feature_range=Range("learned"))
# Every operator, every kind of range; other than the bundled spaces, it stays as it is.
FULL = SearchSpace(
    name="full",
    operators=OPERATORS,
    quantization=(Quantization(), Quantization(4), Quantization(feature_range=Range("fixed", 2.0)), LEARNED),
    nodes=2,
    search=SMALL,
    final=SMALL,
)
SPACES = {"tiny": load_space("tiny"), "digits": load_space("digits"), "full": FULL}
FAULTS = ["features.mac_bit_bias:1e-2", "features.bit_flip:1e-2", "weights.stuck_cell:0.1:scope=all"]
SEARCH, FINAL = Style(norm="plain", pool_norm=True), Style()


def network(name: str, genotype: Genotype | None = None, **norms: Any) -> CellNetwork:
    space = SPACES[name]
    sizes = SMALL if space.search.reductions else FLAT
    return CellNetwork(space, sizes, image_shape=SHAPE, classes=CLASSES, genotype=genotype, **norms)


def some_genotype(name: str) -> Genotype:
    return SPACES[name].sample(torch.Generator().manual_seed(0))


@cache
def _fresh_supernet(name: str) -> CellNetwork:
    with seeded("supernet"):
        return network(name)


def images(count: int = 6) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def supernet_and_derived(name: str, genotype: Genotype) -> tuple[CellNetwork, CellNetwork]:
    """Return a supernet whose statistics on the path of ``genotype`` are its own, and the heir of its weights."""
    supernet = copy.deepcopy(_fresh_supernet(name))
    derived = network(name, genotype, norms="search")
    assert derived.genotype is not None
    recalibrate(supernet, images(), forward=lambda x: supernet(x, derived.genotype))
    derived.inherit(supernet)
    return supernet.eval(), derived.eval()


def full_cells(*nodes: tuple[tuple[str, int], ...]) -> Genotype:
    """Return a genotype of the full space with the same two nodes in both cells."""
    cell = tuple(tuple(Edge(operator, source) for operator, source in node) for node in nodes)
    return Genotype(cell, cell)


TWICE = full_cells((("sep_conv_3x3", 0), ("sep_conv_3x3", 0)), (("skip_connect", 1), ("skip_connect", 1)))
EMPTY_NODE = full_cells((("none", 0), ("none", 1)), (("sep_conv_3x3", 2), ("max_pool_3x3", 1)))
NOTHING = full_cells(*[(("none", 0), ("none", 1))] * 2)
SPECIAL = {"an edge twice": TWICE, "a node of none": EMPTY_NODE, "none everywhere": NOTHING}

special = pytest.mark.parametrize("genotype", SPECIAL.values(), ids=SPECIAL)
mixed = pytest.mark.parametrize("name", ["tiny", "full"])
anywhere = pytest.mark.parametrize("name", SPACES)


# Operators


def test_every_operator_but_none_has_a_builder() -> None:
    assert set(BUILDERS) == set(OPERATORS) - {"none"}


@pytest.mark.parametrize("style", [SEARCH, FINAL], ids=["search", "final"])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", BUILDERS)
def test_an_operator_keeps_channels_and_divides_the_map(
    name: str, stride: int, size: tuple[int, int], style: Style
) -> None:
    y = BUILDERS[name](5, stride, style)(torch.ones(2, 5, *size))
    assert y.shape == (2, 5, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", BUILDERS)
def test_an_operator_holds_weights_where_the_space_says_so(name: str, stride: int) -> None:
    assert bool(quantized_layers(BUILDERS[name](4, stride, FINAL))) == has_numbers(name, stride)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", BUILDERS)
def test_every_layer_of_an_operator_computes_in_the_numbers_it_is_asked_for(name: str, stride: int) -> None:
    coarse = Quantization(weight_bits=2, feature_bits=3)
    operator = BUILDERS[name](4, stride, Style(choices=(Quantization(), coarse)))
    seen = []
    for layer in quantized_layers(operator).values():
        layer.register_forward_hook(lambda _, inputs, y: seen.append((inputs[1], len(y.unique()))))
    operator(torch.randn(2, 4, 8, 8), coarse)
    assert len(seen) == len(quantized_layers(operator))
    assert all(numbers == coarse and values <= 8 for numbers, values in seen)


def test_an_average_leaves_the_padding_out() -> None:
    y = BUILDERS["avg_pool_3x3"](2, 2, FINAL)(torch.ones(1, 2, 7, 7))
    assert torch.equal(y, torch.ones(1, 2, 4, 4))


@pytest.mark.parametrize("name", ["max_pool_3x3", "avg_pool_3x3"])
@pytest.mark.parametrize(("style", "layers"), [(SEARCH, 1), (FINAL, 0)], ids=["search", "final"])
def test_only_the_supernet_normalises_what_was_pooled(name: str, style: Style, layers: int) -> None:
    assert len(list(BUILDERS[name](4, 1, style).children())) == layers


@pytest.mark.parametrize("size", [8, 7])
def test_a_skip_that_halves_reads_the_odd_pixels_too(size: int) -> None:
    x = torch.rand(1, 4, size, size, requires_grad=True)
    BUILDERS["skip_connect"](4, 2, Style(norm="none"))(x + 1).sum().backward()
    assert x.grad is not None
    assert bool((x.grad[..., 0::2, 0::2].abs().sum(1) > 0).all())
    assert bool((x.grad[..., 1::2, 1::2].abs().sum(1) > 0).all())


# Networks


@pytest.mark.parametrize("name", bundled_spaces())
def test_a_supernet_of_every_space_classifies_images_of_odd_size(name: str) -> None:
    space = load_space(name)
    sizes = Sizes(channels=2, cells=2, reductions=(0,) if space.search.reductions else ())
    supernet = CellNetwork(space, sizes, image_shape=(3, 9, 7), classes=4)
    path = space.sample(torch.Generator().manual_seed(0))
    assert supernet(torch.rand(2, 3, 9, 7), path).shape == (2, 4)


def test_two_reductions_in_a_row_divide_the_map_twice() -> None:
    sizes = Sizes(channels=2, cells=3, reductions=(0, 1))
    net = CellNetwork(FULL, sizes, image_shape=(1, 9, 7), classes=4, genotype=some_genotype("full"))
    shapes: list[tuple[int, ...]] = []
    for cell in net.cells:
        cell.register_forward_hook(lambda _, __, y: shapes.append(tuple(y.shape[1:])))
    net(torch.rand(2, 1, 9, 7))
    assert shapes == [(2 * 4, 5, 4), (2 * 8, 3, 2), (2 * 8, 3, 2)]


def test_a_supernet_needs_a_plan() -> None:
    with pytest.raises(ValueError, match="needs a genotype or a mixture"):
        network("tiny")(images())


def test_cells_of_none_everywhere_say_the_same_of_every_image() -> None:
    logits = network("full", NOTHING).eval()(images())
    assert bool((logits == logits[0]).all())


@settings(max_examples=3)
@given(st.data())
@pytest.mark.parametrize("name", ["darts_feature_faults", "darts_weight_faults"])
def test_a_published_space_costs_by_table_what_is_counted(name: str, data: st.DataObject) -> None:
    space, shape = load_space(name), (3, 9, 7)
    genotype = data.draw(genotypes_of(space))
    net = CellNetwork(space, SMALL, image_shape=shape, classes=5, genotype=genotype)
    assert genotype_cost(genotype, space, SMALL, image_shape=shape, classes=5) == measure(net, shape)


# A derived net is the supernet's path


@settings(max_examples=6)
@given(st.data())
@anywhere
def test_a_derived_net_computes_what_the_supernet_computes_on_its_path(name: str, data: st.DataObject) -> None:
    supernet, derived = supernet_and_derived(name, data.draw(genotypes_of(SPACES[name])))
    assert torch.equal(derived(images()), supernet(images(), derived.genotype))


@settings(max_examples=6)
@given(st.data())
@anywhere
def test_a_derived_net_suffers_what_the_supernet_suffers_on_its_path(name: str, data: st.DataObject) -> None:
    supernet, derived = supernet_and_derived(name, data.draw(genotypes_of(SPACES[name])))
    with inject(derived, FAULTS, chip=3):
        of_derived = derived(images())
    with inject(supernet, FAULTS, chip=3):
        of_supernet = supernet(images(), derived.genotype)
    assert torch.equal(of_derived, of_supernet)
    assert not torch.equal(of_derived, derived(images()))


@special
def test_a_special_derived_net_computes_what_the_supernet_computes(genotype: Genotype) -> None:
    supernet, derived = supernet_and_derived("full", genotype)
    assert torch.equal(derived(images()), supernet(images(), derived.genotype))


@special
def test_a_special_derived_net_suffers_what_the_supernet_suffers(genotype: Genotype) -> None:
    supernet, derived = supernet_and_derived("full", genotype)
    with inject(derived, FAULTS, chip=3):
        of_derived = derived(images())
    with inject(supernet, FAULTS, chip=3):
        of_supernet = supernet(images(), derived.genotype)
    assert torch.equal(of_derived, of_supernet)


@settings(max_examples=3)
@given(st.data())
@anywhere
def test_a_training_step_gives_a_derived_net_the_gradients_of_the_supernet(name: str, data: st.DataObject) -> None:
    supernet, derived = supernet_and_derived(name, data.draw(genotypes_of(SPACES[name])))
    supernet.train()(images(), derived.genotype).square().sum().backward()
    derived.train()(images()).square().sum().backward()
    theirs = {key: parameter.grad for key, parameter in supernet.named_parameters()}
    for key, parameter in derived.named_parameters():
        shared = theirs[key]
        assert (parameter.grad is None) == (shared is None), key
        assert parameter.grad is None or (shared is not None and torch.equal(parameter.grad, shared)), key


@settings(max_examples=3)
@given(st.data())
@anywhere
def test_a_training_pass_gives_a_derived_net_the_statistics_of_the_supernet(name: str, data: st.DataObject) -> None:
    supernet, derived = supernet_and_derived(name, data.draw(genotypes_of(SPACES[name])))
    supernet.train()(images() + 1, derived.genotype)
    derived.train()(images() + 1)
    theirs = state(supernet)
    assert same_bits(state(derived), {key: theirs[key] for key in derived.state_dict()})


@settings(max_examples=3)
@given(st.data())
@anywhere
def test_a_derived_net_has_only_sites_of_the_supernet(name: str, data: st.DataObject) -> None:
    derived = network(name, data.draw(genotypes_of(SPACES[name])))
    assert {site.name for site in sites(derived)} <= {site.name for site in sites(_fresh_supernet(name))}


def test_an_edge_that_stands_twice_is_added_twice() -> None:
    _, once = supernet_and_derived("full", full_cells(*[(("conv_1x1", 0), ("none", 0))] * 2))
    _, twice = supernet_and_derived("full", full_cells(*[(("conv_1x1", 0), ("conv_1x1", 0))] * 2))
    seen: dict[CellNetwork, list[list[Tensor]]] = {once: [], twice: []}
    for net, terms in seen.items():
        net.cells[0].sums["2"].register_forward_pre_hook(lambda _, inputs, terms=terms: terms.append(inputs[0]))
        net(images())
    assert [len(terms[0]) for terms in seen.values()] == [1, 2]
    assert torch.equal(seen[twice][0][0], seen[twice][0][1])


def test_a_net_of_another_size_cannot_inherit() -> None:
    other = CellNetwork(SPACES["tiny"], FLAT.model_copy(update={"channels": 8}), image_shape=SHAPE, classes=CLASSES)
    derived = network("tiny", some_genotype("tiny"), norms="search")
    with pytest.raises(RuntimeError, match="size mismatch"):
        derived.inherit(other)


def test_a_final_net_cannot_inherit_the_norms_that_a_supernet_has_not() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        network("full", TWICE).inherit(_fresh_supernet("full"))


def test_a_weight_is_shared_by_all_its_quantisation_choices() -> None:
    spaces = [FULL.model_copy(update={"quantization": FULL.quantization[:count]}) for count in (1, 3)]
    one, three = (CellNetwork(space, SMALL, image_shape=SHAPE, classes=CLASSES) for space in spaces)
    assert one.state_dict().keys() == three.state_dict().keys()


# One path at a time


@settings(max_examples=3)
@given(st.data())
@anywhere
def test_only_operators_on_the_path_get_gradients(name: str, data: st.DataObject) -> None:
    supernet, derived = supernet_and_derived(name, data.draw(genotypes_of(SPACES[name])))
    on_the_path = {key for key, _ in derived.named_parameters()}
    supernet(images(), derived.genotype).sum().backward()
    touched = {key for key, parameter in supernet.named_parameters() if parameter.grad is not None}
    assert touched <= on_the_path


@settings(max_examples=3)
@given(st.data())
@anywhere
def test_only_operators_on_the_path_get_new_statistics(name: str, data: st.DataObject) -> None:
    supernet, derived = supernet_and_derived(name, data.draw(genotypes_of(SPACES[name])))
    before = state(supernet)
    supernet.train()(images() + 1, derived.genotype)
    changed = {key for key, value in supernet.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert changed <= set(derived.state_dict())


def gates_of(genotype: Genotype, value: Tensor) -> dict[str, Tensor]:
    """Return gates of value one, all carrying the gradient of ``value``."""
    return {
        kind: torch.stack([torch.stack([value - value.detach() + 1.0] * len(node)) for node in genotype.cell(kind)])
        for kind in ("normal", "reduction")
        if genotype.cell(kind)
    }


@settings(max_examples=3)
@given(st.data())
@anywhere
def test_gates_of_value_one_change_nothing(name: str, data: st.DataObject) -> None:
    supernet, derived = supernet_and_derived(name, data.draw(genotypes_of(SPACES[name])))
    assert derived.genotype is not None
    gates = gates_of(derived.genotype, torch.tensor(0.3, requires_grad=True))
    assert torch.equal(supernet(images(), derived.genotype, gates), supernet(images(), derived.genotype))


def test_every_gate_of_an_operator_carries_a_gradient() -> None:
    cells = full_cells(*[(("sep_conv_3x3", 0), ("conv_1x1", 1))] * 2)
    supernet, derived = supernet_and_derived("full", cells)
    gates = {kind: torch.ones(2, 2, requires_grad=True) for kind in ("normal", "reduction")}
    supernet(images(), derived.genotype, gates).square().sum().backward()
    for gate in gates.values():
        assert gate.grad is not None
        assert bool((gate.grad != 0).all())


def test_the_gate_of_none_carries_no_gradient() -> None:
    supernet, derived = supernet_and_derived("full", EMPTY_NODE)
    assert derived.genotype is not None
    gates = {kind: torch.ones(2, 2, requires_grad=True) for kind in ("normal", "reduction")}
    supernet(images(), derived.genotype, gates).square().sum().backward()
    for kind, gate in gates.items():
        is_none = torch.tensor([[e.operator == "none" for e in node] for node in derived.genotype.cell(kind)])
        assert gate.grad is not None
        assert bool((gate.grad[is_none] == 0).all())


# The mixture


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
    supernet = copy.deepcopy(_fresh_supernet(name)).train()
    supernet(images(), even_mixture(SPACES[name])).square().sum().backward()
    assert [key for key, parameter in supernet.named_parameters() if parameter.grad is None] == []


@mixed
def test_a_mixture_gives_all_shares_but_those_of_none_a_gradient(name: str) -> None:
    space, supernet = SPACES[name], copy.deepcopy(_fresh_supernet(name)).train()
    mixtures = even_mixture(space)
    supernet(images(), mixtures).square().sum().backward()
    for mixture in mixtures.values():
        gradient = mixture.operators.grad
        assert gradient is not None
        assert ((gradient != 0).all(0)).tolist() == [operator != "none" for operator in space.operators]


@mixed
def test_a_mixture_gives_the_shares_of_numbers_gradients(name: str) -> None:
    supernet = copy.deepcopy(_fresh_supernet(name)).train()
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
    supernet = copy.deepcopy(_fresh_supernet(name))
    recalibrate(supernet, images(), forward=lambda x: supernet(x, even_mixture(space)))
    supernet.eval()
    assert torch.allclose(supernet(images(), one_hot(space, genotype)), supernet(images(), genotype), atol=1e-6)


def test_learned_ranges_start_when_their_path_is_taken() -> None:
    supernet = copy.deepcopy(_fresh_supernet("full"))
    node = (Edge("conv_1x1", 0, LEARNED),) * 2
    supernet(images(), Genotype((node,) * 2, (node,) * 2))
    limits = {key: float(p.detach()) for key, p in supernet.named_parameters() if "learned" in key}
    started = {key for key, limit in limits.items() if limit > 0}
    assert started == {key for key in limits if "_0.conv_1x1." in key}
