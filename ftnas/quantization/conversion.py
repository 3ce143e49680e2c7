"""Quantising a float model of the user's: a copy whose convolutions and linear layers own fault sites."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ftnas.errors import FaultError
from ftnas.quantization.choices import Quantization, Range
from ftnas.quantization.converted import ConvertedLayer, FloatLayer
from ftnas.quantization.formats import Word
from ftnas.quantization.normalisation import cleaned
from ftnas.quantization.survey import Survey, replace_modules, survey, twin_of, warn_of
from ftnas.quantization.tracing import Span, Trace, trace

BATCH = 64
# Conversion changes no operation, so the copy repeats the model's numbers; a GPU may add them in another order.
TOLERANCE = 1e-4
UNROUNDED = Quantization(word="float32")

Images = Tensor | Iterable[Tensor | Sequence[Tensor]]


def quantize(
    model: nn.Module,
    images: Images,
    *,
    bits: int = 8,
    weight_bits: int | None = None,
    feature_bits: int | None = None,
    weight_range: str = "max_per_channel",
    feature_range: str = "max",
) -> nn.Module:
    """Return a copy of ``model`` whose convolutions and linear layers hold integers; ``model`` is left as it is.

    Each ``Conv1d/2d/3d`` and ``Linear`` becomes a quantised layer, together with the batch norm that alone reads its
    result, since hardware folds the two. The ranges of results are the largest that ``images`` give, in evaluation
    mode and before any rounding; results that are never negative get a format without sign. The copy is in the mode
    of ``model``, has its other modules but no hooks, and can be trained on. What remains float is named in a warning.

    Args:
        model: of float32 weights; its layers are called as modules.
        images: for calibration, a few hundred at least: ``[N, ...]``, or batches of such. Of a batch that is a
            sequence, as a loader gives, the first entry is taken. All are held in memory.
        bits: of weights and features, 2..16.
        weight_bits: of weights, where that differs.
        feature_bits: of features, where that differs.
        weight_range: ``max_per_channel``, ``power_of_two_per_channel``, ``max``, ``power_of_two``, ``learned`` or
            ``fixed(LIMIT)``.
        feature_range: ``max``, ``power_of_two``, ``learned`` or ``fixed(LIMIT)``.

    Raises:
        FaultError: an argument is impossible, nothing can be quantised, or the copy would compute something else.
    """
    try:
        quantization = Quantization(
            bits if weight_bits is None else weight_bits,
            Range.parse(weight_range),
            bits if feature_bits is None else feature_bits,
            Range.parse(feature_range),
        )
    except ValueError as error:
        raise FaultError(str(error)) from None
    conversion = _convert(model, _batches(images), quantization)
    for layer, spans in conversion.spans.items():
        layer.settle_(quantization, low=min(span.low for span in spans), high=max(span.high for span in spans))
    return conversion.model


def expose(model: nn.Module, images: Images | None = None, *, word: Word = "float32") -> nn.Module:
    """Return a copy of ``model`` whose convolutions and linear layers hold floating-point words; see ``quantize``.

    With float32 the copy computes exactly what ``model`` does; only that faults can reach it.

    Args:
        model: of float32 weights.
        images: a batch is enough, to see which batch norm belongs to which layer and that the copy is right. Without
            images every batch norm stays a layer of its own, so that faults hit results before it, and nothing is
            checked.
        word: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        FaultError: an argument is impossible, nothing can be converted, or the copy would compute something else.
    """
    if word not in ("float32", "bfloat16", "float16"):
        raise FaultError(f"unknown word {word!r}; choose from float32, bfloat16, float16")
    return _convert(model, None if images is None else _batches(images), Quantization(word=word)).model


class _Conversion(NamedTuple):
    """A converted model, and what its new layers returned before any rounding."""

    model: nn.Module
    spans: Mapping[ConvertedLayer, Sequence[Span]]


def _convert(model: nn.Module, batches: Sequence[Tensor] | None, quantization: Quantization) -> _Conversion:
    twin = twin_of(model)
    found = survey(twin)
    if batches is None:
        warn_of(found, model, never_called=())
        plain = {layer: ConvertedLayer(layer, quantization) for layer in found.layers}
        return _Conversion(_with(twin, found, plain, norms={}), {})
    before = trace(twin, batches, layers=found.layers, norms=found.norms)
    _check_finite(found, before)
    warn_of(found, model, never_called=[path for layer, path in found.layers.items() if layer not in before.calls])
    norms = {layer: norm for layer in found.layers if (norm := _own_norm(before, layer)) is not None}
    called = [layer for layer in found.layers if layer in before.calls]
    layers = {layer: ConvertedLayer(layer, quantization, norm=norms.get(layer)) for layer in called}
    twin = _with(twin, found, layers, norms=norms)
    after = _trace_unrounded(twin, batches, layers.values())
    for layer in sorted(called, key=list(before.calls).index):
        _check_same(found.layers[layer], before.spans[norms.get(layer, layer)], after.spans.get(layers[layer], ()))
    _check_outputs(before.outputs, after.outputs)
    return _Conversion(twin, {layer: after.spans[layer] for layer in layers.values()})


def _with(
    model: nn.Module,
    found: Survey,
    layers: Mapping[FloatLayer, ConvertedLayer],
    *,
    norms: Mapping[FloatLayer, _BatchNorm],
) -> nn.Module:
    """Return ``model`` with the new ``layers``; of its batch norms, those inside them leave an identity behind."""
    new: dict[nn.Module, nn.Module] = {norm: cleaned(norm) for norm in found.norms}
    new.update(layers.items())
    new.update((norm, nn.Identity().train(norm.training)) for norm in norms.values())
    return replace_modules(model, new)


def _own_norm(before: Trace, layer: FloatLayer) -> _BatchNorm | None:
    """Return the batch norm that hardware folds into ``layer``: one of its channels, with statistics of its own."""
    norm = before.norm_of(layer)
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
        return None
    return norm if norm.num_features == len(layer.weight) else None


def _trace_unrounded(model: nn.Module, batches: Sequence[Tensor], layers: Collection[ConvertedLayer]) -> Trace:
    """Run the converted ``model`` with its layers in float."""
    for layer in layers:
        layer.quantization = UNROUNDED
    try:
        return trace(model, batches, layers=layers)
    except Exception as error:
        raise FaultError(f"the converted copy of the model does not run: {error}") from error
    finally:
        for layer in layers:
            layer.quantization = layer.choices[0]


def _check_finite(found: Survey, before: Trace) -> None:
    for layer, path in found.layers.items():
        if not all(math.isfinite(value) for span in before.spans.get(layer, ()) for value in span):
            raise FaultError(f"{path}: the images give results that are infinite or not a number")


def _check_same(path: str, expected: Sequence[Span], found: Sequence[Span]) -> None:
    """Refuse a copy in which the layer at ``path`` returned something else."""
    if len(found) != len(expected):
        calls = f"the model calls it {len(expected)} times, the copy {len(found)} times"
        raise FaultError(f"{path}: {calls}; a layer must be called as the module that the model has registered")
    for was, became in zip(expected, found, strict=True):
        allowed = TOLERANCE * max(abs(was.low), abs(was.high))
        if not all(math.isclose(a, b, abs_tol=allowed) for a, b in zip(was, became, strict=True)):
            raise FaultError(f"{path}: the copy computes {became} where the model does {was}, before any rounding")


def _check_outputs(expected: Sequence[Sequence[Tensor]], found: Sequence[Sequence[Tensor]]) -> None:
    for was, became in zip(expected, found, strict=True):
        if len(was) != len(became) or not all(map(_is_same, was, became)):
            raise FaultError("the copy returns something else than the model, before any rounding")


def _is_same(was: Tensor, became: Tensor) -> bool:
    if was.shape != became.shape or was.dtype != became.dtype:
        return False
    if not was.is_floating_point() or not was.numel():
        return torch.equal(was, became)
    largest = float(was.nan_to_num(0, 0, 0).abs().max())
    return torch.allclose(became, was, rtol=0, atol=TOLERANCE * largest, equal_nan=True)


def _batches(images: Images) -> list[Tensor]:
    if isinstance(images, Tensor):
        batches = list(images.split(BATCH)) if images.dim() else []
    elif isinstance(images, Iterable):
        # A loader draws from torch's random state.
        with torch.random.fork_rng(devices=()):
            batches = [_first(batch) for batch in images]
    else:
        batches = [_first(images)]
    if not batches or not all(batch.numel() for batch in batches):
        raise FaultError("images are needed for calibration, got none")
    return batches


def _first(batch: object) -> Tensor:
    first = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(first, Tensor):
        raise FaultError(f"images must be a tensor [N, ...] or batches of such, got {type(batch).__name__}")
    return first
