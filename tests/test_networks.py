"""Networks of cells: a derived net computes to the bit what the supernet computes on its path."""

from __future__ import annotations

import pytest
import torch
from genotype_strategies import genotypes_of
from hypothesis import given, settings
from hypothesis import strategies as st
from path_nets import (
    CLASSES,
    FAULTS,
    FLAT,
    FULL,
    NOTHING,
    SHAPE,
    SMALL,
    SPACES,
    TWICE,
    anywhere,
    fresh_supernet,
    full_cells,
    images,
    network,
    some_genotype,
    special,
    supernet_and_derived,
)
from small_nets import same_bits, state
from torch import Tensor

from ftnas.cost import genotype_cost, measure
from ftnas.faults import inject, sites
from ftnas.networks import CellNetwork
from ftnas.space import Genotype, Sizes, bundled_spaces, load_space

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
    net = network("full", NOTHING)
    net(images())
    logits = net.eval()(images())
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
    assert {site.name for site in sites(derived)} <= {site.name for site in sites(fresh_supernet(name))}


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
        network("full", TWICE).inherit(fresh_supernet("full"))


def test_a_weight_is_shared_by_all_its_quantisation_choices() -> None:
    spaces = [FULL.model_copy(update={"quantization": FULL.quantization[:count]}) for count in (1, 3)]
    one, three = (CellNetwork(space, SMALL, image_shape=SHAPE, classes=CLASSES) for space in spaces)
    assert one.state_dict().keys() == three.state_dict().keys()
