"""One path through the supernet at a time: what it touches, and the gates that carry gradients."""

from __future__ import annotations

import copy

import torch
from genotype_strategies import genotypes_of
from hypothesis import given, settings
from hypothesis import strategies as st
from path_nets import EMPTY_NODE, LEARNED, SPACES, anywhere, fresh_supernet, full_cells, images, supernet_and_derived
from small_nets import state
from torch import Tensor

from ftnas.space import Edge, Genotype


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


def test_learned_ranges_start_when_their_path_is_taken() -> None:
    supernet = copy.deepcopy(fresh_supernet("full"))
    node = (Edge("conv_1x1", 0, LEARNED),) * 2
    supernet(images(), Genotype((node,) * 2, (node,) * 2))
    limits = {key: float(p.detach()) for key, p in supernet.named_parameters() if "learned" in key}
    started = {key for key, limit in limits.items() if limit > 0}
    assert started == {key for key in limits if "_0.conv_1x1." in key}
