from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from ftnas.errors import FaultError
from ftnas.faults import inject
from ftnas.spiking.dense.defences import bypassed, patience_of, retrained, with_bounded_weights, with_reset_guard
from ftnas.spiking.dense.fault_map import FaultMap, PartFault, draw_map, inject_map
from ftnas.spiking.dense.hardware_faults import parse_spiking_fault
from ftnas.spiking.dense.mapping import mapped_around
from ftnas.spiking.dense.network import SpikingNet, with_spec
from ftnas.spiking.dense.synapses import limits_of, read_weight
from tests.spiking_nets import digits, images, settings, small_net, trained_net


def read(net: SpikingNet, faults: str = "weights.bit_flip:0.2") -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight of the first layer as it is stored under ``faults``, and as it is read."""
    layer = net.stages[0].synapses
    with torch.no_grad(), inject(net, faults):
        stored = layer.quantized_weight(layer.weight, layer.quantization)
        return stored, read_weight(layer, stored, ())


@pytest.mark.parametrize("method", ["zero", "clip"])
@pytest.mark.parametrize("bound_of", ["layer", "neuron"])
@pytest.mark.parametrize("weight_range", ["power_of_two", "max", "max_per_channel", "fixed(2)"])
def test_bounding_changes_nothing_without_faults(method: Any, bound_of: Any, weight_range: str) -> None:
    net = small_net(weight_range=weight_range)
    assert torch.equal(with_bounded_weights(net, method, bound_of=bound_of)(images()), net(images()))


@pytest.mark.parametrize("method", ["zero", "clip"])
def test_bounding_touches_weights_beyond_the_clean_ones_only(method: Any) -> None:
    net = with_bounded_weights(small_net(weight_range="fixed(2)"), method)
    stored, seen = read(net)
    limit = limits_of(net.stages[0].synapses)
    beyond = stored.abs() > limit
    assert beyond.any() and torch.equal(seen[~beyond], stored[~beyond])
    assert torch.equal(
        seen[beyond], torch.zeros(1).expand(int(beyond.sum())) if method == "zero" else stored[beyond].sign() * limit
    )


def test_a_bound_for_each_neuron_is_no_looser_than_one_for_the_layer() -> None:
    layer, neuron = (with_bounded_weights(small_net(), bound_of=of).stages[0].synapses for of in ("layer", "neuron"))
    assert limits_of(neuron).shape == (7, 1) and limits_of(neuron).max() == limits_of(layer)
    assert limits_of(neuron).min() < limits_of(layer)


def test_a_reset_guard_changes_nothing_without_faults_where_membranes_are_emptied() -> None:
    net = small_net(reset="zero")
    assert patience_of(net, images()) == 2
    assert torch.equal(with_reset_guard(net)(images()), net(images()))


def test_the_patience_of_a_net_is_the_smallest_that_changes_nothing() -> None:
    net = small_net(reset="subtract", threshold=0.1)
    patience = patience_of(net, images())
    assert patience > 2
    assert torch.equal(with_reset_guard(net, patience)(images()), net(images()))
    assert not torch.equal(with_reset_guard(net, patience - 1)(images()), net(images()))


@pytest.mark.parametrize("kind", ["unreset", "stuck"])
def test_a_guarded_neuron_falls_silent_when_resets_do_not_help(kind: str) -> None:
    net = small_net(reset="zero", leak=1.0, steps=8)
    fault = FaultMap((PartFault(0, "neurons", kind, 3, 100),))
    x = 3 * images().abs()
    with torch.no_grad(), inject_map(net, fault):
        found = net.run(x).spikes[0][:, :, 3]
    guarded = with_reset_guard(net)
    with torch.no_grad(), inject_map(guarded, fault):
        silent = guarded.run(x).spikes[0][:, :, 3]
    assert found.sum(1).max() > 2 >= silent.sum(1).max() > 0


def test_another_specification_keeps_weights_and_thresholds() -> None:
    net = small_net()
    with torch.no_grad():
        net.stages[0].neurons.threshold.fill_(0.75)
    longer = with_spec(net, steps=9)
    assert longer.spec.steps == 9 and longer.stages[0].neurons.threshold.item() == 0.75
    assert torch.equal(longer.stages[1].synapses.weight, net.stages[1].synapses.weight)


def test_a_faulty_synapse_that_is_passed_by_counts_as_0() -> None:
    given_map = FaultMap((PartFault(0, "synapses", "stuck", 4, 9.0), PartFault(0, "neurons", "stuck", 2, 9.0)))
    assert bypassed(given_map).faults == (PartFault(0, "synapses", "dead", 4), PartFault(0, "neurons", "stuck", 2, 9.0))


@pytest.mark.parametrize("learns", [True, False])
def test_retraining_moves_thresholds_only_where_it_may_and_no_broken_weight(learns: bool) -> None:
    net, data = trained_net(epochs=1, widths=(8,), steps=2), digits()
    broken = draw_map(net, [parse_spiking_fault("synapses.dead:0.5")])
    images_, labels = data.train_images[:256], data.train_labels[:256]
    # Weight decay is no gradient of the loss, and would move what is broken.
    plain = settings(1).model_copy(update={"weight_decay": 0.0})
    found, records = retrained(net, broken, images_, labels, settings=plain, key="r", learn_threshold=learns)
    moved = [s.neurons.threshold != o.neurons.threshold for s, o in zip(found.stages, net.stages, strict=True)]
    assert len(records) == 1 and all(bool(one) == learns for one in moved)
    dead = [fault.element for fault in broken.of(0, "synapses")]
    changed = (found.stages[0].synapses.weight != net.stages[0].synapses.weight).flatten()
    assert not changed[dead].any() and changed.any()


@given(seed=st.integers(0, 1000), rate=st.floats(0.01, 0.5))
@budget(max_examples=10, deadline=None)
def test_mapping_changes_no_answer_of_a_chip_without_faults(seed: int, rate: float) -> None:
    net = small_net(seed=seed, widths=(7, 5))
    faults = [parse_spiking_fault(f"{name}:{rate}") for name in ("synapses.flipped", "neurons.dead")]
    moved = mapped_around(net, draw_map(net, faults, chip=seed), images())
    assert torch.allclose(moved(images(seed=3)), net(images(seed=3)), atol=1e-4)


def test_mapping_puts_a_neuron_of_no_use_where_the_dead_one_is() -> None:
    net = small_net()
    with torch.no_grad():
        net.stages[1].synapses.weight[:, 5] = 0  # nobody reads neuron 5
    busiest = int(net.run(images()).spikes[0][:, :, :5].sum((0, 1)).argmax())
    broken = FaultMap((PartFault(0, "neurons", "dead", busiest),))
    moved = mapped_around(net, broken, images())
    clean = net(images()).detach()
    with torch.no_grad(), inject_map(net, broken):
        assert not torch.allclose(net(images()), clean, atol=1e-2)
    with torch.no_grad(), inject_map(moved, broken):
        assert torch.allclose(moved(images()), clean, atol=1e-5)


def test_mapping_leaves_nets_without_a_place_to_change_as_they_are() -> None:
    net = small_net(widths=())
    moved = mapped_around(net, FaultMap((PartFault(0, "synapses", "dead", 2),)), images())
    assert torch.equal(moved.stages[0].synapses.weight, net.stages[0].synapses.weight)


def test_a_map_for_another_net_is_refused() -> None:
    with pytest.raises(FaultError, match="element must be"):
        mapped_around(small_net(), FaultMap((PartFault(0, "neurons", "dead", 99),)), images())
