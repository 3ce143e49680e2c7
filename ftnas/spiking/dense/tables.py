"""Layered nets as fixed-point tables: CSV that is read back to the same net, and C arrays."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ftnas.errors import ModelError
from ftnas.files import csv_text
from ftnas.quantization import FixedPoint
from ftnas.spiking.dense.network import SpikingNet
from ftnas.spiking.dense.specification import SpikingSpec
from ftnas.spiking.dense.stored import StoredLayer, assembled, stored_layers

NEURONS = ("layer", "neuron", "threshold", "bias", "weight_scale")
SYNAPSES = ("layer", "target", "source", "row", "column", "weight", "code")
_Rows = Sequence[dict[str, str]]


def neuron_table(net: SpikingNet) -> str:
    """Return a line of CSV for each neuron, or channel of a convolution.

    ``threshold`` is a code of the membrane; ``bias`` is added to the current in each step; the weights that come in are
    codes times ``weight_scale``.
    """
    return csv_text(NEURONS, (row for place, layer in enumerate(stored_layers(net)) for row in _neurons(place, layer)))


def synapse_table(net: SpikingNet) -> str:
    """Return a line of CSV for each weight; ``code`` is it as stored, two's complement in hexadecimal.

    ``row`` and ``column`` are those of a convolution's kernel.
    """
    return csv_text(
        SYNAPSES, (row for place, layer in enumerate(stored_layers(net)) for row in _synapses(place, layer))
    )


def c_tables(net: SpikingNet, name: str) -> str:
    """Return a C header with the integers of ``net`` as constant arrays, all beginning with ``name``."""
    spec, layers = net.spec, stored_layers(net)
    constants: dict[str, object] = {
        "LAYERS": len(layers),
        "STEPS": spec.steps,
        "WEIGHT_BITS": spec.weight_bits,
        "MEMBRANE_BITS": spec.membrane_bits,
        "MEMBRANE_STEP": f"{spec.membrane_step!r}f",
        "LEAK": f"{spec.leak!r}f",
        "RESET_TO_ZERO": int(spec.reset == "zero"),
        "REFRACTORY": spec.refractory,
        "INITIAL": f"{spec.initial!r}f",
    }
    lines = ["/* Layered spiking net, written by ftnas. */", "#pragma once", "#include <stdint.h>", ""]
    lines += [f"#define {name.upper()}_{key} ({value})" for key, value in constants.items()]
    kind = "int8_t" if spec.weight_bits <= 8 else "int16_t"
    for place, layer in enumerate(layers):
        shape = "".join(f"[{size}]" for size in layer.codes.shape)
        scales = _per_neuron(layer)
        lines += [
            "",
            f"/* layer {place}: weights {shape} in row-major order */",
            f"#define {name.upper()}_THRESHOLD_{place} ({layer.threshold})",
            _array(kind, f"{name}_weight_{place}", layer.codes.flatten().tolist()),
            _array("float", f"{name}_weight_scale_{place}", [f"{scale!r}f" for scale in scales]),
            _array("float", f"{name}_bias_{place}", [f"{value!r}f" for value in layer.bias.tolist()]),
        ]
    return "\n".join(lines) + "\n"


def read_tables(
    neurons: Path, synapses: Path, *, spec: SpikingSpec, image_shape: tuple[int, int, int], classes: int
) -> SpikingNet:
    """Return the net of two tables, which computes what the written one did.

    Raises:
        ModelError: they are no such tables, or not of such a net.
    """
    blank = SpikingNet(spec, image_shape, classes)
    try:
        of_neurons, of_synapses = _rows(neurons, NEURONS), _rows(synapses, SYNAPSES)
        layers = [
            _layer(place, stage.synapses.weight.shape, of_neurons, of_synapses, spec)
            for place, stage in enumerate(blank.stages)
        ]
        return assembled(spec, image_shape, classes, layers)
    except (KeyError, ValueError, IndexError, RuntimeError, OSError) as error:
        raise ModelError(f"{neurons}, {synapses}: are no tables of such a net ({error})") from None


def _neurons(place: int, layer: StoredLayer) -> Iterator[Sequence[object]]:
    for neuron, (bias, scale) in enumerate(zip(layer.bias.tolist(), _per_neuron(layer), strict=True)):
        yield place, neuron, layer.threshold, repr(bias), repr(scale)


def _synapses(place: int, layer: StoredLayer) -> Iterator[Sequence[object]]:
    codes = layer.codes.view(*layer.codes.shape[:2], -1)
    width = layer.codes.shape[3] if layer.codes.dim() == 4 else 1
    digits = (layer.number.bits + 3) // 4
    for target, sources in enumerate(codes.tolist()):
        for source, kernel in enumerate(sources):
            for at, code in enumerate(kernel):
                word = f"0x{code & (2**layer.number.bits - 1):0{digits}x}"
                yield place, target, source, at // width, at % width, code, word


def _per_neuron(layer: StoredLayer) -> list[float]:
    scale = layer.number.scale
    return list(scale) if isinstance(scale, tuple) else [float(scale)] * len(layer.codes)


def _layer(place: int, shape: torch.Size, neurons: _Rows, synapses: _Rows, spec: SpikingSpec) -> StoredLayer:
    own = [row for row in neurons if int(row["layer"]) == place]
    scales = [float(row["weight_scale"]) for row in own]
    number = FixedPoint(spec.weight_bits, scales[0] if len({*scales}) == 1 else tuple(scales))
    codes = torch.tensor([int(row["weight"]) for row in synapses if int(row["layer"]) == place], dtype=torch.int32)
    bias = torch.tensor([float(row["bias"]) for row in own], dtype=torch.float32)
    return StoredLayer(codes.view(shape), number, bias, int(own[0]["threshold"]))


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != tuple(columns):
            raise ValueError(f"{path.name}: needs the columns {', '.join(columns)}")
        return list(reader)


def _array(kind: str, name: str, values: Sequence[object]) -> str:
    return f"static const {kind} {name}[] = {{{', '.join(map(str, values))}}};"
