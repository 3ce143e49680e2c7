"""A graph computes what the module computes, whatever the module was; what it cannot hold is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from export_nets import OPERATIONS, Between, baseline, between, everything, measured, pixels, quantized_resnet
from path_nets import FULL, SHAPE, SMALL, SPACES, network
from small_nets import SmallNet, same_bits, small_net, state, trained
from torch import Tensor, nn
from user_nets import user_model

from ftnas.errors import ExportError
from ftnas.export.graph import Clamp, Convolve, Graph, Multiply, Scale
from ftnas.export.tracing import graph_of, run_float
from ftnas.faults import expose, inject, quantize
from ftnas.networks import CellNetwork
from ftnas.quantization import FixedPoint, Quantization, QuantizedConv2d, QuantizedLinear, Range, Rectifier
from ftnas.space import Cell, Edge, Genotype


def graph(net: nn.Module, images: Tensor, **faults: Any) -> Graph:
    return graph_of(net, images[:1], name="net", **faults)


def check_same(net: nn.Module, images: Tensor) -> Graph:
    """Check that the graph gives the logits of ``net``, but for values that fall on the other side of a rounding."""
    found = graph(net, images)
    with torch.no_grad():
        expected = net(images)
    same = (run_float(found, images) - expected).abs().amax(1) < 1e-4
    assert same.float().mean() > 0.9, f"{int(same.sum())} of {len(images)} images"
    return found


def test_all_operations_between_layers_are_what_torch_computes() -> None:
    check_same(*everything())


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_between_layers_is_what_torch_computes(name: str) -> None:
    check_same(*between(name))


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vgg16", "mobilenet_v2"])
def test_a_baseline_is_its_graph(name: str) -> None:
    check_same(*baseline(name))


@pytest.mark.parametrize("seed", range(2))
def test_a_found_net_is_its_graph(seed: int) -> None:
    torch.manual_seed(0)
    net = network("full", FULL.sample(torch.Generator().manual_seed(seed)))
    images = torch.randn(16, *SHAPE)
    check_same(measured(net, images), images)


def test_every_primitive_of_a_cell_is_exported() -> None:
    numbers = Quantization(5, Range("max"), 6, Range("learned"))
    edges = [Edge(name, index % 2, numbers) for index, name in enumerate(FULL.operators) if name != "none"]
    cell: Cell = (tuple(edges), (Edge("none", 0, numbers), Edge("none", 1, numbers)))
    space = SPACES["full"]
    torch.manual_seed(0)
    net = CellNetwork(space, SMALL, image_shape=(1, 9, 7), classes=4, genotype=Genotype(cell, cell))
    images = torch.randn(16, 1, 9, 7)
    check_same(measured(net, images), images)


@pytest.mark.parametrize("name", ["residual", "depthwise", "volume"])
def test_a_users_model_is_its_graph(name: str) -> None:
    model, images = user_model(name)
    check_same(quantize(model, images).eval(), images)


@pytest.mark.parametrize("bits", [3, 8, 16])
def test_a_users_resnet_is_its_graph(bits: int) -> None:
    net, images = quantized_resnet(bits)
    found = graph(net, images)
    with torch.no_grad():
        difference = (run_float(found, images) - net(images)).abs().max()
    assert difference <= 2 * found.nodes[-1].number.ends[1] / 2 ** (bits - 1)  # type: ignore[union-attr]


def test_a_layer_that_runs_twice_is_two_nodes_of_the_same_weights() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = QuantizedConv2d(2, 2, 3), QuantizedLinear(2 * 7 * 6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.layer(F.relu(self.layer(x))).flatten(1))  # type: ignore[no-any-return]

    images = torch.randn(24, 2, 7, 6)
    first, second = [node for node in check_same(measured(Twice(), images), images).nodes if node.path == "layer"]
    assert isinstance(first.operation, Convolve)
    assert isinstance(second.operation, Convolve)
    assert np.array_equal(first.operation.weight.codes, second.operation.weight.codes)


def test_layers_whose_result_nobody_reads_are_left_out() -> None:
    class Dead(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            self.second(x.repeat(1, 4, 1, 1))
            return super().forward(x)

    images = torch.randn(8, 1, 8, 8)
    paths = [node.path for node in graph(measured(Dead(4), images), images).nodes if node.number]
    assert paths == ["first", "second", "classifier"]


def test_a_trained_net_answers_alike_for_any_number_of_images() -> None:
    net, images = trained()[0], torch.randn(7, 1, 8, 8)
    found = graph(net, images)
    assert found.input_shape == (1, 8, 8)
    for count in (1, 2, 7):
        assert torch.allclose(run_float(found, images[:count]), net(images[:count]), atol=1e-5)


def test_the_codes_and_formats_of_a_graph_are_the_layers_own() -> None:
    net = trained()[0]
    for node in graph(net, torch.randn(1, 1, 8, 8)).nodes:
        if isinstance(node.operation, Convolve | Multiply):
            layer: Any = net.get_submodule(node.path)
            number = layer.weight_number(layer.weight)
            assert node.number == layer.feature_number()
            assert node.operation.weight.number == number
            assert np.array_equal(node.operation.weight.codes, number.encode(layer.weight.detach()).numpy())


def test_names_are_identifiers_and_none_comes_twice() -> None:
    net, images = quantized_resnet()
    names = [node.name for node in graph(net, images).nodes]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and name.isascii() and name != "input" for name in names)


def test_a_model_is_left_as_it_is() -> None:
    net = small_net()
    net.train()(torch.randn(4, 1, 8, 8))
    before, hooks = state(net), dict(net._forward_hooks)
    graph(net, torch.randn(4, 1, 8, 8))
    assert net.training
    assert same_bits(before, state(net))
    assert dict(net._forward_hooks) == hooks


class Rectifying(nn.Module):
    """A convolution with the activation before its batch norm."""

    def __init__(self, rectifier: Rectifier) -> None:
        super().__init__()
        self.first, self.last = QuantizedConv2d(1, 4, 3, rectifier=rectifier), QuantizedLinear(4 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.first(x).flatten(1))
        return logits


def test_an_activation_inside_a_layer_stands_between_its_convolution_and_its_batch_norm() -> None:
    images = pixels(24, 1, 8, 8)
    nodes = check_same(measured(Rectifying(Rectifier(0.5)), images), images).nodes
    first = [node for node in nodes if node.path == "first"]
    assert [type(node.operation) for node in first] == [Convolve, Clamp, Scale]
    assert [node.number is None for node in first] == [True, True, False]


def test_an_activation_with_a_threshold_is_refused_with_its_layer() -> None:
    images = pixels(24, 1, 8, 8)
    with pytest.raises(ExportError, match=r"^first: the activation fatrelu\(0\.1\) cannot be exported"):
        graph(measured(Rectifying(Rectifier(threshold=0.1)), images), images)


# Faulty twins


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("own", "weights.bit_flip:1e-2"),
        ("own", "weights.stuck_cell:0.05:scope=all"),
        ("converted", "weights.stuck_bit:1e-2"),
    ],
)
def test_a_faulty_twin_computes_what_the_faulty_chip_does(kind: str, fault: str) -> None:
    net, images = trained()[0] if kind == "own" else quantized_resnet(4)[0], torch.randn(24, 1, 8, 8)
    twin, clean = graph(net, images, faults=[fault], chip=3, study="field"), graph(net, images)
    with torch.no_grad(), inject(net, fault, chip=3, study="field"):
        expected = net(images)
    assert ((run_float(twin, images) - expected).abs().amax(1) < 1e-4).float().mean() > 0.9
    changed = [_codes(node, other) for node, other in zip(twin.nodes, clean.nodes, strict=True)]
    assert any(changed)


def _codes(node: Any, other: Any) -> bool:
    """Check that the formats are the same, and return whether a code is another."""
    assert node.number == other.number
    if not isinstance(node.operation, Convolve | Multiply):
        return False
    weight, clean = node.operation.weight, other.operation.weight
    assert weight.number == clean.number
    assert weight.codes.min() >= weight.number.low
    assert weight.codes.max() <= weight.number.high
    return not np.array_equal(weight.codes, clean.codes)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("features.bit_flip:1e-3", "features, which exist only while the net computes"),
        ("weights.bit_flip:1e-3:duration=transient", "is transient"),
        ("weights.bit_flip:1e-3:duration=intermittent", "is intermittent"),
        ("weights.log_normal:0.1", "leaves the grid"),
    ],
)
def test_a_fault_that_no_weights_can_hold_is_refused(fault: str, says: str) -> None:
    with pytest.raises(ExportError, match=says):
        graph(trained()[0], torch.randn(1, 1, 8, 8), faults=fault)


# What cannot be exported


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        (torch.sigmoid, "aten.sigmoid.default"),
        (lambda x: x * x, "aten.mul.Tensor multiplies two features"),
        (lambda x: x.transpose(1, 2), "aten.transpose.int"),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "something else than zeros"),
        (lambda x: F.pad(x, (1, 1), value=1.0), "something else than zeros"),
        (lambda x: F.pad(x, (-1, 1)), r"pads by \[-1, 1\]"),
        (lambda x: x.mean(1), "other dimensions than all spatial"),
        (lambda x: x + torch.ones(6), "differ by more than the channel"),
        (lambda x: x + x.mean((2, 3), keepdim=True), "adds shapes"),
        (lambda x: F.adaptive_avg_pool2d(x, 5), "windows of several sizes"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=3), "divisor of its own"),
        (lambda x: F.max_pool2d(x, 2, dilation=2), "is dilated"),
        (lambda x: torch.cat([x, x.new_ones(len(x), 1, 7, 6)], 1), "aten.new_ones"),
        (lambda x: F.softmax(x, 1), "aten.softmax"),
        (lambda x: x.round().long().float(), "aten.round"),
    ],
)
def test_an_operation_that_cannot_be_exported_is_named(operation: Any, says: str) -> None:
    images = torch.randn(8, 2, 7, 6)
    with pytest.raises(ExportError, match=says):
        graph(measured(Between(operation), images), images)


def test_an_operation_is_named_with_the_module_that_it_is_in() -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(x)

    images = torch.randn(8, 2, 7, 6)
    with pytest.raises(ExportError, match=r"^operation: aten\.sigmoid"):
        graph(measured(Between(Gate()), images), images)


@pytest.mark.parametrize("name", ["plain_cnn", "audio"])
def test_padding_that_is_no_zeros_is_named_with_its_layer(name: str) -> None:
    model, images = user_model(name)
    with pytest.raises(ExportError, match=r"^3: padding_mode='re"):
        graph(quantize(model, images).eval(), images)


@pytest.mark.parametrize("name", ["shared", "dense"])
def test_a_model_that_returns_no_logits_is_refused(name: str) -> None:
    model, images = user_model(name)
    with pytest.raises(ExportError, match="must return one tensor of logits"):
        graph(quantize(model, images).eval(), images)


def test_float_words_are_refused_with_their_layer() -> None:
    model, images = user_model("depthwise")
    with pytest.raises(ExportError, match=r"^0: holds float32 values; only integers"):
        graph(expose(model, images), images)


def test_a_float_model_is_refused() -> None:
    model, images = user_model("depthwise")
    with pytest.raises(ExportError, match="has no quantised layer; quantise it first"):
        graph(model, images)


def test_a_layer_that_stayed_float_is_named() -> None:
    model, images = user_model("depthwise")
    quantized: Any = quantize(model, images).eval()
    quantized[2] = nn.Conv2d(9, 9, 1)
    with pytest.raises(ExportError, match=r"^2: aten\.conv2d"):
        graph(quantized, images)


def test_a_range_that_was_never_measured_is_named() -> None:
    with pytest.raises(ExportError, match=r"^first: .*was never measured"):
        graph(small_net(), torch.randn(1, 1, 8, 8))


def test_a_model_that_asks_for_values_is_refused_in_one_line() -> None:
    class Asks(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    images = torch.randn(8, 1, 8, 8)
    with pytest.raises(ExportError, match=r"^net: torch\.export cannot trace it: ") as caught:
        graph(measured(Asks(4), images), images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bits", [3, 13])
def test_weights_of_any_bits_are_exact(bits: int) -> None:
    numbers = Quantization(weight_bits=bits, weight_range=Range("max_per_channel"))
    net = measured(SmallNet(4, numbers), torch.randn(4, 1, 8, 8))
    (node,) = [node for node in graph(net, torch.randn(1, 1, 8, 8)).nodes if node.path == "second"]
    assert isinstance(node.operation, Convolve)
    number = node.operation.weight.number
    assert isinstance(number, FixedPoint)
    decoded = number.decode(torch.from_numpy(node.operation.weight.codes))
    assert torch.equal(decoded, net.second.quantized_weight(net.second.weight.detach(), numbers))  # type: ignore[operator,union-attr]
