from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_nets import data, found, own, weight
from torch import Tensor

from ftnas.errors import ExportError
from ftnas.export.frozen import FrozenNet
from ftnas.export.graph import Convolve, Graph, Multiply, Node
from ftnas.export.onnx_file import run_onnx, write_onnx
from ftnas.export.proof import (
    Proof,
    Reference,
    Rounding,
    Values,
    check_equal,
    compare,
    compare_roundings,
    differing,
    explained,
)
from ftnas.export.tracing import graph_of
from ftnas.faults import inject, parse_faults
from ftnas.quantization import FixedPoint

EXPECTED = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.25]])


def test_a_comparison_counts_answers_and_images_that_are_apart() -> None:
    moved = EXPECTED + torch.tensor([[0.0, 9e-6], [0.0, 2e-5], [0.0, 0.5]])
    proof = compare("onnx", "runtime", ["net.onnx"], found=moved, expected=EXPECTED)
    assert (proof.images, proof.same, proof.beyond, proof.largest) == (3, 2, 2, 0.5)
    assert differing(moved, EXPECTED).tolist() == [1, 2]
    assert Proof.from_dict(proof.to_dict()) == proof


@pytest.mark.parametrize(
    ("logits", "words"), [(EXPECTED[:2], r"returns \[2, 2\] logits"), (EXPECTED * torch.nan, "not finite")]
)
def test_logits_of_another_shape_or_none_are_refused(logits: Tensor, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        compare("onnx", "runtime", [], found=logits, expected=EXPECTED)


def test_a_logit_that_differs_without_a_reason_is_refused() -> None:
    proof = compare("pt2", "torch", [], found=EXPECTED + torch.tensor([0.0, 2e-5]), expected=EXPECTED)
    with pytest.raises(ExportError, match=r"^pt2: 3 of 3 images have other logits than the net, by up to 2e-05"):
        check_equal(proof)


def test_a_difference_is_explained_only_near_a_rounding_step() -> None:
    proof = compare("onnx", "runtime", [], found=EXPECTED + torch.tensor([0.0, 2e-5]), expected=EXPECTED)
    told = explained(proof, Rounding(codes=1000, apart=7, miss=2e-6, worst="stem"))
    assert "3 images with other logits, where 7 of 1,000 codes differ" in told.remarks[0]
    with pytest.raises(ExportError, match=r"stem is 0\.01 of a step farther .* allowed is 0\.001"):
        explained(proof, Rounding(codes=1000, apart=7, miss=1e-2, worst="stem"))


@pytest.mark.parametrize("faults", [(), ("weights.bit_flip:3e-2",)])
def test_a_reference_repeats_the_net_its_chip_and_its_layers(faults: tuple[str, ...]) -> None:
    model, images = found().model, data().test_images
    reference = Reference(model, faults=parse_faults(faults), chip=5, study="s")
    with inject(model, faults, chip=5, study="s"), torch.no_grad():
        expected = torch.cat([model(batch) for batch in images.split(64)])
    assert torch.equal(reference.logits(images), expected)
    graph = graph_of(model, images[:1], name="net", faults=faults, chip=5, study="s")
    values = reference.values(graph, images)
    assert values.keys() == {node.name for node in graph.nodes if node.number is not None}
    assert torch.equal(values[graph.output], expected)
    assert all(values[node.name].shape[1:] == node.shape for node in graph.nodes if node.number is not None)
    assert not [module for module in model.modules() if module._forward_hooks]


def frozen_values(graph: Graph, images: Tensor) -> Values:
    with torch.no_grad():
        return FrozenNet(graph).values(images)


def roundings(graph: Graph, *, other: Values) -> Rounding:
    images = data().test_images
    return compare_roundings(graph, images, one=Reference(own().model).values(graph, images), other=other)


def test_every_code_of_a_right_file_is_the_nearest(tmp_path: Path) -> None:
    graph = graph_of(own().model, data().test_images[:1], name="net")
    names = [node.name for node in graph.nodes if node.number is not None]
    write_onnx(graph, tmp_path / "net.onnx")
    _, *values = run_onnx(tmp_path / "net.onnx", data().test_images.numpy(), names[:-1])
    found = dict(zip(names, map(torch.from_numpy, values), strict=False))
    assert roundings(graph, other=found).miss < 1e-4


@pytest.mark.parametrize("place", [0, -1])
def test_one_wrong_weight_is_not_explained_by_rounding(place: int) -> None:
    graph = graph_of(own().model, data().test_images[:1], name="net")
    layers = [node for node in graph.nodes if isinstance(node.operation, Convolve | Multiply)]
    operation = layers[place].operation
    assert isinstance(operation, Convolve | Multiply)
    codes = operation.weight.codes.copy()
    codes.flat[np.abs(codes).argmax()] //= 2
    broken = replace(layers[place], operation=replace(operation, weight=replace(operation.weight, codes=codes)))
    nodes = tuple(broken if node is layers[place] else node for node in graph.nodes)
    found = frozen_values(replace(graph, nodes=nodes), data().test_images)
    assert roundings(graph, other=found).miss > 1e-2


def test_what_a_value_misses_is_told_in_steps_of_its_range() -> None:
    number = FixedPoint(10, 1.0)
    operation = Multiply(weight(1, 1, number=number), None)
    operation.weight.codes[:] = 1
    graph = Graph("net", (1,), (Node("logits", operation, ("input",), (1,), number),), "logits")
    images = torch.tensor([[3.25], [7.5]])
    right, wrong = torch.tensor([[3.0], [8.0]]), torch.tensor([[4.0], [8.0]])
    told = compare_roundings(graph, images, one={"logits": right}, other={"logits": wrong})
    assert (told.codes, told.apart, told.worst) == (2, 1, "logits")
    assert told.miss == pytest.approx(0.25 / 4)
