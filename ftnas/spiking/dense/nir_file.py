"""Spiking nets as NIR, the neuromorphic intermediate representation (Pedersen et al., Nature Communications 2024).

A layer is an affine map or a convolution with the weights that hardware computes with, and a leaky integrate-and-fire
node. With steps of dt = 1, Euler's method makes of tau dv/dt = (v_leak - v) + R I the update v = b v + I where
tau = 1 / (1 - b) and R = tau; without a leak the node is an integrate-and-fire one with R = 1. NIR knows no membranes
of few bits, no resets by subtraction and no number of steps: these are in the graph's metadata, which ``read_nir``
needs.
"""

from __future__ import annotations

import importlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftnas.configuration import validate
from ftnas.errors import ExportError, ModelError
from ftnas.files import replacing
from ftnas.quantization import FixedPoint
from ftnas.spiking.dense.hdf5_check import check_file
from ftnas.spiking.dense.network import SpikingNet
from ftnas.spiking.dense.specification import SpikingSpec
from ftnas.spiking.dense.stored import StoredLayer, assembled, stored_layers
from ftnas.untrusted import understood

KEY = "ftnas"


def write_nir(net: SpikingNet, path: Path) -> None:
    """Write ``net`` to ``path`` as NIR (HDF5).

    Raises:
        ExportError: the package ``nir`` is not installed.
    """
    nir = _package()
    nodes: dict[str, Any] = {"input": nir.Input(np.array(net.image_shape))}
    facts: list[dict[str, Any]] = []
    shape: tuple[int, ...] = net.image_shape
    for place, (stage, layer) in enumerate(zip(net.stages, stored_layers(net), strict=True)):
        if layer.codes.dim() == 2 and len(shape) > 1:
            nodes[f"flatten{place}"] = nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)
        nodes[f"synapses{place}"] = _synapses(nir, layer, shape)
        shape = stage.neurons.shape
        nodes[f"neurons{place}"] = _neurons(nir, net.spec, layer, shape)
        scale = layer.number.scale
        facts.append({"scale": list(scale) if isinstance(scale, tuple) else scale, "threshold": layer.threshold})
    nodes["output"] = nir.Output(np.array(shape))
    about = {"specification": net.spec.model_dump(mode="json"), "classes": net.classes, "layers": facts}
    metadata = {KEY: json.dumps({**about, "image_shape": list(net.image_shape)})}
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(itertools.pairwise(names)), metadata=metadata)
    with replacing(path) as part:
        nir.write(part, graph)


def read_nir(path: Path) -> SpikingNet:
    """Return the net that ``write_nir`` wrote to ``path``; it computes the same.

    Raises:
        ModelError: the file is missing, damaged, or of another program.
        ExportError: the package ``nir`` is not installed.
    """
    nir = _package()
    try:
        check_file(path)
        graph = nir.read(path)
    except Exception as error:
        raise ModelError(f"{path}: is no readable NIR file ({type(error).__name__}: {_line(error)})") from None
    if KEY not in getattr(graph, "metadata", {}):
        raise ModelError(f"{path}: is a NIR file of another program; ftnas needs what NIR does not say (steps, bits)")
    with understood(path, ModelError):
        about = json.loads(graph.metadata[KEY])
        spec = validate(SpikingSpec, about["specification"], source=str(path))
        layers = [_stored(graph.nodes[f"synapses{i}"], fact, spec) for i, fact in enumerate(about["layers"])]
        channels, height, width = about["image_shape"]
        return assembled(spec, (channels, height, width), about["classes"], layers)


def _synapses(nir: Any, layer: StoredLayer, shape: tuple[int, ...]) -> Any:
    weight, bias = layer.number.decode(layer.codes).numpy(), layer.bias.numpy()
    if layer.codes.dim() == 2:
        return nir.Affine(weight, bias)
    return nir.Conv2d(shape[1:], weight, stride=2, padding=1, dilation=1, groups=1, bias=bias)


def _neurons(nir: Any, spec: SpikingSpec, layer: StoredLayer, shape: tuple[int, ...]) -> Any:
    def full(value: float) -> Any:
        return np.full(shape, value, np.float32)

    threshold = full(layer.threshold * spec.membrane_step)
    if spec.leak == 1:
        return nir.IF(r=full(1), v_threshold=threshold)
    tau = 1 / (1 - spec.leak)
    return nir.LIF(tau=full(tau), r=full(tau), v_leak=full(0), v_threshold=threshold)


def _stored(node: Any, fact: dict[str, Any], spec: SpikingSpec) -> StoredLayer:
    scale = fact["scale"]
    number = FixedPoint(spec.weight_bits, tuple(scale) if isinstance(scale, list) else float(scale))
    codes = number.encode(torch.from_numpy(np.array(node.weight, np.float32)))
    return StoredLayer(codes, number, torch.from_numpy(np.array(node.bias, np.float32)), int(fact["threshold"]))


def _package() -> Any:
    try:
        return importlib.import_module("nir")
    except ImportError:
        raise ExportError("nir: the package is not installed; pip install 'ftnas[nir]'") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
