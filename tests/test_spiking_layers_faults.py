from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from torch import Tensor, nn

from ftnas.errors import FaultError
from ftnas.faults import Flip, explicit_plan, inject, output_shapes, sites
from ftnas.spiking.dense.fault_map import FaultMap, PartFault, check_map, draw_map, inject_map
from ftnas.spiking.dense.hardware_faults import SPIKING_FAULTS, SpikingFault, divided, parse_any, parse_spiking_fault
from ftnas.spiking.dense.map_file import load_map, save_map
from ftnas.spiking.dense.measurement import spiking_chip_accuracies
from ftnas.spiking.dense.network import SpikingNet
from tests.spiking_nets import images, small_net


def spikes_under(net: SpikingNet, *faults: PartFault, layer: int = 0) -> Tensor:
    with torch.no_grad(), inject_map(net, FaultMap(faults)):
        return net.run(images()).spikes[layer]


def clean_spikes(net: SpikingNet, layer: int = 0) -> Tensor:
    with torch.no_grad():
        return net.run(images()).spikes[layer]


def weights_under(net: SpikingNet, *faults: PartFault) -> Tensor:
    """Return the weight of the first layer as its neurons read it."""
    seen: list[Tensor] = []
    product = net.stages[0].synapses.product
    net.stages[0].synapses.product = lambda x, weight: seen.append(weight) or product(x, weight)  # type: ignore
    with torch.no_grad(), inject_map(net, FaultMap(faults)):
        net(images())
    del net.stages[0].synapses.product
    return seen[0]


def synapse(kind: str, element: int = 10, value: float = 0) -> PartFault:
    return PartFault(0, "synapses", kind, element, value)


def test_a_dead_neuron_never_fires_and_its_neighbours_do_as_before() -> None:
    net = small_net()
    found = spikes_under(net, PartFault(0, "neurons", "dead", 3))
    assert clean_spikes(net)[:, :, 3].any() and not found[:, :, 3].any()
    others = [0, 1, 2, 4, 5, 6]
    assert torch.equal(found[:, :, others], clean_spikes(net)[:, :, others])


def test_a_saturated_neuron_fires_in_every_step() -> None:
    assert spikes_under(small_net(), PartFault(0, "neurons", "saturated", 3))[:, :, 3].all()


@pytest.mark.parametrize(("code", "fires"), [(127, True), (-128, False), (16, False), (17, True)])
def test_a_stuck_membrane_fires_where_its_code_is_above_the_threshold(code: int, fires: bool) -> None:
    found = spikes_under(small_net(), PartFault(0, "neurons", "stuck", 3, float(code)))[:, :, 3]
    assert found.all() if fires else not found.any()


def test_an_unreset_neuron_goes_on_firing_while_its_input_lasts() -> None:
    net = small_net(leak=1.0, reset="zero")
    usual, found = clean_spikes(net)[:, :, 3], spikes_under(net, PartFault(0, "neurons", "unreset", 3))[:, :, 3]
    assert torch.equal(found, usual.cummax(1).values) and found.sum() > usual.sum()


@pytest.mark.parametrize(("factor", "more"), [(0.2, True), (3.0, False)])
def test_a_lower_threshold_makes_more_spikes_and_a_higher_one_fewer(factor: float, more: bool) -> None:
    net = small_net()
    usual, found = clean_spikes(net)[:, :, 3], spikes_under(net, PartFault(0, "neurons", "threshold", 3, factor))
    assert (found[:, :, 3].sum() > usual.sum()) == more


def test_a_neuron_without_memory_fires_like_one_whose_leak_is_a_factor_of_0() -> None:
    one = spikes_under(small_net(leak=0.9), *(PartFault(0, "neurons", "leak", i, 0.0) for i in range(7)))
    current = small_net(leak=0.9).stages[0].synapses(images().flatten(1).unsqueeze(1)).detach()
    code = (current / (4 / 128)).round().clamp(-128, 127)
    assert torch.equal(one, (code > 16).float())


def test_a_longer_refractory_period_keeps_spikes_apart() -> None:
    found = spikes_under(small_net(), *(PartFault(0, "neurons", "refractory", i, 2) for i in range(7)))
    assert found.unfold(1, 3, 1).sum(-1).max() == 1 < clean_spikes(small_net()).unfold(1, 3, 1).sum(-1).max()


def test_faults_of_synapses_change_the_code_they_should_and_no_other() -> None:
    net = small_net()
    number = net.stages[0].synapses.weight_number(net.stages[0].synapses.weight)
    clean = number.encode(net.stages[0].synapses.weight).flatten()
    element = int(clean.argmin())
    for fault, code in (
        (synapse("dead", element), 0),
        (synapse("saturated", element), -128),
        (synapse("stuck", element, 77), 77),
        (synapse("flipped", element, 7), int(clean[element]) + 128),
        (synapse("flipped", element, 0), int(clean[element]) ^ 1),
    ):
        faulty = number.encode(weights_under(net, fault)).flatten()
        assert (faulty != clean).nonzero().flatten().tolist() == [element]
        assert int(faulty[element]) == code


def test_a_transient_fault_acts_in_its_steps_only() -> None:
    net = small_net()
    found = spikes_under(net, PartFault(0, "neurons", "saturated", 3, 0.0, 2, 4))[:, :, 3]
    usual = clean_spikes(net)[:, :, 3]
    assert found[:, 2:4].all() and torch.equal(found[:, :2], usual[:, :2])


def test_a_transient_fault_of_a_synapse_changes_the_currents_of_its_steps_only() -> None:
    net = small_net(channels=(2,))
    layer, x = net.stages[1].synapses, clean_spikes(net, 0).flatten(2)
    with torch.no_grad():
        usual = layer(x)
        with inject_map(net, FaultMap((PartFault(1, "synapses", "saturated", 4, 0.0, 1, 3),))):
            changed = (layer(x) != usual).flatten(2).any(2).any(0)
    assert [step for step in range(5) if changed[step]] in ([1, 2], [1], [2])


def test_nothing_is_left_of_a_map_after_the_block_even_where_it_ends_in_an_error() -> None:
    net = small_net()
    with pytest.raises(ZeroDivisionError), inject_map(net, FaultMap((synapse("dead"),))):
        raise ZeroDivisionError
    assert torch.equal(clean_spikes(net), clean_spikes(small_net()))


def test_two_maps_at_once_are_refused() -> None:
    net = small_net()
    with inject_map(net, FaultMap()), pytest.raises(FaultError, match="active already"), inject_map(net, FaultMap()):
        pass


def test_broken_synapses_get_no_gradient() -> None:
    net = small_net().train()
    with inject_map(net, FaultMap((synapse("dead", 10), synapse("stuck", 20, 5)))):
        net(images()).square().sum().backward()
    gradient = net.stages[0].synapses.weight.grad
    assert gradient is not None
    assert gradient.flatten()[10] == gradient.flatten()[20] == 0 and gradient.count_nonzero() > 200


@pytest.mark.parametrize("name", SPIKING_FAULTS)
def test_a_fault_reads_back_from_its_text(name: str) -> None:
    for fault in (SpikingFault(name, 0.25), SpikingFault(name, 0.1, duration="transient", steps=3)):
        assert parse_spiking_fault(str(fault)) == fault


@pytest.mark.parametrize("name", SPIKING_FAULTS)
def test_what_fails_at_a_low_rate_fails_alike_at_a_higher_one(name: str) -> None:
    net = small_net()
    low, high = (draw_map(net, [SpikingFault(name, rate)], chip=3) for rate in (0.1, 0.5))
    assert set(low.faults) < set(high.faults)
    assert not draw_map(net, [SpikingFault(name, 0.0)]).faults
    everything = 7 + 4 if name.startswith("neurons") else 36 * 7 + 7 * 4
    assert len(draw_map(net, [SpikingFault(name, 1.0)])) == everything


@pytest.mark.parametrize("name", SPIKING_FAULTS)
@pytest.mark.parametrize("duration", ["permanent", "transient"])
def test_every_fault_that_is_drawn_can_be_met(name: str, duration: Any) -> None:
    net = small_net(channels=(2,))
    drawn = draw_map(net, [SpikingFault(name, 0.5, duration=duration, steps=2)])
    check_map(drawn, net)
    with torch.no_grad(), inject_map(net, drawn):
        assert net(images()).isfinite().all()


def test_a_chip_is_a_function_of_its_study_and_number() -> None:
    net = small_net()
    fault = [parse_spiking_fault("synapses.stuck:0.2")]
    assert draw_map(net, fault, chip=1) == draw_map(net, fault, chip=1) != draw_map(net, fault, chip=2)


def test_a_map_reads_back_from_its_file(tmp_path: Path) -> None:
    net = small_net()
    drawn = draw_map(net, [parse_spiking_fault("neurons.threshold:0.5"), parse_spiking_fault("synapses.flipped:0.1")])
    save_map(drawn, tmp_path / "map.json")
    assert load_map(tmp_path / "map.json", net) == drawn


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"layer": 5}, "layer must be 0 to 1, got 5"),
        ({"element": 7}, "element must be 0 to 6, got 7"),
        ({"kind": "tired"}, "'neurons.tired' is unknown"),
        ({"kind": "stuck", "value": 128}, "value of stuck must be a whole number, -128 to 127"),
        ({"first": 3, "until": 3}, "steps 3 to 3"),
        ({"until": 9}, "until <= 5"),
        ({"colour": 1}, "fault 0: unknown key 'colour'; choose from layer"),
    ],
)
def test_a_map_of_another_net_is_refused_in_one_line(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    fault = {"layer": 0, "part": "neurons", "kind": "dead", "element": 0, **row}
    (tmp_path / "map.json").write_text(json.dumps({"schema": 1, "faults": [fault]}))
    with pytest.raises(FaultError, match=words) as caught:
        load_map(tmp_path / "map.json", small_net())
    assert "\n" not in str(caught.value) and "map.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("neurons.tired:0.1", "unknown fault 'neurons.tired'; choose from neurons.dead"),
        ("neurons.dead", "has no rate"),
        ("neurons.dead:2", r"rate must be a number in \[0, 1\]"),
        ("neurons.dead:0.1:low=1", "unknown option 'low'; choose from duration"),
        ("neurons.dead:0.1:steps=2", "unknown option 'steps'"),
        ("neurons.threshold:0.1:low=2:high=1", "low <= high"),
        ("synapses.dead:0.1:duration=long", "permanent or transient"),
        ("synapses.dead:0.1:duration=transient:steps=x", "steps must be a number"),
    ],
)
def test_a_wrong_fault_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(FaultError, match=words):
        parse_any(text)


def test_faults_of_either_kind_are_told_apart() -> None:
    spiking, others = divided(["neurons.dead:0.1", "weights.bit_flip:0.01", "features.bit_flip:0.01"])
    assert [str(fault) for fault in spiking] == ["neurons.dead:0.1"]
    assert [fault.name for fault in others] == ["weights.bit_flip", "features.bit_flip"]


def test_both_kinds_of_faults_count_in_one_measurement() -> None:
    net, x = small_net(), images(200)
    labels = net(x).argmax(1)
    with torch.no_grad():
        alone = [
            spiking_chip_accuracies(net, x, labels, faults=faults, chips=range(3), study="s")
            for faults in (
                [],
                ["neurons.dead:0.3"],
                ["weights.bit_flip:0.1"],
                ["neurons.dead:0.3", "weights.bit_flip:0.1"],
            )
        ]
    assert alone[0] == [1.0] * 3 and len({tuple(found) for found in alone}) == 4


def test_the_sites_of_a_net_are_its_weights_and_its_membranes_in_each_step() -> None:
    net = small_net(steps=2)
    names = [site.name for site in sites(net, shapes=output_shapes(net, images()))]
    assert names == [
        "layers.0.synapses.weight",
        "layers.0.neurons.membrane.0.output",
        "layers.0.neurons.membrane.1.output",
        "layers.1.synapses.weight",
        "layers.1.neurons.membrane.0.output",
        "layers.1.neurons.membrane.1.output",
    ]


@given(step=st.integers(0, 4), neuron=st.integers(0, 6), bit=st.integers(0, 7))
@budget(max_examples=15, deadline=None)
def test_a_flipped_membrane_bit_cannot_change_what_came_before_its_step(step: int, neuron: int, bit: int) -> None:
    net, x = small_net(), images(1)
    flip = Flip(f"layers.0.neurons.membrane.{step}.output", neuron, bit)
    plan = explicit_plan(net, [flip], shapes=output_shapes(net, x), images=1)
    with torch.no_grad():
        usual = net.run(x).spikes[0]
        with inject(net, plan):
            found = net.run(x).spikes[0]
    assert torch.equal(found[:, :step], usual[:, :step])
    others = [place for place in range(7) if place != neuron]
    assert torch.equal(found[:, :, others], usual[:, :, others])


class Recorder:
    """Notes which membranes an injection changes."""

    def __init__(self, net: SpikingNet) -> None:
        self.net, self.seen = net, {}

    def differences(self, faults: str) -> dict[int, list[int]]:
        registers = {register: step for step, register in enumerate(self.net.stages[0].neurons.membrane)}
        values: dict[int, Tensor] = {}

        def note(register: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
            grid = 4 / 128
            values[registers[register]] = (output / grid).round() - (args[0] / grid).clamp(-128, 127).round()

        hooks = [register.register_forward_hook(note) for register in registers]
        with torch.no_grad(), inject(self.net, faults, chip=1):
            self.net(torch.zeros(1, 1, 6, 6))
        for hook in hooks:
            hook.remove()
        return {step: changed.abs().flatten().nonzero().flatten().tolist() for step, changed in values.items()}


def test_a_permanent_fault_of_a_membrane_is_the_same_in_every_step_and_a_transient_one_is_not() -> None:
    net = small_net(widths=(200,))
    with torch.no_grad():
        net.stages[0].synapses.bias.zero_()
    permanent = Recorder(net).differences("features.bit_flip:0.01:duration=permanent")
    assert permanent[0] and all(found == permanent[0] for found in permanent.values())
    transient = Recorder(net).differences("features.bit_flip:0.01")
    assert len({tuple(found) for found in transient.values()}) == 5
