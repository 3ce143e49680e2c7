"""Torch's own layers, made around the tensors of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

_CONVOLUTIONS: Mapping[int, type[nn.Module]] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
# By the dimensions of what they normalise.
_NORMS: Mapping[int, type[nn.Module]] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def convolution(
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> nn.Module:
    """Return the convolution with ``weight`` ``[out, in / groups, *kernel]`` of one to three dimensions.

    Raises:
        ValueError: the weight has another number of dimensions, or does not fit the other arguments.
    """
    if weight.dim() not in _CONVOLUTIONS:
        raise ValueError(f"a convolution's weight of {weight.dim()} dimensions; allowed are 3 to 5")
    size = weight.dim() - 2
    layer = _layer(
        _CONVOLUTIONS[weight.dim()],
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=_each(stride, size),
        padding=padding if isinstance(padding, str) else _each(padding, size),
        dilation=_each(dilation, size),
        groups=groups,
        bias=bias is not None,
    )
    return _filled(layer, weight=weight, bias=bias)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Return the linear layer with ``weight`` ``[out, in]``.

    Raises:
        ValueError: the weight is no matrix, or the bias has another length.
    """
    if weight.dim() != 2:
        raise ValueError(f"a linear layer's weight of {weight.dim()} dimensions; allowed are 2")
    layer = _layer(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None)
    return _filled(layer, weight=weight, bias=bias)


def batch_norm(
    mean: Tensor, variance: Tensor, gain: Tensor | None, offset: Tensor | None, *, epsilon: float, dimensions: int
) -> nn.Module:
    """Return the batch norm with these statistics, each ``[C]``, of values of so many ``dimensions``.

    Raises:
        ValueError: the tensors differ in length, or there is no batch norm of that many dimensions.
    """
    if dimensions not in _NORMS:
        raise ValueError(f"a batch norm of {dimensions} dimensions; allowed are 2 to 5")
    gain = torch.ones_like(mean) if gain is None and offset is not None else gain
    offset = torch.zeros_like(mean) if offset is None and gain is not None else offset
    layer = _layer(_NORMS[dimensions], len(mean), eps=epsilon, affine=gain is not None)
    torch.nn.init.zeros_(layer.get_buffer("num_batches_tracked"))
    return _filled(layer, running_mean=mean, running_var=variance, weight=gain, bias=offset)


def _layer(kind: Callable[..., nn.Module], *sizes: object, **options: object) -> nn.Module:
    """Return a layer whose tensors are not initialised, so that nothing is drawn from torch's random state."""
    layer: nn.Module = skip_init(kind, *sizes, **options)
    return layer.eval()


@torch.no_grad()
def _filled(layer: nn.Module, **tensors: Tensor | None) -> nn.Module:
    own = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.shape != own[name].shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)}, {list(own[name].shape)} is needed")
        own[name].data = tensor.clone()
    return layer


def _each(values: Sequence[int], size: int) -> tuple[int, ...]:
    """Return ``values`` for ``size`` dimensions; one value stands for all."""
    return tuple(values) * size if len(values) == 1 else tuple(values)
