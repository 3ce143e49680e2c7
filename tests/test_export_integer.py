"""The integer net: rounding is half to even, nothing overflows, and its answers are those of the float net."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from export_nets import (
    OPERATIONS,
    Between,
    baseline,
    between,
    everything,
    everything_graph,
    measured,
    pixels,
    quantized_resnet,
)
from hypothesis import given
from hypothesis import strategies as st
from small_nets import digits, trained
from torch import Tensor, nn
from user_nets import user_model

from ftnas.errors import ExportError
from ftnas.export import lowering
from ftnas.export.graph import INPUT, Clamp, Convolve, Graph, Multiply, Node, Weight, Zeros
from ftnas.export.integer import IntegerNet, image_codes, rounded_shift, run, run_values
from ftnas.export.lowering import integer_net
from ftnas.export.tracing import graph_of
from ftnas.faults import quantize
from ftnas.quantization import (
    FixedPoint,
    Quantization,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedSum,
    Range,
    Rectifier,
)


def lowered(net: nn.Module, images: Tensor) -> IntegerNet:
    return integer_net(graph_of(net, images[:1], name="net"), images.numpy())


def lowered_everything() -> IntegerNet:
    return integer_net(everything_graph(), everything()[1].numpy())


def agreement(net: nn.Module, images: Tensor) -> float:
    """Return the share of the images whose integer logits are, times their scale, those of ``net``."""
    integers = lowered(net, images)
    with torch.no_grad():
        expected = net(images).numpy()
    found = run(integers, images.numpy()) * integers.scale
    assert np.abs(found - expected).max() < 5 * integers.scale
    return float((np.abs(found - expected) < 0.1 * integers.scale).all(1).mean())


@given(st.integers(-(2**61), 2**61), st.integers(0, 62))
def test_a_shift_rounds_half_to_even(value: int, shift: int) -> None:
    assert int(rounded_shift(np.array(value), np.array(shift))) == round(Fraction(value, 2**shift))


@given(st.integers(-(2**40), 2**40), st.integers(1, 20))
def test_a_tie_goes_to_the_even_neighbour(code: int, shift: int) -> None:
    tie = np.array((2 * code + 1) << (shift - 1))
    assert int(rounded_shift(tie, np.array(shift))) % 2 == 0


@given(
    st.floats(2.0**-20, 2.0**10) | st.just(0.0),
    st.floats(-(2.0**10), 2.0**10),
    st.integers(1, 2**40),
    st.sampled_from([-1, 1]),
)
def test_a_multiplier_is_as_exact_as_64_bits_allow(factor: float, offset: float, bound: int, sign: int) -> None:
    multiplier, addend, shift = lowering._fixed(sign * factor, offset, bound, "layer")
    assert abs(multiplier) <= 2**30
    assert bound * abs(multiplier) + abs(addend) < 2**62
    exact = Fraction(sign * factor) * bound + Fraction(offset)
    found = Fraction(bound * multiplier + addend, 2**shift)
    assert abs(found - exact) <= (abs(Fraction(factor)) * bound + abs(Fraction(offset)) + 1) * Fraction(2, 2**18)


def test_a_factor_that_integers_cannot_hold_is_refused_with_its_layer() -> None:
    with pytest.raises(ExportError, match=r"^layer: results of 1e\+20 steps"):
        lowering._fixed(1e20, 0.0, 2**20, "layer")


def test_all_operations_in_integers_agree_with_float() -> None:
    assert agreement(*everything()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_in_integers_agrees_with_float(name: str) -> None:
    assert agreement(*between(name)) > 0.95


@pytest.mark.parametrize("net", ["resnet20", "mobilenet_v2"])
def test_a_baseline_in_integers_agrees_with_float(net: str) -> None:
    assert agreement(*baseline(net)) > 0.9


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_users_resnet_in_integers_agrees_with_float(bits: int) -> None:
    assert agreement(*quantized_resnet(bits)) > (0.9 if bits < 16 else 0.1)


@pytest.mark.parametrize("name", ["residual", "depthwise", "volume"])
def test_a_users_model_in_integers_agrees_with_float(name: str) -> None:
    model, images = user_model(name)
    assert agreement(quantize(model, images).eval(), images) > 0.9


def test_a_trained_net_gives_every_answer_in_integers() -> None:
    net, data = trained()[0], digits()
    integers = integer_net(graph_of(net, data.test_images[:1], name="net"), data.train_images[:256].numpy())
    with torch.no_grad():
        expected = net(data.test_images).numpy()
    found = run(integers, data.test_images.numpy())
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert (found * integers.scale == expected).all(1).mean() > 0.99


def test_sums_of_powers_of_two_meet_half_a_step_as_float_does() -> None:
    class Halves(nn.Module):
        """Two convolutions on grids whose sums lie on half a step of the sum's grid as often as not."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = QuantizedConv2d(2, 4, 3, norm="none"), QuantizedConv2d(2, 4, 1, norm="none")
            self.sum = QuantizedSum(choices=(Quantization(feature_range=Range("fixed", 32)),))
            self.last = QuantizedLinear(4 * 42, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.sum([self.one(x), self.other(x)]).flatten(1))  # type: ignore[no-any-return]

    # Exact on the input's grid, so that only sums are rounded.
    images = torch.randint(-128, 128, (64, 2, 7, 6)) / 64
    assert agreement(measured(Halves(), images), images) == 1


def test_an_activation_inside_a_layer_agrees_with_float() -> None:
    class Rectifying(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = QuantizedConv2d(2, 4, 3, rectifier=Rectifier(0.5)), QuantizedLinear(4 * 42, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).flatten(1))  # type: ignore[no-any-return]

    images = pixels(32, 2, 7, 6)
    assert agreement(measured(Rectifying(), images), images) > 0.9


def test_logits_do_not_depend_on_the_batch() -> None:
    net, images = quantized_resnet()
    integers = lowered(net, images)
    singly = np.concatenate([run(integers, image[None].numpy()) for image in images])
    assert np.array_equal(singly, run(integers, images.repeat(5, 1, 1, 1).numpy())[: len(images)])


def test_no_code_is_larger_than_its_node_says_and_all_fit_32_bits() -> None:
    images, integers = everything()[1], lowered_everything()
    noise = np.sign(np.random.default_rng(0).normal(size=images.shape)).astype(np.int64) * 32767
    for codes in (noise, image_codes(integers, 1000 * images.numpy()).astype(np.int64)):
        values = run_values(integers, codes)
        for node in integers.nodes:
            assert np.abs(values[node.name]).max(initial=0) <= node.largest < 2**31, node.name


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_evenly_spaced_pixels_lie_on_the_inputs_grid(levels: int, mean: float) -> None:
    pixels = ((torch.arange(levels) / (levels - 1) - mean) / 0.37).repeat(42)[: 42 * levels].view(-1, 1, 7, 6)
    images = pixels.expand(-1, 2, 7, 6)
    integers = lowered(measured(Between(lambda x: x), images), images)
    error = np.abs(image_codes(integers, images.numpy()) * integers.input_scale - images.numpy()).max()
    assert error < integers.input_scale / 20
    assert np.abs(image_codes(integers, images.numpy())).max() > 2**13


def test_images_beyond_the_range_saturate() -> None:
    assert image_codes(lowered_everything(), 10 * everything()[1].numpy()).max() == 32767


@pytest.mark.parametrize("pixel", [0.0, float("inf"), float("nan")])
def test_images_without_a_range_are_refused(pixel: float) -> None:
    with pytest.raises(ExportError, match="have a largest magnitude of"):
        integer_net(everything_graph(), np.full((3, 2, 7, 6), pixel, np.float32))


def test_sums_that_float64_cannot_hold_are_refused_with_their_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "SUMMED", 2**20)
    with pytest.raises(ExportError, match=r"^first: sums of products up to"):
        lowered_everything()


def graph_by_hand(*nodes: Node) -> Graph:
    return Graph("hand", (3,), nodes, nodes[-1].name)


def linear(number: FixedPoint | None) -> Multiply:
    codes = np.array([[1, -2, 3], [127, 0, -128]], np.int32)
    return Multiply(Weight(codes, FixedPoint(8, (0.25, 0.5))), np.array([0.5, -1], np.float32))


def test_a_layer_without_a_grid_keeps_a_fine_one() -> None:
    net = graph_by_hand(Node("product", linear(None), (INPUT,), (2,)))
    x = np.array([[1.0, -0.5, 0.25], [0.0, 1.0, -1.0]], np.float32)
    integers = integer_net(net, x)
    expected = x @ (linear(None).weight.codes.T * [0.25, 0.5]) + [0.5, -1]
    assert np.allclose(run(integers, x) * integers.scale, expected, atol=1e-3)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.2), (-0.3, 0.7), (2.0, 3.0), (-5.0, -4.0)])
def test_a_clamp_meets_limits_that_lie_on_no_grid(low: float, high: float) -> None:
    net = graph_by_hand(
        Node("product", linear(FixedPoint(8, 0.5)), (INPUT,), (2,), FixedPoint(8, 0.5)),
        Node("clamp", Clamp(low, high), ("product",), (2,)),
    )
    x = np.array([[1.0, -0.5, 0.25], [0.0, 1.0, -1.0], [0.0, 0.0, 0.0]], np.float32)
    integers = integer_net(net, x)
    product = (x @ (linear(None).weight.codes.T * [0.25, 0.5]) + [0.5, -1]) / 0.5
    expected = (product.round().clip(-128, 127) * 0.5).clip(low, high)
    assert np.allclose(run(integers, x) * integers.scale, expected, atol=1e-4)


def test_zeros_have_any_scale() -> None:
    net = graph_by_hand(
        Node("zeros", Zeros(), (), (3,)),
        Node("clamp", Clamp(0.5, 1.0), ("zeros",), (3,)),
    )
    integers = integer_net(net, np.ones((1, 3), np.float32))
    assert np.allclose(run(integers, np.ones((2, 3), np.float32)) * integers.scale, 0.5, atol=1e-6)


def test_weights_are_taken_over_as_they_are() -> None:
    net, images = quantized_resnet()
    graph = graph_of(net, images[:1], name="net")
    layers: Callable[[Graph | IntegerNet], list[int]] = lambda g: [  # noqa: E731
        int(node.operation.weight.codes.sum()) for node in g.nodes if isinstance(node.operation, Convolve | Multiply)
    ]
    assert layers(graph) == layers(integer_net(graph, images.numpy()))
