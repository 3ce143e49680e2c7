"""A net of the user's own beside its weights: the float net as a file that is read without running anybody's code.

With it a folder of weights is whole: ftnas builds the net, quantises it, and puts the weights in.
"""

from __future__ import annotations

import copy
import io
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftnas.errors import FaultError, FtnasError, ModelError
from ftnas.export.weights import find_weights, load_weights, read_description
from ftnas.faults import quantize
from ftnas.files import remove, replacing
from ftnas.importing.exported_program import load_program
from ftnas.importing.onnx_file import load_onnx, write_whole
from ftnas.networks.hardened import protect_, protections_of
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.runtime import keyed_generator, place
from ftnas.untrusted import inside, plain_name, understood

EXAMPLE = 2  # images; one would make the batch a constant of the program
PROBED = 8
SUFFIXES = (".onnx", ".pt2")
LARGEST_SIDE = 4096


def source_name(weights: Path, suffix: str) -> str:
    """Return how the file beside ``weights`` is called, by the kind of file that it is."""
    return f"{weights.stem}.source{suffix}"


def keep_source(net: Checkpoint, weights: Path) -> Mapping[str, Any] | None:
    """Write the float net of ``net``, one of the user's own, beside ``weights``, and return the spec to save with them.

    A file is kept as it is, of ONNX with the weights that lie in other files; a net of a Python file becomes a program.

    Returns:
        What ``save_weights`` takes; ``None`` where there is no float net, torch cannot export it, or what comes back
        has other layers or gives other logits than ``net``.
    """
    suffix = ".pt2" if net.source is None else net.source.suffix
    target = weights.with_name(source_name(weights, suffix))
    if net.source is None:
        if net.float_model is None or not _write_program(net.float_model, net.data.image_shape, target):
            return None
    elif suffix == ".onnx":
        write_whole(net.source, target)
    else:
        with replacing(target) as part:
            shutil.copyfile(net.source, part)
    if not _gives(target, net):
        remove(target)
        return None
    ends = {"image_shape": list(net.data.image_shape), "classes": net.data.classes}
    return {"own": type(net.model).__name__, "source": target.name, **ends}


@torch.no_grad()
def _gives(source: Path, net: Checkpoint) -> bool:
    """Return whether the net in ``source`` is ``net`` but for its weights: with those it has the same logits."""
    images = net.data.train_images[:PROBED].cpu()
    try:
        built = _built(source, net.data.image_shape)
        protect_(built, protections_of(net.model))
        built.load_state_dict(net.model.state_dict())
        logits = place(built, torch.device("cpu"))(images)
    except (FtnasError, RuntimeError):
        return False
    return torch.equal(logits, place(copy.deepcopy(net.model), torch.device("cpu"))(images))


def _built(source: Path, image_shape: tuple[int, ...]) -> nn.Module:
    """Return the net in ``source``, quantised with no particular ranges: formats are among what is loaded."""
    net = load_program(source) if source.suffix == ".pt2" else load_onnx(source, image_shape=image_shape)
    images = torch.randn(PROBED, *image_shape, generator=keyed_generator("own source"))
    return quantize(net, images).eval()


def source_of(weights: Path) -> Path | None:
    """Return the file that is kept beside ``weights``; ``None`` where they are of no such net.

    Raises:
        ModelError: the description is damaged, or its file is not there.
    """
    name = read_description(weights)["net"].get("source")
    if name is None:
        return None
    with understood(weights.with_suffix(".json"), ModelError):
        file = inside(weights.parent, weights.with_name(plain_name(name, weights.with_suffix(".json"))))
    if not file.is_file() or file.suffix not in SUFFIXES:
        raise ModelError(f"{file}: is not there, and {weights.name} needs it to be built")
    return file


def load_kept(path: Path, *, model: nn.Module | None = None) -> nn.Module:
    """Return the net that ``save_weights`` wrote, as ``load_weights`` does, built from the file beside it if it is own.

    Args:
        path: the ``.safetensors`` file, its ``.json``, or a folder with one such pair.
        model: the net to load into, where there is no such file.

    Raises:
        ModelError: a file is missing, damaged, or of a net that has to be given and is not.
    """
    weights = find_weights(path)
    source = None if model is not None else source_of(weights)
    if source is None:
        return load_weights(weights, model=model)
    try:
        own = place(_built(source, _shape(weights)), torch.device("cpu"))
    except FaultError as error:
        raise ModelError(f"{source}: {error}") from error
    return load_weights(weights, model=own)


def _shape(weights: Path) -> tuple[int, ...]:
    """Return the shape of an image ``[C, H, W]`` as the JSON says it."""
    file = weights.with_suffix(".json")
    with understood(f"{file}: net", ModelError):
        sizes = tuple(int(size) for size in read_description(weights)["net"]["image_shape"])
        if len(sizes) != 3 or not all(1 <= size <= LARGEST_SIDE for size in sizes):
            raise ModelError(f"{file}: net: image_shape {sizes}; allowed are channels, height and width")
        return sizes


def _write_program(model: nn.Module, image_shape: tuple[int, ...], target: Path) -> bool:
    """Write ``model`` as a program for batches of any size; return whether torch can."""
    own = copy.deepcopy(model).cpu().eval()
    batch = {0: torch.export.Dim("batch", min=1)}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own parts
            program = torch.export.export(own, (torch.zeros(EXAMPLE, *image_shape),), dynamic_shapes=(batch,))
            content = io.BytesIO()
            torch.export.save(program, content)
    except Exception:  # whatever torch does not trace in somebody's net
        return False
    with replacing(target) as part:
        part.write_bytes(content.getvalue())
    return True
