from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ftnas.errors import ModelError
from ftnas.spiking.dense.json_file import facts_of, read_network_json, write_network_json
from ftnas.spiking.dense.nir_file import read_nir, write_nir
from tests.spiking_nets import images, small_net

NETS: list[dict[str, Any]] = [
    {},
    {"weight_range": "max_per_channel", "weight_bits": 4, "leak": 1.0, "reset": "zero"},
    {"weight_range": "max", "membrane_bits": 5, "refractory": 1},
    {"channels": (3, 2), "widths": (), "bounding": "zero"},
]


@pytest.mark.parametrize("keys", NETS)
def test_a_net_reads_back_from_json_with_equal_outputs(keys: dict[str, Any], tmp_path: Path) -> None:
    net = small_net(**keys)
    write_network_json(net, tmp_path / "net.json", facts={"data": "digits"})
    again = read_network_json(tmp_path / "net.json")
    assert torch.equal(again(images()), net(images())) and again.spec == net.spec
    assert facts_of(tmp_path / "net.json") == {"data": "digits"}


@pytest.mark.parametrize("keys", NETS)
def test_a_net_reads_back_from_nir_with_equal_outputs(keys: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("nir", reason="pip install 'ftnas[nir]'")
    net = small_net(**keys)
    write_nir(net, tmp_path / "net.nir")
    again = read_nir(tmp_path / "net.nir")
    assert torch.equal(again(images()), net(images())) and again.spec == net.spec


def test_a_net_that_was_read_is_written_as_the_same_file(tmp_path: Path) -> None:
    write_network_json(small_net(), tmp_path / "one.json")
    write_network_json(read_network_json(tmp_path / "one.json"), tmp_path / "two.json")
    assert (tmp_path / "one.json").read_text() == (tmp_path / "two.json").read_text()


def euler(graph: Any, x: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Return the spikes ``[T, N, K]`` of a NIR graph in a row by Euler's method with dt = 1: what NIR itself says."""
    order, after = ["input"], dict(graph.edges)
    while order[-1] != "output":
        order.append(after[order[-1]])
    membranes: dict[str, NDArray[np.float64]] = {}
    found = []
    for _ in range(steps):
        value = x
        for name in order[1:-1]:
            node = graph.nodes[name]
            kind = type(node).__name__
            if kind == "Flatten":
                value = value.reshape(len(value), -1)
            elif kind == "Affine":
                value = value @ node.weight.T + node.bias
            else:
                v = membranes.get(name, np.zeros_like(value))
                v = v + node.r * value if kind == "IF" else v + (node.v_leak - v + node.r * value) / node.tau
                value = (v > node.v_threshold).astype(np.float64)
                membranes[name] = np.where(value > 0, node.v_reset, v)
        found.append(value)
    return np.stack(found)


@pytest.mark.parametrize("leak", [0.5, 0.75, 1.0])
def test_what_a_nir_file_says_by_itself_is_the_net(leak: float, tmp_path: Path) -> None:
    nir = pytest.importorskip("nir", reason="pip install 'ftnas[nir]'")
    # Numbers of few bits and a wide membrane, so that nothing is left to rounding, which NIR does not know.
    net = small_net(
        widths=(6, 5), reset="zero", leak=leak, weight_bits=4, weight_range="fixed(1)", membrane_bits=16,
        membrane_limit=32.0,
    )  # fmt: skip
    with torch.no_grad():
        for stage in net.stages:
            stage.synapses.weight.mul_(3)
            stage.synapses.bias.mul_(8).round_().div_(8)
    x = images().mul(4).round().div(4)
    write_nir(net, tmp_path / "net.nir")
    found = euler(nir.read(tmp_path / "net.nir"), x.double().numpy(), net.spec.steps)
    expected = net.run(x).spikes[-1].transpose(0, 1)
    assert expected.any() and np.array_equal(found, expected.detach().numpy())


def changed(content: Any, path: list[Any], value: Any) -> Any:
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["format"], "other", "is no 'ftnas spiking layers' of schema 1"),
        (["schema"], 9, "schema 1"),
        (["specification", "steps"], 0, "specification: steps: Input should be greater than or equal to 1"),
        (["specification", "colour"], "red", "specification: colour: unknown key"),
        (["layers"], None, "lacks the key 'layers'"),
        (["layers", 0], None, "2 layers are needed, got 1"),
        (["layers", 0, "weights"], [[1]], "layer 0: weights 7x36 are needed, got 1x1"),
        (["layers", 1, "weights", 0, 0], 200, "layer 1: codes of 8 bits are needed"),
        (["layers", 0, "weight_scale"], -1, "scale must be positive"),
        (["layers", 0, "threshold"], "high", "invalid literal"),
        (["layers", 0, "threshold"], 0, "layer 0: threshold must be 1 to 127, got 0"),
        (["image_shape"], [6, 6], "not enough values"),
    ],
)
def test_a_damaged_network_is_refused_in_one_line(path: list[Any], value: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / "net.json"
    write_network_json(small_net(), file)
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    with pytest.raises(ModelError, match=words) as caught:
        read_network_json(file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_a_file_that_is_no_network_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "net.nir").write_bytes(b"not HDF5")
    with pytest.raises(ModelError, match="cannot be read"):
        read_network_json(tmp_path / "none.json")
    pytest.importorskip("nir", reason="pip install 'ftnas[nir]'")
    with pytest.raises(ModelError, match="no readable NIR file") as caught:
        read_nir(tmp_path / "net.nir")
    assert "\n" not in str(caught.value)


def test_a_nir_file_of_another_program_is_refused(tmp_path: Path) -> None:
    nir = pytest.importorskip("nir", reason="pip install 'ftnas[nir]'")
    ends = {"input": nir.Input(np.array([3])), "output": nir.Output(np.array([3]))}
    nir.write(tmp_path / "net.nir", nir.NIRGraph(ends, [("input", "output")]))
    with pytest.raises(ModelError, match="of another program"):
        read_nir(tmp_path / "net.nir")
