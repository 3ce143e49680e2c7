"""Options of a space from fault-aware design: activation, order, affine; built, counted, trained and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_nets import digits
from torch import Tensor

from ftnas.cost import genotype_cost, measure
from ftnas.errors import ExportError
from ftnas.export.onnx_file import run_onnx, write_onnx
from ftnas.export.tracing import graph_of
from ftnas.networks import CellNetwork
from ftnas.quantization import Activation, CleanBatchNorm, QuantizedConv2d
from ftnas.runtime import keyed_generator, seeded
from ftnas.space import SearchSpace, load_space
from ftnas.training import TrainingSettings, train

OPTIONS: list[dict[str, Any]] = [
    {"activation": "relu6"},
    {"activation": "clipped(0.5)", "order": "conv-act-bn"},
    {"order": "conv-act-bn", "affine": False},
    {"affine": False},
]


def space(**options: Any) -> SearchSpace:
    return SearchSpace.model_validate(load_space("tiny").to_dict() | options)


def net(options: dict[str, Any], *, supernet: bool = False) -> CellNetwork:
    chosen = space(**options)
    genotype = None if supernet else chosen.canonical(chosen.sample(keyed_generator("options", 3)))
    with seeded("options"):
        return CellNetwork(chosen, chosen.final, image_shape=(1, 8, 8), classes=10, genotype=genotype)


def images(count: int = 64) -> tuple[Tensor, Tensor]:
    return digits().train_images[:count], digits().train_labels[:count]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_net_has_what_its_space_says(options: dict[str, Any]) -> None:
    model = net(options)
    activations = [module for module in model.modules() if isinstance(module, Activation)]
    assert activations
    assert {str(module.rectifier) for module in activations} == {options.get("activation", "relu")}
    inner = [m for m in model.modules() if isinstance(m, QuantizedConv2d) and m.activation is not None]
    assert bool(inner) == (options.get("order") == "conv-act-bn")
    assert len(activations) == len(inner) or not inner
    affine = {module.affine for module in model.modules() if isinstance(module, CleanBatchNorm)}
    assert (True in affine) == options.get("affine", True)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_change_no_multiplication(options: dict[str, Any]) -> None:
    chosen, model = space(**options), net(options)
    assert model.genotype is not None
    counted = genotype_cost(model.genotype, chosen, chosen.final, image_shape=(1, 8, 8), classes=10)
    assert counted.macs == measure(model, (1, 8, 8)).macs == measure(net({}), (1, 8, 8)).macs


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("supernet", [False, True])
def test_a_net_with_options_trains(options: dict[str, Any], supernet: bool) -> None:
    model = net(options, supernet=supernet)
    if supernet:
        genotype = model.space.sample(keyed_generator("options", 4))
        assert model(images()[0], genotype).isfinite().all()
        return
    settings = TrainingSettings(epochs=3, batch_size=32)
    records = train(model, *images(128), settings=settings, faults=(), key="options")
    assert records[-1].loss < records[0].loss


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_net_with_options_is_exported_equal(options: dict[str, Any], tmp_path: Path) -> None:
    model = net(options)
    model(images()[0])
    model.eval()
    write_onnx(graph_of(model, images()[0][:1], name="net"), tmp_path / "net.onnx")
    with torch.no_grad():
        expected = model(images()[0])
    found = torch.from_numpy(run_onnx(tmp_path / "net.onnx", images()[0].numpy())[0])
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert float((found - expected).abs().max()) < 0.05  # a code or two of rounding, far from a wrong net


def test_an_activation_with_a_threshold_is_refused_by_name() -> None:
    model = net({"activation": "fatrelu(0.1)"})
    model(images()[0])
    with pytest.raises(ExportError, match="activation"):
        graph_of(model.eval(), images()[0][:1], name="net")
