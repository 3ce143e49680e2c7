from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from torch import Tensor, nn

from ftnas.spiking.dense.neurons import SpikingNeurons
from ftnas.spiking.dense.specification import SpikingSpec
from ftnas.spiking.dense.surrogates import SURROGATES, spike
from tests.spiking_nets import images, small_net

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def neurons(currents: list[float], **keys: Any) -> tuple[list[int], float]:
    """Return when one neuron fires under these currents, and its last membrane in thresholds."""
    spec = SpikingSpec.model_validate({"steps": len(currents), "threshold": 1.0, "leak": 0.5, **keys})
    spikes, rest = SpikingNeurons(spec, (1,), 1).eval()(torch.tensor(currents).view(1, -1, 1))
    return [step for step, fired in enumerate(spikes.flatten().tolist()) if fired], rest.item()


def test_a_neuron_integrates_leaks_fires_and_resets_as_computed_by_hand() -> None:
    # U: 0.75; 0.375 + 0.75 = 1.125, fires, 0.125 left; 0.0625 + 0.75 = 0.8125; 0.40625 + 0.75 = 1.15625, fires
    assert neurons([0.75] * 4) == ([1, 3], 0.15625)
    assert neurons([0.75] * 4, reset="zero") == ([1, 3], 0.0)


def test_three_neurons_in_a_row_fire_as_computed_by_hand() -> None:
    net = small_net(widths=(1, 1), steps=6, leak=1.0, threshold=1.0, reset="zero")
    for stage, weight in zip(net.stages, (1.0, 0.75, 1.0), strict=True):
        with torch.no_grad():
            stage.synapses.weight.zero_()
            stage.synapses.bias.zero_()
            stage.synapses.weight[0, 0] = weight
            stage.synapses.weight[1:, 0] = -weight
    # The first reads 0.625 a step: U = 0.625, 1.25, so it fires in every second step. The second gains 0.75 each time
    # and fires at the second. The third must exceed, not reach, the threshold: 127/128 of a range of 1 is 0.9921875.
    pixels = torch.zeros(1, 1, 6, 6)
    pixels[0, 0, 0, 0] = 0.625 / (127 / 128)
    first, second, third = (spikes[0, :, 0].tolist() for spikes in net.run(pixels).spikes)
    assert first == [0, 1, 0, 1, 0, 1]
    assert second == [0, 0, 0, 1, 0, 0]
    assert third == [0, 0, 0, 0, 0, 0]


def test_a_refractory_neuron_takes_no_input_for_so_many_steps() -> None:
    assert neurons([1.5] * 6, reset="zero")[0] == [0, 1, 2, 3, 4, 5]
    assert neurons([1.5] * 6, reset="zero", refractory=2)[0] == [0, 3]


def test_a_membrane_saturates_at_its_limit() -> None:
    assert neurons([-100.0, 0.0], leak=1.0, membrane_limit=2.0) == ([], -2.0)


def test_a_membrane_begins_where_the_specification_says() -> None:
    assert neurons([0.75], initial=0.5, leak=1.0) == ([0], 0.25)


def test_a_threshold_never_falls_below_a_step_of_the_membrane() -> None:
    layer = SpikingNeurons(SpikingSpec(steps=1), (1,), 1)
    with torch.no_grad():
        layer.threshold.fill_(-3.0)
    assert layer.threshold_on_grid().item() == 4 / 128


@pytest.mark.parametrize("name", SURROGATES)
def test_a_spike_has_the_gradient_of_its_surrogate(name: Any) -> None:
    x = torch.tensor([-0.5, 0.0, 0.25], requires_grad=True)
    spikes = spike(x, surrogate=name, slope=2.0)
    spikes.sum().backward()
    assert spikes.tolist() == [0, 0, 1]
    assert x.grad is not None and torch.equal(x.grad, SURROGATES[name](x.detach(), 2.0))
    assert x.grad[1] == 1 and x.grad[0] < x.grad[2] < 1


@pytest.mark.parametrize("learns", [True, False])
def test_thresholds_get_a_gradient_where_they_are_learned(learns: bool) -> None:
    net = small_net(learn_threshold=learns).train()
    net(images()).square().sum().backward()
    gradients = [stage.neurons.threshold.grad for stage in net.stages]
    assert all((gradient is not None and gradient.item() != 0) == learns for gradient in gradients)


def test_every_weight_of_a_net_gets_a_gradient() -> None:
    net = small_net(channels=(3,)).train()
    net(images()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


class Oracle(nn.Module):
    """The same net of snntorch's neurons.

    Its reset by subtraction comes a step later and is not leaked, or, where it is to come at once, is taken off twice
    under a strong input; so it is the same as ours without a leak only.
    """

    def __init__(self, spec: SpikingSpec, weights: list[Tensor], biases: list[Tensor]) -> None:
        super().__init__()
        snntorch = pytest.importorskip("snntorch", reason="pip install 'ftnas[dev]'")
        self.spec, self.weights, self.biases = spec, weights, biases
        self.layers = [
            snntorch.Leaky(
                spec.leak, threshold=spec.threshold, reset_mechanism=spec.reset, reset_delay=spec.reset == "subtract"
            )
            for _ in weights
        ]

    def spikes(self, x: Tensor) -> list[Tensor]:
        found: list[list[Tensor]] = [[] for _ in self.layers]
        membranes = [layer.reset_mem() for layer in self.layers]
        for _ in range(self.spec.steps):
            current = x.flatten(1)
            for place, layer in enumerate(self.layers):
                current = nn.functional.linear(current, self.weights[place], self.biases[place])
                current, membranes[place] = layer(current, membranes[place])
                found[place].append(current)
        return [torch.stack(steps, 1) for steps in found]


DYNAMICS = [("zero", 0.25), ("zero", 0.5), ("zero", 0.75), ("zero", 1.0), ("subtract", 1.0)]


@given(st.integers(0, 10_000), st.sampled_from(DYNAMICS))
@budget(max_examples=25, deadline=None)
def test_spikes_are_those_of_snntorch_with_the_same_weights(seed: int, dynamics: tuple[str, float]) -> None:
    # Weights, inputs and leaks of few bits, so that sums are exact and membranes of 16 bits hold them: then nothing is
    # left to rounding, and every spike must be the same.
    net = small_net(
        seed=seed, widths=(8, 6), steps=4, reset=dynamics[0], leak=dynamics[1], threshold=0.75, weight_bits=4,
        weight_range="fixed(1)", membrane_bits=16, membrane_limit=32.0,
    )  # fmt: skip
    with torch.no_grad():
        for stage in net.stages:
            stage.synapses.weight.mul_(3)
            stage.synapses.bias.mul_(8).round_().div_(8)
    x = images(5, seed).mul(4).round().div(4)
    numbers = [stage.synapses.weight_number(stage.synapses.weight) for stage in net.stages]
    weights = [n.decode(n.encode(stage.synapses.weight)) for n, stage in zip(numbers, net.stages, strict=True)]
    expected = Oracle(net.spec, weights, [stage.synapses.bias.detach() for stage in net.stages]).spikes(x)
    found = net.run(x).spikes
    assert sum(layer.sum() for layer in found) > 0
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_logits_are_the_charge_that_outputs_received_in_thresholds() -> None:
    net = small_net(leak=1.0, reset="subtract", membrane_limit=64.0, membrane_bits=16)
    x = images()
    charge = net.stages[-1].synapses(net.run(x).spikes[-2]).sum(1)
    assert torch.allclose(net(x), charge / 0.5, atol=0.05)


def test_an_image_is_answered_alike_in_any_batch() -> None:
    net = small_net(channels=(3,))
    x = images()
    assert torch.allclose(net(x)[4:6], net(x[4:6]), atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"steps": 0}, "greater than or equal to 1"),
        ({"leak": 0.0}, "greater than 0"),
        ({"leak": 1.5}, "less than or equal to 1"),
        ({"threshold": 5.0}, "nothing fires"),
        ({"weight_range": "wide"}, "unknown range 'wide'"),
        ({"widths": (0,)}, "greater than or equal to 1"),
        ({"speed": 3}, "Extra inputs"),
    ],
)
def test_an_impossible_specification_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SpikingSpec.model_validate(keys)
