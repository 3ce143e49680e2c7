"""Spiking nets as JSON: the specification, and each layer's integers as tables for fixed-point hardware."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ftnas.configuration import validate
from ftnas.errors import ConfigError, ModelError, RunError
from ftnas.files import read_json, write_json
from ftnas.quantization import FixedPoint
from ftnas.spiking.dense.network import SpikingNet
from ftnas.spiking.dense.specification import SpikingSpec
from ftnas.spiking.dense.stored import StoredLayer, assembled, stored_layers

SCHEMA = 1
FORMAT = "ftnas spiking layers"


def write_network_json(net: SpikingNet, path: Path, *, facts: Mapping[str, str] | None = None) -> None:
    """Write ``net`` to ``path``, with ``facts`` about it, such as the data set that it was trained on."""
    write_json(path, {**network_dict(net), "facts": dict(facts or {})})


def facts_of(path: Path) -> dict[str, str]:
    """Return what the file at ``path`` says about its net."""
    content = read_json(path)
    facts = content.get("facts", {}) if isinstance(content, dict) else {}
    return {str(key): str(value) for key, value in facts.items()} if isinstance(facts, dict) else {}


def network_dict(net: SpikingNet) -> dict[str, Any]:
    """Return ``net`` as plain data: weight times scale, threshold times membrane step is what it computes with."""
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "specification": net.spec.model_dump(mode="json"),
        "image_shape": list(net.image_shape),
        "classes": net.classes,
        "membrane_step": net.spec.membrane_step,
        "layers": [_layer_dict(layer) for layer in stored_layers(net)],
    }


def read_network_json(path: Path) -> SpikingNet:
    """Return the net in ``path``, which computes what the written one did.

    Raises:
        ModelError: the file is missing, damaged or of something else; one line that says what.
    """
    try:
        content = read_json(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("schema") != SCHEMA:
            raise ModelError(f"{path}: is no {FORMAT!r} of schema {SCHEMA}")
        spec = validate(SpikingSpec, content["specification"], source=f"{path}: specification")
        channels, height, width = content["image_shape"]
        layers = [_layer(row, spec) for row in content["layers"]]
        return assembled(spec, (channels, height, width), content["classes"], layers)
    except (RunError, ConfigError) as error:
        raise ModelError(str(error)) from None
    except KeyError as error:
        raise ModelError(f"{path}: lacks the key {error}") from None
    except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: {error}") from None


def _layer_dict(layer: StoredLayer) -> dict[str, Any]:
    scale = layer.number.scale
    return {
        "weights": layer.codes.tolist(),
        "weight_scale": list(scale) if isinstance(scale, tuple) else scale,
        "bias": layer.bias.tolist(),
        "threshold": layer.threshold,
    }


def _layer(row: dict[str, Any], spec: SpikingSpec) -> StoredLayer:
    scale = row["weight_scale"]
    number = FixedPoint(spec.weight_bits, tuple(scale) if isinstance(scale, list) else float(scale))
    codes = torch.tensor(row["weights"], dtype=torch.int32)
    return StoredLayer(codes, number, torch.tensor(row["bias"], dtype=torch.float32), int(row["threshold"]))
