"""A net as safetensors and JSON: the weights, and what ftnas needs to build the net anew around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftnas import __version__
from ftnas.configuration import validate
from ftnas.errors import FtnasError, ModelError
from ftnas.export.graph import Convolve, Graph, Multiply
from ftnas.files import read_json, read_tensors, write_json, write_tensors
from ftnas.networks import CellNetwork, build_baseline
from ftnas.networks.bounded import LARGEST, bounded
from ftnas.networks.hardened import protect_, protections_of
from ftnas.networks.protection import Protection
from ftnas.quantization import FixedPoint, Quantization, quantized_layers
from ftnas.runtime import place
from ftnas.space import Genotype, SearchSpace, Sizes
from ftnas.untrusted import understood

SCHEMA = 1
SUFFIX = ".safetensors"

Spec = Mapping[str, Any]


def save_weights(
    path: Path,
    model: nn.Module,
    spec: Spec | None,
    *,
    facts: Mapping[str, str] | None = None,
    twin: Graph | None = None,
) -> list[Path]:
    """Write ``model`` to ``path`` (``.safetensors``) and, beside it, the JSON that rebuilds it; return both.

    Args:
        path: the file of the weights.
        model: with quantised layers.
        spec: ``image_shape`` and ``classes``, with ``genotype``, ``space`` and ``sizes`` or with ``baseline``,
            ``width`` and ``numbers``, or of a net of the user's own with ``own`` and ``source``, a file beside it;
            ``None`` for one that has to be given again to be loaded.
        facts: what else the JSON should say.
        twin: the graph of the net on a faulty chip, whose weights are to be written, with the formats that they have
            on a fault-free one.
    """
    net = {"own": type(model).__name__} if spec is None else dict(spec)
    content: dict[str, Any] = {"schema": SCHEMA, "ftnas": __version__, "net": net, "facts": dict(facts or {})}
    if plan := protections_of(model):
        content["hardening"] = {at: protection.to_dict() for at, protection in plan.items()}
    state = model.state_dict()
    if twin is not None:
        frozen = {node.path: node.operation.weight for node in twin.nodes if isinstance(node.operation, _WEIGHTED)}
        state |= {_weight_of(at): weight.number.decode(torch.from_numpy(weight.codes)) for at, weight in frozen.items()}
        content["weight_numbers"] = {at: _to_dict(weight.number) for at, weight in frozen.items()}
    write_tensors(path, state, content)
    write_json(path.with_suffix(".json"), content)
    return [path, path.with_suffix(".json")]


def load_weights(path: Path, *, model: nn.Module | None = None) -> nn.Module:
    """Return the net that ``save_weights`` wrote, in evaluation mode; one that ftnas builds is on the CPU.

    Args:
        path: the ``.safetensors`` file, its ``.json``, or a folder with one such pair.
        model: for a net of the user's own: the same net, quantised with any images, into which all is loaded.

    Raises:
        ModelError: the files are missing, damaged, of a newer ftnas, or of a net that has to be given and is not.
    """
    file = find_weights(path)
    content = read_description(file)
    net, tensors = content["net"], _tensors(file)
    if "own" in net and model is None:
        raise ModelError(
            f"{file}: is of {net['own']}, a net of your own, which ftnas cannot build; give it: "
            "ftnas.load(path, model=faults.quantize(your_net, images))"
        )
    # In the memory layout that a run's nets have, since that decides in which order torch adds.
    most = sum(tensor.numel() for tensor in tensors.values())
    own = model or place(build_net(net, source=str(file.with_suffix(".json")), most=most), torch.device("cpu"))
    _harden(own, content.get("hardening", {}), file)
    _fill(own, tensors, file)
    numbers = content.get("weight_numbers", {})
    if not isinstance(numbers, dict):
        raise ModelError(f"{file.with_suffix('.json')}: weight_numbers: must be an object, got {numbers!r:.60}")
    for layer_path, number in numbers.items():
        _freeze(own, layer_path, number, file)
    return own.eval()


def find_weights(path: Path) -> Path:
    """Return the ``.safetensors`` file that ``path`` means.

    Raises:
        ModelError: there is none, or several, or it has no JSON beside it.
    """
    found = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path.with_suffix(SUFFIX)]
    if len(found) != 1:
        what = f"holds {len(found)} {SUFFIX} files, {', '.join(file.name for file in found)}; name one" if found else (
            f"holds no {SUFFIX} file; export it with --format safetensors"
        )  # fmt: skip
        raise ModelError(f"{path}: {what}")
    for file in (found[0], found[0].with_suffix(".json")):
        if not file.is_file():
            raise ModelError(f"{file}: is not there; ftnas export --format safetensors writes {SUFFIX} and .json")
    return found[0]


def read_description(file: Path) -> dict[str, Any]:
    """Return the JSON beside the weights in ``file``.

    Raises:
        ModelError: it is damaged, or of a newer ftnas.
    """
    source = file.with_suffix(".json")
    try:
        content = read_json(source)
    except FtnasError as error:
        raise ModelError(str(error).partition("; delete")[0]) from None
    if not isinstance(content, dict) or not isinstance(content.get("net"), dict):
        raise ModelError(f"{source}: does not describe a net that ftnas exported")
    schema = content.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ModelError(f"{source}: schema {schema}, written by ftnas {content.get('ftnas')}; this one reads {SCHEMA}")
    if schema != SCHEMA:
        raise ModelError(f"{source}: schema must be {SCHEMA}, got {schema!r}")
    return content


def build_net(spec: Spec, *, source: str, most: int = LARGEST) -> nn.Module:
    """Return the net that ``spec`` (see ``save_weights``) describes, with no particular weights.

    Args:
        spec: plain data.
        source: begins the message of an error.
        most: numbers that the net may have.

    Raises:
        ModelError: it is incomplete, impossible or too large.
    """
    with understood(f"{source}: net", ModelError):
        try:
            return bounded(_builder(spec), most=most)
        except FtnasError as error:
            raise ModelError(f"{source}: net: {error}") from None


def _builder(spec: Spec) -> Callable[[], nn.Module]:
    image_shape, classes = _ends(spec)
    if "baseline" in spec:
        name, numbers, width = str(spec["baseline"]), Quantization.from_dict(spec["numbers"]), float(spec["width"])
        return lambda: build_baseline(name, width=width, image_shape=image_shape, classes=classes, numbers=numbers)
    space = validate(SearchSpace, spec["space"], source="space")
    genotype = Genotype.from_dict(spec["genotype"])
    space.check(genotype)
    sizes = validate(Sizes, spec["sizes"], source="sizes")
    return lambda: CellNetwork(space, sizes, image_shape=image_shape, classes=classes, genotype=genotype)


_WEIGHTED = Convolve | Multiply


def _weight_of(layer_path: str) -> str:
    return f"{layer_path}.weight" if layer_path else "weight"


def _to_dict(number: FixedPoint) -> dict[str, Any]:
    scale = list(number.scale) if isinstance(number.scale, tuple) else number.scale
    return {"bits": number.bits, "scale": scale, "signed": number.signed}


def _ends(spec: Spec) -> tuple[tuple[int, int, int], int]:
    channels, height, width = (int(size) for size in spec["image_shape"])
    if min(channels, height, width, int(spec["classes"])) < 1:
        raise ValueError(f"image_shape {spec['image_shape']} and classes {spec['classes']} must be positive")
    return (channels, height, width), int(spec["classes"])


def _harden(model: nn.Module, plan: Any, file: Path) -> None:
    """Protect the layers of ``model`` as those of the net in ``file`` were, unless they are."""
    try:
        protections = {at: Protection.from_dict(content) for at, content in plan.items()}
        if protections != protections_of(model):
            protect_(model, protections)
    except (ArithmeticError, AttributeError, FtnasError, LookupError, TypeError, ValueError) as error:
        raise ModelError(f"{file.with_suffix('.json')}: hardening: {' '.join(str(error).split())}") from None


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(file)[0]
    except FtnasError as error:
        raise ModelError(str(error).partition("; delete")[0]) from None


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    try:
        model.load_state_dict(tensors)
    # Where number formats should be, anything may be.
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ModelError(f"{file}: does not fit the net in {file.with_suffix('.json').name}: {why[:200]}") from None


def _freeze(model: nn.Module, layer_path: str, number: Any, file: Path) -> None:
    """Give a layer's weight a constant format: that of a faulty weight must not follow its faults."""
    layer = quantized_layers(model).get(layer_path)
    try:
        scale = number["scale"]
        bits, signed = int(number["bits"]), bool(number["signed"])
        frozen = FixedPoint(bits, tuple(map(float, scale)) if isinstance(scale, list) else float(scale), signed)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ModelError(f"{file.with_suffix('.json')}: weight_numbers: {layer_path}: {error!r}") from None
    if layer is None:
        raise ModelError(f"{file.with_suffix('.json')}: weight_numbers: {layer_path} is no layer of the net")
    if layer.storage is not None:
        layer.storage.faulty = True
    # An attribute of the module hides the method of its class.
    vars(layer)["weight_number"] = _Frozen(frozen)


class _Frozen:
    """Stands for ``QuantizedLayer.weight_number`` where the format is known."""

    def __init__(self, number: FixedPoint) -> None:
        self.number = number

    def __call__(self, weight: Tensor, quantization: Quantization | None = None) -> FixedPoint:
        return self.number
