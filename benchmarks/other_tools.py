"""PyTorchFI 0.6.0 and MRFI 2.1.0 on a float net, where they are installed; neither is needed.

    pip install --no-deps pytorchfi==0.6.0 MRFI==2.1.0

Without ``--no-deps`` they bring torchvision, which nothing here uses.
"""

from __future__ import annotations

import copy
import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from timing import Steps
from torch import Tensor, nn

MRFI_CONFIG = """
faultinject:
  - type: {kind}
    enabled: True
    {quantization}
    selector: {{method: RandomPositionByRate, poisson: True, rate: {rate}}}
    error_mode: {error_mode}
    module_type: [Conv2d]
"""
FLOAT_FLIP = "{method: FloatRandomBitFlip, floattype: float32}"
INTEGER_FLIP = "{method: IntRandomBitFlip, bit_width: 8}"
INTEGERS = "quantization: {method: SymmericQuantization, dynamic_range: auto, bit_width: 8}"


def pytorchfi_steps(model: nn.Module, images: Tensor, count: int, rate: float) -> dict[str, Steps]:
    """Return what PyTorchFI does: ``count`` listed values of outputs, and a share ``rate`` of the weights.

    It sets values, which is no bit flip, and copies the model for each list; the copy counts for the weights, as a
    chip of a campaign needs one each, and not for the outputs, whose list is made beforehand for ``ftnas`` too.
    """
    core = _imported("pytorchfi.core")
    if core is None:
        return {}
    with _kept_logging():
        injector = core.fault_injection(model, len(images), input_shape=list(images.shape[1:]), layer_types=[nn.Conv2d])
    rng = np.random.default_rng(0)
    shapes = [tuple(shape[1:]) for shape in injector.output_size]
    layer, *place = _draw_values(shapes, count, rng)
    batch, values = rng.integers(len(images), size=count).tolist(), rng.uniform(-1, 1, count).tolist()
    faulty = injector.declare_neuron_fi(
        layer_num=layer, batch=batch, dim1=place[0], dim2=place[1], dim3=place[2], value=values
    )

    def outputs() -> None:
        injector.reset_current_layer()  # it never does so itself: the second pass would raise an IndexError
        faulty(images)

    return {f"PyTorchFI, {count:,} listed values of outputs": [outputs], **_weight_steps(core, model, images, rate)}


def _weight_steps(core: ModuleType, model: nn.Module, images: Tensor, rate: float) -> dict[str, Steps]:
    with _kept_logging():
        injector = core.fault_injection(model, len(images), input_shape=list(images.shape[1:]), layer_types=[nn.Conv2d])
    shapes = [tuple(shape) for shape in injector.weights_size]
    count = round(rate * sum(int(np.prod(shape)) for shape in shapes))
    layer, *place = _draw_values(shapes, count, np.random.default_rng(1))
    names = dict(zip(("k", "dim1", "dim2", "dim3"), place, strict=True))

    def weights() -> None:
        injector.declare_weight_fi(layer_num=layer, **names, value=[0.5] * count)(images)

    return {f"PyTorchFI, {rate:g} of the weights": [weights]}


def _draw_values(shapes: list[tuple[int, ...]], count: int, rng: np.random.Generator) -> list[list[int]]:
    """Return tensor and indices of ``count`` values, each of ``shapes`` as likely as it is large."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    number = rng.integers(ends[-1], size=count)
    which = np.searchsorted(ends, number, side="right")
    inside = number - np.concatenate(([0], ends[:-1]))[which]
    indices = [np.unravel_index(value, shapes[tensor]) for tensor, value in zip(which, inside, strict=True)]
    return [which.tolist(), *([int(index) for index in column] for column in zip(*indices, strict=True))]


def mrfi_steps(model: nn.Module, images: Tensor, *, rate: float) -> dict[str, Steps]:
    """Return what MRFI does to outputs and weights of convolutions: a random bit in a share ``rate`` of the values.

    It draws positions with replacement. Integers are those of dynamic quantisation, which the plain pass lacks.
    """
    mrfi = _imported("mrfi")
    if mrfi is None:
        return {}
    kinds = {
        f"MRFI, {rate:g} of the float32 outputs": ("activation_out", "", FLOAT_FLIP),
        f"MRFI, {rate:g} of the int8 outputs": ("activation_out", INTEGERS, INTEGER_FLIP),
        f"MRFI, {rate:g} of the float32 weights": ("weight", "", FLOAT_FLIP),
        f"MRFI, {rate:g} of the int8 weights": ("weight", INTEGERS, INTEGER_FLIP),
    }
    return {name: [_mrfi_step(mrfi, model, images, rate, *kind)] for name, kind in kinds.items()}


def _mrfi_step(
    mrfi: Any, model: nn.Module, images: Tensor, rate: float, kind: str, quantization: str, error_mode: str
) -> Any:
    text = MRFI_CONFIG.format(kind=kind, rate=rate, quantization=quantization, error_mode=error_mode)
    faulty = mrfi.MRFI(copy.deepcopy(model), mrfi.EasyConfig.load_string(text))
    return lambda: faulty(images)


def _imported(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name.split(".")[0]):
            return None
        raise


@contextmanager
def _kept_logging() -> Iterator[None]:
    """Undo what PyTorchFI does to the root logger: a format of fields that nobody sets."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    try:
        yield
    finally:
        root.handlers[:] = handlers
