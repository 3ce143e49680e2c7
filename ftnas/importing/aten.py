"""The ATen operations that a program may call: which become layers, and which stay functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.importing import layers

PREFIX = "torch.ops.aten."

_ELEMENTWISE = (
    "relu relu_ relu6 relu6_ hardtanh hardtanh_ clamp clamp_ clamp_min clamp_max leaky_relu leaky_relu_ elu elu_ silu "
    "silu_ gelu sigmoid sigmoid_ tanh tanh_ hardswish hardswish_ hardsigmoid hardsigmoid_ neg abs sqrt exp"
)
_SHAPES = (
    "view reshape _unsafe_view permute t contiguous clone detach detach_ alias lift_fresh_copy cat unsqueeze squeeze "
    "chunk pad constant_pad_nd channel_shuffle _to_copy"
)
_POOLS = (
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d dropout dropout_ "
    "feature_dropout"
)
_VARIANTS = (
    "add.Tensor add_.Tensor add.Scalar sub.Tensor sub_.Tensor sub.Scalar mul.Tensor mul_.Tensor mul.Scalar div.Tensor "
    "div_.Tensor div.Scalar rsub.Scalar softmax.int log_softmax.int flatten.using_ints unflatten.int transpose.int "
    "squeeze.dim squeeze.dims slice.Tensor select.int split.Tensor split_with_sizes.default mean.dim mean.default "
    "sum.dim_IntList sym_size.int expand.default to.dtype arange.start_step "
    "index.Tensor _unsafe_index.Tensor"
)

# Functions of plain tensors and numbers: none reads a file, runs code or draws at random in evaluation.
FUNCTIONS = frozenset(
    [*(f"{name}.default" for name in f"{_ELEMENTWISE} {_SHAPES} {_POOLS}".split()), *_VARIANTS.split()]
)

# Those whose sizes begin with the batch's, which a program may have fixed.
SIZED = frozenset(["view.default", "reshape.default", "_unsafe_view.default", "expand.default"])

Arguments = Mapping[str, Any]


def operation(name: str) -> Callable[..., Any]:
    """Return the operation ``name``, such as ``relu.default``, of either table."""
    base, _, overload = name.partition(".")
    found: Callable[..., Any] = getattr(getattr(torch.ops.aten, base), overload)
    return found


def _convolution(a: Arguments, dimensions: int) -> nn.Module:
    if a.get("transposed"):
        raise ValueError("a transposed convolution cannot be quantised")
    return layers.convolution(
        _tensor(a, "weight"),
        _tensor_or_none(a, "bias"),
        stride=a.get("stride", [1]),
        padding=a.get("padding", [0]),
        dilation=a.get("dilation", [1]),
        groups=a.get("groups", 1),
    )


def _linear(a: Arguments, dimensions: int) -> nn.Module:
    return layers.linear(_tensor(a, "weight"), _tensor_or_none(a, "bias"))


def _product(a: Arguments, dimensions: int) -> nn.Module:
    return layers.linear(_tensor(a, "mat2").t().contiguous(), None)


def _product_and_bias(a: Arguments, dimensions: int) -> nn.Module:
    if any(a.get(name, 1) != 1 for name in ("alpha", "beta")):
        raise ValueError("alpha and beta must be 1")
    weight = _tensor(a, "mat2").t().contiguous()
    return layers.linear(weight, _tensor(a, "self").expand(len(weight)))


def _batch_norm(a: Arguments, dimensions: int) -> nn.Module:
    if a.get("training"):
        raise ValueError("batch norm is in training mode; call model.eval() before torch.export")
    return layers.batch_norm(
        _tensor(a, "running_mean"),
        _tensor(a, "running_var"),
        _tensor_or_none(a, "weight"),
        _tensor_or_none(a, "bias"),
        epsilon=a["eps"],
        dimensions=dimensions,
    )


# (name of what it reads, (its arguments, dimensions of what it reads) -> layer)
LAYERS: Mapping[str, tuple[str, Callable[[Arguments, int], nn.Module]]] = {
    **dict.fromkeys(
        ("conv1d.default", "conv2d.default", "conv3d.default", "conv1d.padding", "conv2d.padding", "conv3d.padding"),
        ("input", _convolution),
    ),
    "convolution.default": ("input", _convolution),
    "linear.default": ("input", _linear),
    "addmm.default": ("mat1", _product_and_bias),
    "mm.default": ("self", _product),
    "batch_norm.default": ("input", _batch_norm),
    "_native_batch_norm_legit_no_training.default": ("input", _batch_norm),
}


def _tensor(a: Arguments, name: str) -> Tensor:
    value = a.get(name)
    if not isinstance(value, Tensor):
        raise ValueError(f"its {name} is computed by the net; allowed is a parameter")
    return value


def _tensor_or_none(a: Arguments, name: str) -> Tensor | None:
    return None if a.get(name) is None else _tensor(a, name)
