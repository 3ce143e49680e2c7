"""A net by what a user calls it: a run, a training, an exported net, or a model of the user's own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ftnas.consent import allow_code
from ftnas.data import DATA_SETS, Dataset, load_data
from ftnas.errors import DataError, FaultError, ModelError
from ftnas.export.weights import SUFFIX, find_weights, load_weights, read_description
from ftnas.faults import quantize
from ftnas.files import read_tensors
from ftnas.importing.mistakes import said
from ftnas.importing.python_file import load_python
from ftnas.pipeline.checkpoints import Checkpoint, limited, load_checkpoint
from ftnas.pipeline.jobs import CALIBRATION_IMAGES
from ftnas.pipeline.own_sources import load_kept, source_of
from ftnas.pipeline.run_folder import is_workplace
from ftnas.pipeline.spiking_nets import graph_file, load_spiking, spiking_file
from ftnas.quantization.survey import survey
from ftnas.runtime import choose_device, place, use_threads
from ftnas.untrusted import path_of

BITS = 8
THREADS = 1  # as a run has by default; a campaign's workers are threads themselves


class OwnNet(NamedTuple):
    """Where a net of the user's is: ``name`` is the one in a Python file, and empty for a file that is one net."""

    file: Path
    name: str

    @property
    def label(self) -> str:
        """What results call the net."""
        return self.name or self.file.stem


def load_net(
    text: str,
    *,
    data: str | None = None,
    data_directory: Path | None = None,
    images: int | None = None,
    bits: int | None = None,
    weights: Path | None = None,
) -> Checkpoint:
    """Return the net that ``text`` names, quantised and in evaluation mode, with data to measure it on.

    A model of the user's own is folded and quantised: its ranges are those of the first 512 training images.

    Args:
        text: a run folder, which stands for its winner; a training folder; a folder or ``.safetensors`` file that
            ``ftnas export`` wrote; ``FILE.py:NAME``; ``FILE.pt2``; ``FILE.onnx``; or the ``.json`` or ``.nir`` file of
            a layered spiking net.
        data: name of a data set; a model of the user's own has none, and needs it.
        data_directory: its folder or file.
        images: measure on so many test images only, a fixed random choice.
        bits: of weights and features of the user's own model, 8 by default; other nets have theirs.
        weights: for the net of a Python file: safetensors of the float net, or what ``ftnas export`` wrote of it.

    Raises:
        ModelError: the file is damaged, or holds what ftnas cannot read or quantise.
        RunError: there is no such net, or no finished training.
        DataError: the data set is unknown, damaged, or does not fit the net.
        FaultError: ``bits`` are impossible.
    """
    own = own_net(text)
    if own is not None:
        if not own.file.is_file():  # before the data are loaded, which takes longer
            raise ModelError(f"{own.file}: {'is not a file' if own.file.exists() else 'is not there'}")
        if own.name:
            allow_code(own.file)  # by naming it here
        return _load_own(own, text, limited(_data_for(text, data, data_directory), images), bits, weights)
    for option, value in (("bits", bits), ("weights", weights)):
        if value is not None:
            raise ModelError(f"--{option}: is for a model of your own; {text} has its own {option}")
    spiking = spiking_file(text)
    if spiking is not None:
        return load_spiking(spiking, data=data, data_directory=data_directory, images=images)
    if graph_file(text) is not None:
        raise ModelError(f"{text}: is a spiking graph; ftnas campaign, export, show and spikes take one")
    if not _is_exported(Path(text)):
        return load_checkpoint(Path(text), data=data, data_directory=data_directory, images=images)
    return _load_exported(Path(text), data=data, data_directory=data_directory, images=images)


def _is_exported(path: Path) -> bool:
    """Return whether ``path`` is a file, or a folder with a file, as ``ftnas export`` writes, and no training's."""
    if path.is_dir():
        return not is_workplace(path) and not (path / "model.json").exists() and any(path.glob(f"*{SUFFIX}"))
    return path.suffix == SUFFIX


def _load_exported(path: Path, *, data: str | None, data_directory: Path | None, images: int | None) -> Checkpoint:
    """Return the net of an exported file, by default with the data that it was exported with."""
    file = find_weights(path)
    content = read_description(file)
    spec, facts, source = content["net"], content.get("facts", {}), source_of(file)
    if "own" in spec and source is None:
        raise ModelError(f"{file}: is of {spec['own']}, a net of your own; give FILE.py:{spec['own']} --weights {file}")
    model = load_kept(file)
    loaded = limited(load_data(data or str(facts.get("data")), directory=data_directory), images)
    if (list(loaded.image_shape), loaded.classes) != (spec["image_shape"], spec["classes"]):
        shape = "x".join(map(str, loaded.image_shape))
        raise ModelError(f"{file}: is of a net for other data than {loaded.name} ({shape}, {loaded.classes} classes)")
    use_threads(THREADS)
    device = choose_device("auto")
    name = str(facts.get("source", file.stem))
    known = None if "own" in spec else spec
    return Checkpoint(name, place(model, device), loaded.to(device), origin=str(file), spec=known, source=source)


def _load_own(own: OwnNet, text: str, data: Dataset, bits: int | None, weights: Path | None) -> Checkpoint:
    """Return a net of the user's own, quantised; ``weights`` are those of the float net, or what was exported."""
    use_threads(THREADS)
    if weights is None or not own.name or not weights.with_suffix(".json").exists():
        model = float_net(own, data, weights=weights)
        net = quantised_net(model, data, name=own.label, origin=text, bits=BITS if bits is None else bits)
        return net if own.name else replace(net, source=own.file)
    if bits is not None:
        raise ModelError(f"--bits: {weights} has its own, since ftnas exported it")
    net = quantised_net(float_net(own, data), data, name=own.label, origin=text)
    load_weights(weights, model=net.model)
    return replace(
        net, model=place(net.model, choose_device("auto")), origin=f"{text} with {weights}", float_model=None
    )


def own_net(text: str) -> OwnNet | None:
    """Return the file and name that ``text`` means, or ``None`` where it is no model of the user's own.

    Raises:
        ModelError: it is a Python file without a name.
    """
    path = path_of(text)
    python = re.fullmatch(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*)", text)
    if python:
        return OwnNet(Path(python["file"]), python["name"])
    if re.search(r"\.py(:.*)?$", text) and not is_workplace(path):
        raise ModelError(f"{text}: needs the name of a net in it, as FILE.py:NAME")
    return OwnNet(path, "") if path.suffix in (".pt2", ".onnx") else None


def float_net(own: OwnNet, data: Dataset, *, weights: Path | None = None, seed: int = 0) -> nn.Module:
    """Return the user's net in float, on the CPU.

    Args:
        own: which.
        data: says the shape of images and the number of classes.
        weights: safetensors to load into the net of a Python file.
        seed: of its initialisation.

    Raises:
        ModelError: the net or the weights cannot be read.
    """
    if own.name:
        model = load_python(own.file, own.name, image_shape=data.image_shape, classes=data.classes, seed=seed)
        return model if weights is None else _with_weights(model, weights, own)
    if weights is not None:
        raise ModelError(f"--weights: is for a model in a Python file; {own.file} has its own weights")
    if own.file.suffix == ".onnx":
        from ftnas.importing.onnx_file import load_onnx

        return load_onnx(own.file, image_shape=data.image_shape)
    from ftnas.importing.exported_program import load_program

    return load_program(own.file)


def quantised_net(
    model: nn.Module, data: Dataset, *, name: str, origin: str, bits: int = BITS, device: str = "auto"
) -> Checkpoint:
    """Return ``model``, a float net of the user's, folded and quantised to ``bits``, and left as it is itself.

    Args:
        model: the net; images go in as ``[N, C, H, W]``, logits come out as ``[N, classes]``.
        data: its first training images calibrate the net; it need not be on the device.
        name: what results call the net.
        origin: where it comes from, for messages.
        bits: of weights and features, 2..16.
        device: see ``runtime.choose_device``.

    Raises:
        ModelError: the net does not compute logits from such images, or has layers that cannot be quantised.
        FaultError: ``bits`` are impossible.
    """
    there = choose_device(device)
    here = data.to(there)
    calibration = here.train_images[:CALIBRATION_IMAGES]
    original = model.to(there).eval()
    _check_layers(original, origin)
    _check_logits(_tried(original, calibration[:2], origin, data), origin, data)
    try:
        quantised = quantize(original, calibration, bits=bits)
    except FaultError as error:
        raise ModelError(f"{origin}: {error}") from error
    return Checkpoint(name, quantised.eval(), here, origin=origin, float_model=original)


def _data_for(text: str, name: str | None, directory: Path | None) -> Dataset:
    if name is None:
        sets = ", ".join(DATA_SETS)
        raise DataError(f"--data: {text} is a model of your own and needs a data set; choose from {sets}")
    return load_data(name, directory=directory)


def _with_weights(model: nn.Module, file: Path, own: OwnNet) -> nn.Module:
    if not file.is_file():
        raise ModelError(f"{file}: is not there; --weights takes a .safetensors file")
    tensors, _ = read_tensors(file)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        what = said(error).partition(": ")[2] or said(error)
        raise ModelError(f"{file}: does not fit {own.file}:{own.name}: {what}") from None
    return model


def _check_layers(model: nn.Module, origin: str) -> None:
    """Refuse layers whose parameters no fault would reach: a campaign would call them safe."""
    try:
        unknown = survey(model).unknown
    except FaultError as error:
        raise ModelError(f"{origin}: {error}") from None
    if unknown:
        raise ModelError(
            f"{origin}: {', '.join(unknown)} cannot be quantised; allowed are Conv1d, Conv2d, Conv3d, Linear, "
            "batch norms, and what has no parameters"
        )


@torch.no_grad()
def _tried(model: nn.Module, images: Tensor, origin: str, data: Dataset) -> object:
    try:
        return model(images)
    except Exception as error:
        shape = "x".join(map(str, data.image_shape))
        raise ModelError(f"{origin}: does not run on images {shape} of {data.name}: {said(error)}") from error


def _check_logits(logits: object, origin: str, data: Dataset) -> None:
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 2:
        found = f"a tensor {list(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ModelError(f"{origin}: returns {found} for 2 images; allowed are logits [2, {data.classes}]")
    if logits.shape[1] != data.classes:
        raise ModelError(f"{origin}: has {logits.shape[1]} classes, {data.name} has {data.classes}")
