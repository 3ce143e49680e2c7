from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported_nets import Step, baseline, dyadic, found, one_step, own, weight
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ftnas.errors import ExportError
from ftnas.export.frozen import FrozenNet
from ftnas.export.graph import (
    Add,
    Clamp,
    Concatenate,
    Convolve,
    Graph,
    Mean,
    Multiply,
    Node,
    Pad,
    Pool,
    Reshape,
    Scale,
    Slice,
    Zeros,
)
from ftnas.export.onnx_file import onnx_model, run_onnx, write_onnx
from ftnas.export.tracing import graph_of
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.quantization import FixedPoint

INT8 = FixedPoint(8, 2.0**-5)
quick = settings(max_examples=40, deadline=None)


def both(step: Step, folder: Path, *, optimised: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return what onnxruntime and torch make of a step's images."""
    path = folder / "step.onnx"
    write_onnx(step.graph, path)
    (ours,) = run_onnx(path, step.images.numpy(), optimised=optimised)
    with torch.no_grad():
        return ours, FrozenNet(step.graph)(step.images).numpy()


def graph_of_net(net: Checkpoint) -> Graph:
    return graph_of(net.model, net.data.test_images[:1], name="net", facts={"data": "digits"})


@st.composite
def convolutions(draw: st.DrawFn) -> Step:
    groups, per_group, out = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pairs = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding, stride = draw(st.tuples(pairs, pairs)), draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    scales = st.sampled_from([2.0**-6, 2.0**-4])
    per_channel = draw(st.booleans())
    scale = tuple(draw(scales) for _ in range(groups * out)) if per_channel else draw(scales)
    number = FixedPoint(draw(st.integers(2, 8)), scale)
    shape = [
        (size + sum(pad) - step * (extent - 1) - 1) // by + 1
        for size, pad, step, extent, by in zip((6, 7), padding, dilation, kernel, stride, strict=True)
    ]
    assume(min(shape) > 0)
    integers = weight(groups * out, per_group, *kernel, number=number)
    operation = Convolve(integers, None, None, None, stride, padding, dilation, groups)
    return one_step(operation, dyadic(3, groups * per_group, 6, 7), (groups * out, *shape))


@quick
@given(convolutions())
def test_a_convolution_of_any_geometry_is_exact(tmp_path_factory: pytest.TempPathFactory, step: Step) -> None:
    np.testing.assert_array_equal(*both(step, tmp_path_factory.mktemp("onnx")))


@st.composite
def poolings(draw: st.DrawFn) -> Step:
    kind = draw(st.sampled_from(["max", "average"]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    pads = [draw(st.integers(0, size // 2)) for size in kernel]
    pool = Pool(
        kind, kernel, draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        tuple((pad, pad) for pad in pads), ceil=draw(st.booleans()), count_padding=draw(st.booleans()),
    )  # fmt: skip
    images = dyadic(2, 2, 7, 8)
    as_torch = FrozenNet(one_step(pool, images, ()).graph)(images)
    return one_step(pool, images, tuple(as_torch.shape[1:]))


@quick
@given(poolings())
def test_a_pooling_of_any_geometry_has_the_values_of_torch(
    tmp_path_factory: pytest.TempPathFactory, step: Step
) -> None:
    np.testing.assert_allclose(*both(step, tmp_path_factory.mktemp("onnx")), rtol=1e-6)


@quick
@given(st.integers(2, 16), st.booleans(), st.sampled_from([2.0**-3, 0.0371, 1e-4]))
def test_every_format_rounds_and_saturates_as_torch_does(
    tmp_path_factory: pytest.TempPathFactory, bits: int, signed: bool, scale: float
) -> None:
    number = FixedPoint(bits, scale, signed)
    # Ties, both ends, and far beyond them.
    ends = torch.tensor([number.low, number.high, 0], dtype=torch.float32)
    near = (ends[:, None] + torch.arange(-3, 3.5, 0.5)).flatten() * np.float32(scale)
    images = torch.cat([near, torch.tensor([-1e6, 1e6])])[None, None]
    step = one_step(Add(), images, tuple(images.shape[1:]), number=number)
    for optimised in (False, True):
        np.testing.assert_array_equal(*both(step, tmp_path_factory.mktemp("onnx"), optimised=optimised))


MAP = dyadic(3, 4, 6, 5)
REALS = np.array([0.5, -2.0, 0.25, 3.0], np.float32)
STEPS = {
    "a sum of one": one_step(Add(), MAP, (4, 6, 5)),
    "a sum of three": one_step(Add(), MAP, (4, 6, 5), terms=3),
    "a ReLU": one_step(Clamp(0, math.inf), MAP, (4, 6, 5)),
    "a clamp": one_step(Clamp(-1.5, 6), MAP, (4, 6, 5)),
    "a clamp from above": one_step(Clamp(-math.inf, 1), MAP, (4, 6, 5)),
    "a mean": one_step(Mean(keep=False), MAP, (4,)),
    "a mean that keeps dimensions": one_step(Mean(keep=True), MAP, (4, 1, 1)),
    "a concatenation of channels": one_step(Concatenate(0), MAP, (8, 6, 5), terms=2),
    "a concatenation of rows": one_step(Concatenate(1), MAP, (4, 12, 5), terms=2),
    "a slice": one_step(Slice(1, 1, 6, 2), MAP, (4, 3, 5)),
    "padding": one_step(Pad(((0, 2), (1, 0), (0, 0))), MAP, (6, 7, 5)),
    "flattening": one_step(Reshape(), MAP, (120,)),
    "a batch norm": one_step(Scale(REALS, REALS[::-1].copy()), MAP, (4, 6, 5)),
    "zeros": one_step(Zeros(), MAP, (2, 3)),
    "zeros of no input": one_step(Zeros(), MAP, (2, 3), terms=0),
    "a linear layer": one_step(Multiply(weight(3, 7, number=INT8), None), dyadic(4, 7), (3,)),
    "a linear layer of rows": one_step(Multiply(weight(3, 5, number=INT8), REALS[:3]), MAP, (4, 6, 3)),
    "a linear layer with batch norm": one_step(
        Multiply(weight(4, 7, number=INT8), REALS, REALS, REALS), dyadic(4, 7), (4,)
    ),
    "a convolution of sounds": one_step(
        Convolve(weight(2, 4, 3, number=INT8), REALS[:2], None, None, (2,), ((1, 0),), (1,), 1), dyadic(3, 4, 9), (2, 4)
    ),
    "a convolution of volumes with batch norm": one_step(
        Convolve(weight(4, 1, 2, 2, 2, number=INT8), REALS, REALS, REALS, (1,) * 3, ((0, 0),) * 3, (1,) * 3, 1),
        dyadic(2, 1, 3, 3, 3), (4, 2, 2, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_every_operation_has_the_values_of_torch(tmp_path: Path, name: str) -> None:
    np.testing.assert_allclose(*both(STEPS[name], tmp_path), rtol=1e-6)


@pytest.mark.parametrize(
    ("bits", "signed", "kind"),
    [
        (2, True, "INT4"),
        (4, True, "INT4"),
        (4, False, "UINT4"),
        (5, True, "INT8"),
        (8, True, "INT8"),
        (8, False, "UINT8"),
        (9, True, "INT16"),
        (16, True, "INT16"),
    ],
)
def test_weights_are_stored_as_the_narrowest_integers_and_come_back(bits: int, signed: bool, kind: str) -> None:
    integers = weight(3, 2, 3, 3, number=FixedPoint(bits, 0.1, signed))
    operation = Convolve(integers, None, None, None, (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    model = onnx_model(one_step(operation, dyadic(1, 2, 4, 4), (3, 4, 4)).graph)
    (stored,) = [tensor for tensor in model.graph.initializer if tensor.name == "step.weight.codes"]
    assert onnx.TensorProto.DataType.Name(stored.data_type) == kind
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored).astype(np.int32), integers.codes)


def test_no_weight_of_a_net_is_stored_as_float() -> None:
    model = onnx_model(graph_of_net(found()))
    shapes = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer if tensor.data_type == 1}
    assert shapes
    assert not [name for name, rank in shapes.items() if name.endswith("weight") or (rank == 4)]


def test_metadata_say_the_ends_of_every_grid_and_the_facts() -> None:
    graph = graph_of_net(found())
    properties = {entry.key: entry.value for entry in onnx_model(graph).metadata_props}
    grids = json.loads(properties["grids"])
    assert properties["data"] == "digits"
    for node in graph.nodes:
        if node.number is not None:
            assert (grids[node.name]["low"], grids[node.name]["high"]) == (node.number.low, node.number.high)
        if isinstance(node.operation, Convolve | Multiply):
            assert grids[f"{node.name}.weight"]["bits"] == node.operation.weight.number.bits


@pytest.mark.parametrize("net", [found, baseline, own], ids=["found", "baseline", "own"])
def test_a_net_repeats_torch_at_every_level_of_optimisation(tmp_path: Path, net: object) -> None:
    net = net()  # type: ignore[operator]
    write_onnx(graph_of_net(net), tmp_path / "net.onnx")
    with torch.no_grad():
        expected = net.model(net.data.test_images).numpy()
    for optimised in (False, True):
        (logits,) = run_onnx(tmp_path / "net.onnx", net.data.test_images.numpy(), optimised=optimised)
        # On another processor a sum of the first layer may round the other way, once in a million.
        assert (np.abs(logits - expected) > 1e-5).any(1).sum() <= 1


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_signed_values_that_are_pooled_or_flattened_at_once_load_when_optimised(tmp_path: Path, bits: int) -> None:
    number = FixedPoint(bits, 2.0**-3)
    convolve = Convolve(weight(4, 2, 3, 3, number=number), None, None, None, (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    nodes = (
        Node("conv", convolve, ("input",), (4, 4, 4), number),
        Node("pooled", Pool("max", (2, 2), (2, 2), ((0, 0), (0, 0))), ("conv",), (4, 2, 2)),
        Node("cut", Slice(0, 1, 4), ("conv",), (3, 4, 4)),
        Node("short", Pool("max", (2, 2), (2, 2), ((0, 0), (0, 0))), ("cut",), (3, 2, 2)),
        Node("joined", Concatenate(0), ("pooled", "short"), (7, 2, 2)),
        Node("flat", Reshape(), ("joined",), (28,)),
        Node("logits", Multiply(weight(3, 28, number=number), None), ("flat",), (3,), number),
    )
    step = Step(Graph("net", (2, 4, 4), nodes, "logits"), dyadic(5, 2, 4, 4))
    np.testing.assert_array_equal(*both(step, tmp_path, optimised=True))


@pytest.mark.parametrize("scale", [0.1, 2.0**-6])
def test_two_grids_that_meet_both_round_when_optimised(tmp_path: Path, scale: float) -> None:
    fine, other = FixedPoint(8, 2.0**-3), FixedPoint(8, scale)
    nodes = (
        Node("first", Add(), ("input",), (4, 6, 5), fine),
        Node("second", Add(), ("first",), (4, 6, 5), other),
        Node("pooled", Pool("max", (2, 2), (2, 2), ((0, 0), (0, 0))), ("second",), (4, 3, 2)),
        Node("third", Add(), ("pooled",), (4, 3, 2), fine),
        Node("flat", Reshape(), ("third",), (24,)),
        Node("logits", Multiply(weight(3, 24, number=INT8), None), ("flat",), (3,), FixedPoint(8, 1.0)),
    )
    step = Step(Graph("net", (4, 6, 5), nodes, "logits"), MAP)
    np.testing.assert_array_equal(*both(step, tmp_path, optimised=True))


@pytest.mark.parametrize("count", [1, 3, 130])
def test_a_batch_may_have_any_size(tmp_path: Path, count: int) -> None:
    write_onnx(STEPS["a mean"].graph, tmp_path / "net.onnx")
    assert run_onnx(tmp_path / "net.onnx", np.zeros((count, 4, 6, 5), np.float32))[0].shape == (count, 4)


def test_values_inside_a_net_can_be_asked_for(tmp_path: Path) -> None:
    net = baseline()
    graph = graph_of_net(net)
    write_onnx(graph, tmp_path / "net.onnx")
    names = [node.name for node in graph.nodes if node.name != graph.output]
    _, *inner = run_onnx(tmp_path / "net.onnx", net.data.test_images.numpy(), names)
    assert [values.shape[1:] for values in inner] == [node.shape for node in graph.nodes if node.name != graph.output]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_one_line_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    write_onnx(STEPS["a mean"].graph, tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf'^{package} is not installed; .*pip install "ftnas\[export\]"'):
        write_onnx(STEPS["a mean"].graph, tmp_path / "other.onnx")
        run_onnx(tmp_path / "net.onnx", MAP.numpy())


def test_a_truncated_file_is_one_line(tmp_path: Path) -> None:
    write_onnx(STEPS["a mean"].graph, tmp_path / "net.onnx")
    (tmp_path / "net.onnx").write_bytes((tmp_path / "net.onnx").read_bytes()[:-40])
    with pytest.raises(ExportError, match=r"^net\.onnx: onnxruntime cannot run it: [^\n]+$"):
        run_onnx(tmp_path / "net.onnx", MAP.numpy())


def test_a_graph_whose_shapes_contradict_each_other_is_refused_by_the_checker() -> None:
    graph = STEPS["a mean"].graph
    wrong = replace(graph, nodes=(replace(graph.nodes[0], shape=(5,)),))
    with pytest.raises(ExportError, match="checker"):
        onnx_model(wrong)
