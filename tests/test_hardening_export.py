"""The correction unit survives export: in the graph, in ONNX, as a torch.export program, and in C."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from export_nets import baseline, quantized_resnet
from hardened_nets import hardened, logits
from small_nets import digits, trained
from torch import Tensor, nn

from ftnas.errors import ExportError
from ftnas.export.c_program import compile_program, export_c, run_program, write_c
from ftnas.export.c_source import table_bytes
from ftnas.export.exporting import FORMATS, Subject
from ftnas.export.frozen import FrozenNet
from ftnas.export.graph import INPUT, Add, Correct, Gather, Graph, Halve, Node
from ftnas.export.integer import image_codes, run
from ftnas.export.lowering import integer_net
from ftnas.export.onnx_file import run_onnx, write_onnx
from ftnas.export.proof import Reference, compare_roundings
from ftnas.export.tracing import graph_of, run_float
from ftnas.faults import inject
from ftnas.hardening.passes import calibrate_
from ftnas.networks.correction import COPIES, CORRECTIONS, LIMITS, Method, Rule
from ftnas.networks.hardened import hardened_layers, protect_
from ftnas.networks.protection import METHODS, Protection
from ftnas.quantization import FixedPoint

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")
GRIDS = {"signed": FixedPoint(5, 0.25), "unsigned": FixedPoint(5, 0.25, False)}
CHANNELS = (0, 2)
# Every code and some beyond, four channels of them.
WIDE = (torch.arange(-40, 40, dtype=torch.float32).view(2, 4, 10, 1).expand(2, 4, 10, 3) / 4).contiguous()


def limits_of(method: Method) -> tuple[tuple[int, ...], ...]:
    """Return limits for each of the two channels."""
    return ((-3, 2), (5, 9)) if method == "guard" else ((2, 5),)[: LIMITS.get(method, 0)]


def correction_graph(method: Method, rule: Rule, number: FixedPoint) -> Graph:
    """Return a net that rounds its input, halves or gathers some channels, and corrects what it got."""
    limits = limits_of(method)
    nodes = [Node("whole", Add(), (INPUT,), (4, 10, 3), number, "whole")]
    if method.startswith("split"):
        nodes.append(Node("first", Halve(CHANNELS, True), ("whole",), (4, 10, 3), number, "first"))
    for copy_number in range(COPIES[method]):
        nodes.append(Node(f"copy_{copy_number}", Gather((3, copy_number)), ("whole",), (2, 10, 3), None, "copy"))
    names = (nodes[1].name if method.startswith("split") else "whole", *(f"copy_{n}" for n in range(COPIES[method])))
    nodes.append(Node("step", Correct(method, rule, CHANNELS, limits), names, (4, 10, 3), number, "step"))
    return Graph("step", (4, 10, 3), tuple(nodes), "step")


def expected(method: Method, rule: Rule, number: FixedPoint) -> Tensor:
    """Return the same from the definitions."""
    whole = number.encode(WIDE)
    first = whole[:, list(CHANNELS)]
    if method.startswith("split"):
        first = (first.clamp(max=number.high - 1) + 1).div(2, rounding_mode="floor")
    copies = [whole[:, [3, copy_number]] for copy_number in range(COPIES[method])]
    shaped = [torch.tensor(limit, dtype=torch.int32).view(-1, 1, 1) for limit in limits_of(method)]
    whole[:, list(CHANNELS)] = CORRECTIONS[method, rule]([first, *copies], number, shaped)
    return number.decode(whole)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method, rule", CORRECTIONS)
def test_a_correction_is_the_same_in_float_in_onnx_and_in_integers(
    method: Method, rule: Rule, grid: str, tmp_path: Path
) -> None:
    graph, right = correction_graph(method, rule, GRIDS[grid]), expected(method, rule, GRIDS[grid])
    assert torch.equal(run_float(graph, WIDE), right)
    assert torch.equal(FrozenNet(graph).double()(WIDE.double()), right.double())
    write_onnx(graph, tmp_path / "step.onnx")
    for optimised in (False, True):
        (found,) = run_onnx(tmp_path / "step.onnx", WIDE.numpy(), optimised=optimised)
        assert np.array_equal(found, right.numpy())
    net = integer_net(graph, WIDE.numpy())
    assert np.array_equal(run(net, WIDE.numpy()) * net.scale, right.numpy())


@needs_compiler
@pytest.mark.parametrize("grid", GRIDS)
def test_all_corrections_in_c_are_those_of_the_reference(grid: str, tmp_path: Path) -> None:
    """One program with every rule: each rounds the input, and the next reads it, too."""
    nodes: list[Node] = []
    for index, (method, rule) in enumerate(CORRECTIONS):
        part = correction_graph(method, rule, GRIDS[grid])
        for node in part.nodes:
            inputs = tuple(name if name == INPUT else f"{name}_{index}" for name in node.inputs)
            nodes.append(replace(node, name=f"{node.name}_{index}", inputs=inputs))
    results = tuple(node.name for node in nodes if node.name.startswith("step"))
    total = Node("total", Add(), results, (4, 10, 3), FixedPoint(12, 0.25))
    graph = Graph("rules", (4, 10, 3), (*nodes, total), "total")
    net = integer_net(graph, WIDE.numpy())
    write_c(net, tmp_path)
    program = compile_program(net, tmp_path, tmp_path)
    found = run_program(program, image_codes(net, WIDE.numpy()), classes=120)
    assert np.array_equal(found, run(net, WIDE.numpy()).reshape(2, -1))
    assert np.array_equal(found.reshape(2, 4, 10, 3) * net.scale, run_float(graph, WIDE).numpy())
    assert table_bytes(net) > 8 * len(CORRECTIONS)


def mixed() -> nn.Module:
    """Return a trained net, each layer of it protected in another way."""
    net, images = copy.deepcopy(trained()[0]), digits().train_images[:128]
    hardened_net = protect_(
        net,
        {
            "first": Protection("split", "min", (0, 1, 5, 9)),
            "second": Protection("split_weights", "min", tuple(range(0, 32, 3))),
            "classifier": Protection("tmr", "majority", tuple(range(10))),
        },
    )
    return calibrate_(hardened_net, images)


def subject_of(net: nn.Module, images: Tensor) -> Subject:
    graph = graph_of(net, images[:1], name="net")
    return Subject(
        graph=graph, model=net, spec=None, is_twin=False, reference=Reference(net), images=images,
        expected=logits(net, images), calibration=digits().train_images[:128],
    )  # fmt: skip


@pytest.mark.parametrize("format", ["onnx", "pt2", "c"])
def test_a_net_with_several_protections_is_exported_and_proven(format: str, tmp_path: Path) -> None:
    subject = subject_of(mixed(), digits().test_images[:100])
    proof = FORMATS[format](subject, tmp_path)
    assert proof.same == proof.images == 100
    operations = {type(node.operation) for node in subject.graph.nodes}
    assert {Halve, Correct} <= operations


@pytest.mark.parametrize(
    "name, method",
    [("mobilenet_v2", "split"), *(("of a user", method) for method in METHODS if method != "bound")],
)
def test_a_hardened_net_is_its_graph(name: str, method: Method) -> None:
    net, images = quantized_resnet() if name == "of a user" else baseline(name)
    protected = hardened(net, images, method, every=2)
    graph = graph_of(protected, images[:1], name="net")
    assert sum(isinstance(node.operation, Correct) for node in graph.nodes) >= len(hardened_layers(protected))
    same = (run_float(graph, images) - logits(protected, images)).abs().amax(1) < 1e-4
    assert same.float().mean() > 0.9


def test_a_grouped_convolution_gathers_the_channels_that_its_copies_read() -> None:
    net, images = baseline("mobilenet_v2")
    depthwise = "layers.1.depthwise"
    grouped = protect_(copy.deepcopy(net), {depthwise: Protection("tmr", "majority", (0, 2))})
    nodes = graph_of(grouped, images[:1], name="net").nodes
    gathered = [node.operation for node in nodes if isinstance(node.operation, Gather)]
    assert gathered == [Gather((0, 2))] * 2
    assert torch.equal(logits(grouped, images), logits(net, images))


def test_a_faulty_chip_of_a_hardened_net_is_exported_with_the_faults_of_each_copy() -> None:
    net, images = trained()[0], digits().test_images[:40]
    protected = hardened(net, images, "tmr", "median")
    fault = "weights.bit_flip:0.01"
    graph = graph_of(protected, images[:1], name="net", faults=fault, chip=2)
    with torch.no_grad(), inject(protected, fault, chip=2, study="campaign"):
        assert torch.equal(run_float(graph, images), protected(images))


def test_rounding_of_halves_is_explained_where_sums_differ() -> None:
    """A half that rounds the other way because of a float sum is not taken for a mistake of the file."""
    net, images = quantized_resnet()
    split = hardened(net, images, "split")
    graph = graph_of(split, images[:1], name="net")
    one = Reference(split).values(graph, images)
    found = compare_roundings(graph, images, one=one, other=FrozenNet(graph).values(images))
    assert found.codes > 1000 and found.miss < 1e-3
    shifted = {name: values.clone() for name, values in one.items()}
    name = next(node.name for node in graph.nodes if isinstance(node.operation, Halve))
    number = next(node.number for node in graph.nodes if node.name == name)
    assert number is not None
    shifted[name] += float(number.scale_of(images)) * 2
    assert compare_roundings(graph, images, one=one, other=shifted).miss > 0.5


@needs_compiler
def test_a_split_net_in_c_gives_every_answer(tmp_path: Path) -> None:
    images = digits().test_images[:60]
    net = hardened(trained()[0], digits().train_images[:64], "split", every=3)
    graph = graph_of(net, images[:1], name="net")
    found = export_c(graph, tmp_path, calibration=images.numpy(), images=images.numpy(),
                     logits=logits(net, images).numpy())  # fmt: skip
    assert found.equal_logits == found.equal_predictions == 60


def test_a_unit_that_was_never_calibrated_is_not_exported() -> None:
    net = protect_(copy.deepcopy(trained()[0]), {"first": Protection("guard", "zero", (0,))})
    with pytest.raises(ExportError, match="never calibrated"):
        graph_of(net, digits().test_images[:1], name="net")
